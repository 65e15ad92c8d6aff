from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ember.worker.recipe import of_layer
from ember.worker.spec import (
    KERAS_INPUT_SIZE,
    Generation,
    ModelSpec,
    Sampling,
    hash_files,
    weight_files,
)
from tiny_models import needs_keras, spec_of


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "w.weights.h5"
    file.write_bytes(b"weights")
    return file


@pytest.fixture
def spec(weights: Path) -> ModelSpec:
    return spec_of(weights, name="keras:ResNet50")


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "fc1"},
        {"precision": "bfloat16"},
        {"normalize": True},
        {"runtime": "torch"},
        {"weights_sha256": "0" * 64},
        {"preprocessing": "other"},
        {"modality": "text"},
        {"max_pixels": 5},
        {"name": "keras:ResNet101"},
        {"task": "classify", "layer": None},
        {"task": "generate", "layer": None},
    ],
    ids=str,
)
def test_fingerprint_changes_with_what_decides_the_vectors(
    spec: ModelSpec, change: dict[str, object]
) -> None:
    assert replace(spec, **change).fingerprint != spec.fingerprint


FIXED = ModelSpec(
    name="hf:model",
    family="hf",
    modality="text",
    path="/models/model",
    layer="mean",
    runtime="torch",
    precision="float32",
    batch_size=None,
    normalize=False,
    max_pixels=1000,
    weights_sha256="0" * 64,
    preprocessing="",
)
IMAGES = {"name": "keras:ResNet50", "family": "keras", "modality": "image"}
IMAGES |= {"runtime": "tensorflow", "layer": "avg_pool"}
DRAWN = Generation(8, 1, ("x",), Sampling(0.5, 4, None, 1))


@pytest.mark.parametrize(
    ("change", "fingerprint", "output"),
    [
        (
            {"text": of_layer("mean")},
            "94248dca9dfb8da6276c208b1f57f186e44464a76942c2854199d65988d62786",
            "mean",
        ),
        (
            {"task": "classify", "layer": None},
            "c466a382d5c3c91319db730d36f7dfdfc7ed1cf0809589b6991a7fe1b4d0ef2e",
            "classes",
        ),
        (
            {"task": "generate", "layer": None, "generation": DRAWN},
            "63693de4cf36d68ca9140f927ca285a31d078f3ad9168cf26f41d14981b64a0b",
            "text",
        ),
        (IMAGES, "8677480a6488fe45378bae6837382ecf148ce63c2925866200bbf48c397d8926", "avg_pool"),
        (
            {**IMAGES, "task": "classify", "layer": None},
            "3165f896e3f18833af443814dccbf257c2dd52e5945d9b3dba5ca64a066c7a70",
            "classes",
        ),
    ],
    ids=["text", "classes of texts", "generation", "keras", "classes of keras"],
)
def test_outputs_of_earlier_versions_are_known_by_the_same_fingerprint_and_layer(
    change: dict[str, object], fingerprint: str, output: str
) -> None:
    """Of 0.1.0 before `task`, when the other tasks were layers named `classes` and `text`."""
    spec = replace(FIXED, **change)
    assert spec.fingerprint == fingerprint
    told = spec.describe()
    assert (told["layer"], told["fingerprint"]) == (output, fingerprint)
    assert not {"path", "task"} & told.keys()


@pytest.mark.parametrize("change", [{"path": "/elsewhere/w.h5"}, {"batch_size": 7}], ids=str)
def test_fingerprint_ignores_place_and_batch_size(
    spec: ModelSpec, change: dict[str, object]
) -> None:
    assert replace(spec, **change).fingerprint == spec.fingerprint


def test_fingerprint_of_a_folder_ignores_its_name(bert_folder: Path) -> None:
    spec = spec_of(bert_folder)
    assert replace(spec, name="hf:hub/id").fingerprint == spec.fingerprint


def test_fingerprint_is_the_same_in_another_process(spec: ModelSpec) -> None:
    code = f"from ember.worker.spec import ModelSpec; print({spec!r}.fingerprint)"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == spec.fingerprint


def test_moving_changes_only_the_path(spec: ModelSpec) -> None:
    assert spec.at("/new") == replace(spec, path="/new")


def test_manifest_entry_names_fingerprint_and_tolerance_but_no_path(spec: ModelSpec) -> None:
    described = spec.describe()
    assert described["fingerprint"] == spec.fingerprint
    assert described["relative_tolerance"] == 1e-4
    assert spec.path not in str(described)


def folder(root: Path, **files: str) -> Path:
    root.mkdir()
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_hash_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    base = hash_files(folder(tmp_path / "a", x="1", y="2"))
    assert hash_files(folder(tmp_path / "b", y="2", x="1")) == base
    assert hash_files(folder(tmp_path / "c", x="2", y="1")) != base
    assert hash_files(folder(tmp_path / "d", x="1", z="2")) != base
    assert hash_files(folder(tmp_path / "e", x="1", sub__y="2")) != base
    assert hash_files(folder(tmp_path / "f", x="1", y="2", z="")) != base


def test_hash_ignores_prose_and_hidden_files(tmp_path: Path) -> None:
    plain = folder(tmp_path / "a", x="1")
    extra = folder(tmp_path / "b", x="1", README_DOT_md="r", _DOT_git__config="c", p_DOT_png="p")
    assert hash_files(extra) == hash_files(plain)
    assert [file.name for file in weight_files(extra)] == ["x"]


def test_hash_of_a_file_ignores_its_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    assert hash_files(one) == hash_files(two)
    two.write_text("other")
    assert hash_files(one) != hash_files(two)


@needs_keras
def test_every_name_and_no_other_is_a_model_of_keras_applications() -> None:
    import keras

    models = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(KERAS_INPUT_SIZE) == models


# MobileNetV3 takes any size, and does not say which one it was trained with.
@needs_keras
@pytest.mark.parametrize("name", [name for name in KERAS_INPUT_SIZE if "NetV3" not in name])
def test_input_size_is_what_keras_asks_for_by_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.applications import imagenet_utils

    class Asked(Exception):
        pass

    def stop(*_: object, default_size: int, **__: object) -> None:
        raise Asked(default_size)

    # Stopped before it builds anything, which takes seconds for many of these models.
    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", stop)
    with pytest.raises(Asked) as caught:
        getattr(keras.applications, name)(weights=None)
    assert caught.value.args == (KERAS_INPUT_SIZE[name],)
