"""What a transformers folder says of itself before any of it is loaded."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.embedding import ModelConfig
from ember.spark import model_sources, models, runtimes
from ember.spark.model_cache import check_cached

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


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[]"),
        ("config.json", "5"),
        ("config.json", "[" * 200_000),
        ("config.json", json.dumps({**TOWERS, "architectures": 5})),
        ("config.json", json.dumps({**TOWERS, "architectures": [1]})),
        ("preprocessor_config.json", "[]"),
        ("preprocessor_config.json", "[" * 200_000),
    ],
)
def test_settings_of_a_strange_shape_are_refused_with_the_file_s_name(tmp_path, file, text):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / file).write_text(text)
    with pytest.raises(InvalidInput, match=rf"/{file}\b"):
        models.resolve(ModelConfig(name=f"hf:{tmp_path}"), "image", 1000)


def test_executors_get_the_files_of_the_fingerprint_and_nothing_hidden(tmp_path):
    folder, archive = tmp_path / "model", str(tmp_path / "model.tar")
    for name in ("config.json", ".env", "README.md", "_manifest.json", "1_Pooling/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (tmp_path / "blob").write_text("weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    models.pack(folder, archive)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "there", filter="data")
        names = [
            f"model/{n}" for n in ("1_Pooling/config.json", "config.json", "model.safetensors")
        ]
        assert tar.getnames() == names
    assert (tmp_path / "there/model/model.safetensors").read_text() == "weights"
    models.pack(tmp_path / "blob", archive)  # as the weights of a Keras model
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["blob"]


@pytest.fixture
def cached(tmp_path) -> Path:
    folder = tmp_path / "cache" / "openvino-model"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    check_cached(folder)
    return folder


def test_a_cached_model_that_has_changed_is_refused_until_it_is_deleted(cached):
    check_cached(cached)
    (cached / "model.bin").write_bytes(b"weighty")
    with pytest.raises(InvalidInput, match=r"openvino-model is not what it was .* delete both"):
        check_cached(cached)


@pytest.mark.parametrize("which", ["the folder", "the model"])
def test_a_cache_that_everybody_can_write_to_is_refused(cached, which):
    target = cached.parent if which == "the folder" else cached
    target.chmod(0o777)
    with pytest.raises(InvalidInput, match=rf"{target} is another user's or writable for every"):
        check_cached(cached)


def test_a_cache_of_another_user_is_refused(cached, monkeypatch):
    check_cached(cached)
    mine = cached.stat().st_uid
    monkeypatch.setattr("os.getuid", lambda: mine + 1)
    if mine == 0:  # root's files are everybody's to use
        check_cached(cached)
        return
    with pytest.raises(InvalidInput, match="is another user's"):
        check_cached(cached)


def test_a_folder_has_no_revision(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidConfig, match=r"model\.revision is for names of the hub"):
        models.resolve(ModelConfig(name=f"hf:{tmp_path}", revision="main"), "text", 1000)


def test_a_folder_with_code_is_refused_before_any_row_is_read(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "a.B"}}')
    with pytest.raises(InvalidInput, match=r"auto_map: a\.B"):
        models.resolve(ModelConfig(name=f"hf:{tmp_path}"), "text", 1000)


@pytest.mark.parametrize("given", [{"weights": "random"}, {"weights": "imagenet"}, {}])
def test_a_keras_model_without_keras_says_what_to_install(tmp_path, monkeypatch, given):
    monkeypatch.setenv("EMBER_CACHE", str(tmp_path))
    for module in (runtimes, model_sources):
        monkeypatch.setattr(module, "find_spec", lambda name: name == "openvino")
    (tmp_path / "w.weights.h5").write_bytes(b"not read")
    weights = {"weights": str(tmp_path / "w.weights.h5"), "runtime": "openvino", **given}
    config = ModelConfig.model_validate({"name": "keras:MobileNetV2", **weights})
    with pytest.raises(InvalidInput, match=r"keras:MobileNetV2 needs Keras .* ember-spark\[tensor"):
        models.resolve(config, "image", 1000)
