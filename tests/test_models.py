"""What a transformers folder says of itself before any of it is loaded."""

from __future__ import annotations

import json

import pytest

from ember import models
from ember.errors import InvalidConfig, InvalidInput
from ember.settings.embedding import ModelConfig

TOWERS = {"text_config": {}, "vision_config": {}}


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({**TOWERS, "architectures": ["CLIPModel"]}, ("pooler", "pooler")),
        ({"model_type": "vision-text-dual-encoder"}, ("pooler", "pooler")),
        ({**TOWERS, "architectures": ["LlavaForConditionalGeneration"]}, ("avg_pool", "mean")),
        ({"architectures": ["BertModel"]}, ("avg_pool", "mean")),
    ],
)
def test_the_default_layer_of_a_dual_encoder_is_what_images_and_texts_share(
    tmp_path, settings, layers
):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    found = [
        models.resolve(ModelConfig(name=f"hf:{tmp_path}"), modality, 1000).layer
        for modality in ("image", "text")
    ]
    assert tuple(found) == layers


def test_no_other_layer_of_a_dual_encoder_can_be_asked_for(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TOWERS))
    with pytest.raises(InvalidConfig, match=r"mean is not one of hf:.* for texts: pooler"):
        models.resolve(ModelConfig(name=f"hf:{tmp_path}", layer="mean"), "text", 1000)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"config\.json is not JSON"):
        models.resolve(ModelConfig(name=f"hf:{tmp_path}"), "text", 1000)
