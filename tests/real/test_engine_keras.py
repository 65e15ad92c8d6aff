"""The large models of keras.applications on real photographs, with random weights."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.models.keras_models import application_module
from tiny_models import needs_keras, save_keras, spec_of, stir_keras

pytestmark = needs_keras


@pytest.fixture
def photographs(real_data: Path) -> list[bytes]:
    rows = pq.read_table(real_data / "imagenet-200.parquet", columns=["content"])
    return rows["content"].to_pylist()[::35]


@pytest.fixture(autouse=True)
def free_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of these takes half a gigabyte: forget it after its test."""
    import keras

    monkeypatch.setattr(task, "_loaded", {})
    yield
    keras.utils.clear_session()


def plain_vectors(model: Any, architecture: str, size: int, images: list[bytes]) -> np.ndarray:
    """The documented recipe, one image at a time."""
    import keras

    rows = []
    for data in images:
        image = keras.utils.load_img(io.BytesIO(data), target_size=(size, size))
        batch = keras.utils.img_to_array(image)[None]
        batch = application_module(architecture).preprocess_input(batch)
        rows.append(model.predict_on_batch(batch))
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("architecture", "layer", "size", "width"),
    [
        ("ResNet50", "avg_pool", 224, 2048),
        ("VGG16", "fc1", 224, 4096),
        ("InceptionV3", "avg_pool", 299, 2048),
    ],
)
def test_vectors_equal_plain_keras_one_image_at_a_time(
    photographs: list[bytes], tmp_path: Path, architecture: str, layer: str, size: int, width: int
) -> None:
    import keras

    whole = getattr(keras.applications, architecture)(weights=None)
    stir_keras(whole)
    save_keras(whole, tmp_path / "w.weights.h5")
    reference = keras.Model(whole.input, whole.get_layer(layer).output)
    expected = plain_vectors(reference, architecture, size, photographs)

    spec = spec_of(
        tmp_path / "w.weights.h5", name=f"keras:{architecture}", layer=layer, batch_size=4
    )
    encoder = task.load(spec, address=None, threads=2, paths=False)
    (slot,) = encode([Slot(photographs)], encoder, threads=2, timed=lambda *_: None)

    assert slot.errors == {}
    assert slot.vectors.shape == expected.shape == (len(photographs), width)
    assert np.abs(slot.vectors - expected).max() <= 1e-4 * np.abs(expected).max()
    assert expected.std(axis=0).max() > 1e-3 * np.abs(expected).max()
