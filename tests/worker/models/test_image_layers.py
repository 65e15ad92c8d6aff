"""The layers of image models: `cls` is a class token, or refused, in whatever architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from ember.errors import InvalidInput
from ember.worker.models.torch_images import TorchImageEncoder
from tiny_models import spec_of, stir

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES = {"image_size": 32, "patch_size": 2, "embed_dim": 16}
_WITH = {
    "ViT": _SMALL,
    "ViTMSN": _SMALL,
    "DeiT": _SMALL,
    "Beit": _SMALL,
    "Data2VecVision": _SMALL,
    "Dinov2": _SMALL,
    "DINOv3ViT": _SMALL,
    "Dinov2WithRegisters": _SMALL,
    "CLIPVision": _SMALL,
    "MLCDVision": _SMALL,
    "Yolos": {**_SMALL, "image_size": [32, 32]},
    "Pvt": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64]},
}
_WITHOUT = {
    "Swin": {**_STAGES, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
    "Swinv2": {**_STAGES, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "FocalNet": {
        **_STAGES,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "IJepa": _SMALL,
    "Hiera": {
        "image_size": [32, 32],
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "masked_unit_size": [4, 4],
    },
    "SiglipVision": _SMALL,
    "Aimv2Vision": _SMALL,
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "ConvNextV2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "PoolFormer": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "PvtV2": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64]},
}


def encoder(folder: Path, kind: str, settings: dict[str, Any]) -> TorchImageEncoder:
    torch.manual_seed(5)
    model = getattr(transformers, f"{kind}Model")(
        getattr(transformers, f"{kind}Config")(**settings)
    ).eval()
    stir(model)
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    spec = spec_of(folder, modality="image", layer="cls")
    return TorchImageEncoder(spec, "cpu", 1, paths=None)


@pytest.mark.parametrize("kind", _WITH)
def test_a_class_token_is_known_by_what_the_model_does(tmp_path: Path, kind: str) -> None:
    made = encoder(tmp_path, kind, _WITH[kind])
    item = made.processed(Image.new("RGB", (40, 30), (9, 99, 1)))
    (vector,) = made.run([item])
    pixels = torch.from_numpy(item["pixel_values"])[None]
    with torch.inference_mode():
        expected = made.model(pixel_values=pixels).last_hidden_state[0, 0]
    torch.testing.assert_close(torch.from_numpy(vector), expected)


@pytest.mark.parametrize("kind", _WITHOUT)
def test_the_first_patch_is_no_class_token(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"has no class token.* use avg_pool"):
        encoder(tmp_path, kind, _WITHOUT[kind])
