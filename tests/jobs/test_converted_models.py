"""Jobs with models in OpenVINO: converted once, kept, and stated in the manifest."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from corpora import assert_close, manifest, vectors, write_pictures
from ember.spark import model_sources
from tiny_models import needs_openvino

pytestmark = needs_openvino
needs_nncf = pytest.mark.skipif(not find_spec("nncf"), reason="nncf is not installed")


@pytest.fixture
def embed(embed_job, resnet, tmp_path, monkeypatch):
    """The job on images with a tiny ResNet and a cache of its own."""
    monkeypatch.setenv("EMBER_CACHE", str(tmp_path / "cache"))
    source = write_pictures(tmp_path / "in.parquet", 60)

    def run(out, *flags, **settings):
        given = {
            "input__path": source,
            "input__id": "image_id",
            "input__modality": "image",
            "model__name": resnet,
            "output__path": tmp_path / out,
            **settings,
        }
        return embed_job(*flags, **given)

    return run


def test_a_model_is_converted_once_and_gives_the_vectors_of_torch(embed, tmp_path, monkeypatch):
    code, error = embed("torch", model__runtime="torch")
    assert error == ""
    assert code == 0
    code, error = embed("one", model__runtime="openvino")
    assert error == ""
    assert code == 0
    said = manifest(tmp_path / "one")["model"]
    assert (said["runtime"], said["runtime_reason"]) == ("openvino", "as the configuration says")
    found = [vectors(tmp_path / each, "image_id") for each in ("one", "torch")]
    assert_close(*(np.stack([each[key] for key in sorted(each)]) for each in found))
    folder = next((tmp_path / "cache").glob("openvino-*[!6]"))
    assert {each.name for each in folder.iterdir()} >= {"model.xml", "model.bin", "ember.json"}

    def fail(*_, **__):
        raise AssertionError("converted twice")

    monkeypatch.setattr(model_sources, "_prepare", fail)
    code, error = embed("two", model__runtime="openvino")
    assert error == ""
    assert code == 0
    again, first = (vectors(tmp_path / each, "image_id") for each in ("two", "one"))
    assert all((again[key] == first[key]).all() for key in first)


def test_auto_leaves_a_small_model_to_torch_and_says_why(embed, tmp_path):
    assert embed("out")[0] == 0
    said = manifest(tmp_path / "out")["model"]
    assert said["runtime"] == "torch"
    assert "a model this small" in said["runtime_reason"]


@needs_nncf
def test_vectors_at_8_bits_come_with_their_drift_or_not_at_all(embed, tmp_path):
    eight = {"model__precision": "int8"}
    code, error = embed("out", limits__min_cosine=1, **eight)
    assert code == 5
    assert "below limits.min_cosine = 1; nothing was written" in error
    assert not (tmp_path / "out").exists()
    assert embed("out", limits__min_cosine=0.5, **eight)[0] == 0
    said = manifest(tmp_path / "out")["model"]
    assert said["precision"] == "int8"
    assert said["drift"]["rows"] == said["drift"]["calibrated_on"]
    assert 0.5 <= said["drift"]["cosine"]["least"] < 1
    assert embed("out", output__mode="resume", **eight)[0] == 0


def test_the_least_cosine_is_for_8_bits(embed, tmp_path):
    code, error = embed("out", limits__min_cosine=0.9)
    assert code == 2
    assert "limits.min_cosine is for model.precision int8" in error
