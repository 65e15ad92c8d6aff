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
from image_models import WITH_CLASS_TOKEN, WITHOUT_CLASS_TOKEN
from tiny_models import spec_of, stir


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


@pytest.mark.parametrize("kind", WITH_CLASS_TOKEN)
def test_a_class_token_is_known_by_what_the_model_does(tmp_path: Path, kind: str) -> None:
    made = encoder(tmp_path, kind, WITH_CLASS_TOKEN[kind])
    item = made.processed(Image.new("RGB", (40, 30), (9, 99, 1)))
    (vector,) = made.run([item])
    pixels = torch.from_numpy(item["pixel_values"])[None]
    with torch.inference_mode():
        expected = made.model(pixel_values=pixels).last_hidden_state[0, 0]
    torch.testing.assert_close(torch.from_numpy(vector), expected)


@pytest.mark.parametrize("kind", WITHOUT_CLASS_TOKEN)
def test_the_first_patch_is_no_class_token(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"has no class token.* use avg_pool"):
        encoder(tmp_path, kind, WITHOUT_CLASS_TOKEN[kind])
