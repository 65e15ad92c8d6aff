from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ember.errors import InvalidInput
from ember.worker.models import prepare
from ember.worker.models.keras_models import build_features
from ember.worker.models.keras_runtime import KerasImageEncoder
from ember.worker.models.openvino_images import OpenvinoImageEncoder
from odd_images import odd_images
from tiny_models import keras_weights, needs_keras, needs_openvino, spec_of, stir_keras

pytestmark = [needs_keras, needs_openvino]  # which converts what keras defines


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    return keras_weights(folder / "mobile.weights.h5", "MobileNetV2", top=True)


@pytest.fixture(scope="module")
def converted(weights: Path) -> Path:
    folder = weights.parent / "converted"
    assert prepare.main("keras", "MobileNetV2", str(weights), "avg_pool", str(folder)) == 0
    return folder


def images() -> list[bytes]:
    return [odd_images()[name] for name in ("jpeg", "rgba png", "palette png", "wide")] * 5


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_vectors_equal_those_of_keras(weights: Path, converted: Path, batch_size: int) -> None:
    import keras

    features = build_features("MobileNetV2", str(weights), "avg_pool")
    spec = spec_of(converted, name="keras:MobileNetV2", runtime="openvino")
    encoder = OpenvinoImageEncoder(spec, "cpu", 2, paths=False)
    pixels = [outcome[0] for outcome in encoder.prepare(images()) if isinstance(outcome, tuple)]
    ours = np.concatenate(
        [
            encoder.run(pixels[start : start + batch_size])
            for start in range(0, len(pixels), batch_size)
        ]
    )
    assert ours.dtype == np.float32
    inputs = np.stack(pixels).astype(np.float32)
    plain = np.asarray(features(keras.applications.mobilenet_v2.preprocess_input(inputs)))
    assert np.abs(ours - plain).max() <= 1e-4 * np.abs(plain).max()


def test_rows_are_prepared_as_for_tensorflow(weights: Path, converted: Path) -> None:
    one = OpenvinoImageEncoder(
        spec_of(converted, name="keras:MobileNetV2", runtime="openvino"), "cpu", 1, paths=False
    )
    other = KerasImageEncoder(spec_of(weights, name="keras:MobileNetV2"), "cpu", 1, paths=False)
    for ours, theirs in zip(one.prepare(images()), other.prepare(images()), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])


def test_a_gpu_is_not_silently_left_unused(converted: Path) -> None:
    spec = spec_of(converted, name="keras:MobileNetV2", runtime="openvino")
    with pytest.raises(InvalidInput, match="use tensorflow or auto"):
        OpenvinoImageEncoder(spec, "cuda", 1, paths=False)


def test_weights_that_do_not_fit_are_named_and_nothing_is_left(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "converted"
    assert prepare.main("keras", "MobileNet", str(weights), "avg_pool", str(target)) == 2
    assert "do not fit keras:MobileNet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_prepares_pixels_itself_is_given_them_as_they_are(tmp_path: Path) -> None:
    import keras

    bare = keras.applications.MobileNetV2(include_top=False, weights=None, pooling="avg")
    stir_keras(bare)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)
    model = keras.Sequential([keras.Input((224, 224, 3)), scaled, bare])
    model.save(tmp_path / "own.keras")
    folder = tmp_path / "converted"
    arguments = ("keras", "MobileNetV2", str(tmp_path / "own.keras"), "avg_pool", str(folder))
    assert prepare.main(*arguments) == 0
    spec = spec_of(folder, name="keras:MobileNetV2", runtime="openvino")
    encoder = OpenvinoImageEncoder(spec, "cpu", 2, paths=False)
    pixels = [outcome[0] for outcome in encoder.prepare(images()[:4])]
    expected = np.asarray(model(np.stack(pixels).astype(np.float32)))
    assert np.abs(encoder.run(pixels) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert "without preprocess_input" in encoder.notes[0]
