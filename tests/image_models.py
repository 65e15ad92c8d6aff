"""Settings of tiny image models of many architectures, for pictures of 32 x 32 pixels."""

from __future__ import annotations

from typing import Any

VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES = {"image_size": 32, "patch_size": 2, "embed_dim": 16}
WITH_CLASS_TOKEN: dict[str, dict[str, Any]] = {
    "ViT": VIT,
    "ViTMSN": VIT,
    "DeiT": VIT,
    "Beit": VIT,
    "Data2VecVision": VIT,
    "Dinov2": VIT,
    "DINOv3ViT": VIT,
    "Dinov2WithRegisters": VIT,
    "CLIPVision": VIT,
    "MLCDVision": VIT,
    "Yolos": {**VIT, "image_size": [32, 32]},
    "Pvt": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64]},
}
WITHOUT_CLASS_TOKEN: dict[str, dict[str, Any]] = {
    "Swin": {**_STAGES, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
    "Swinv2": {**_STAGES, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "FocalNet": {
        **_STAGES,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "IJepa": VIT,
    "Hiera": {
        "image_size": [32, 32],
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "masked_unit_size": [4, 4],
    },
    "SiglipVision": VIT,
    "Aimv2Vision": VIT,
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "ConvNextV2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "PoolFormer": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "PvtV2": {"image_size": 32, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64]},
}
