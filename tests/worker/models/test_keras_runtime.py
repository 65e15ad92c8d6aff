from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.models import prepare
from ember.worker.models.keras_models import application_module, build_features
from ember.worker.models.keras_runtime import KerasImageEncoder
from ember.worker.spec import KERAS_INPUT_SIZE
from odd_images import encoded, odd_images, picture
from tiny_models import keras_weights, needs_keras, save_keras, spec_of, stir_keras

pytestmark = needs_keras

NAMES = ("jpeg", "rgba png", "palette png", "wide")
IMAGES = [*(odd_images()[name] for name in NAMES), encoded(picture(224, 224, 1), "PNG")]


@pytest.fixture(autouse=True)
def same_policy() -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def plain_inputs(architecture: str) -> list[np.ndarray]:
    """The documented recipe, one image at a time."""
    import keras

    size = KERAS_INPUT_SIZE[architecture]
    inputs = []
    for data in IMAGES:
        image = keras.utils.load_img(io.BytesIO(data), target_size=(size, size))
        batch = keras.utils.img_to_array(image)[None]
        inputs.append(application_module(architecture).preprocess_input(batch))
    return inputs


class Plain:
    """One set of random weights of an architecture, in plain Keras."""

    def __init__(self, architecture: str) -> None:
        import keras

        keras.utils.set_random_seed(5)
        size = KERAS_INPUT_SIZE[architecture]
        build = getattr(keras.applications, architecture)
        bare = {"weights": None, "include_top": False, "input_shape": (size, size, 3)}
        self.top = build(weights=None)
        stir_keras(self.top)
        self.pooled = build(pooling="avg", **bare)
        self.bare = build(**bare)
        for model in (self.pooled, self.bare):
            model.set_weights(self.top.get_weights()[: len(model.get_weights())])
        self.features = np.concatenate(
            [np.asarray(self.pooled(each)) for each in plain_inputs(architecture)]
        )


@pytest.fixture(scope="module")
def plain() -> Callable[[str], Plain]:
    return cache(Plain)


def features_of(file: Path, architecture: str, **spec: Any) -> np.ndarray:
    encoder = task.load(
        spec_of(file, name=f"keras:{architecture}", **spec), address=None, threads=1, paths=False
    )
    (slot,) = encode([Slot(IMAGES)], encoder, threads=2, timed=lambda *_: None)
    assert slot.errors == {}
    return slot.vectors


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    # Rows differ by far more than the tolerance, so that a mix-up would show.
    assert expected.std(axis=0).max() > 10 * tolerance * np.abs(expected).max()


# MobileNetV3: pooling that keeps its dimensions, and pooling inside its blocks as well.
FORMS = [
    *(("MobileNetV3Small", part) for part in ("top", "bare", "pooled")),
    ("MobileNetV2", "top"),
]


@pytest.mark.parametrize(("architecture", "part"), FORMS)
@pytest.mark.parametrize("form", ["weights.h5", "keras"])
def test_every_form_of_file_equals_plain_keras(
    plain: Callable[[str], Plain], tmp_path: Path, architecture: str, part: str, form: str
) -> None:
    file = tmp_path / f"model.{form}"
    save_keras(getattr(plain(architecture), part), file)
    close(features_of(file, architecture), plain(architecture).features)


def _prepared(bare: Any, how: str) -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((224, 224, 3))
    prepare = layers.Rescaling(1 / 127.5, offset=-1)
    if how == "statistics":
        prepare = layers.Normalization(mean=[127.5] * 3, variance=[127.5**2] * 3)
    if how == "adapted":
        prepare = layers.Normalization()
        prepare.adapt(np.array([0, 255], np.float32)[:, None, None, None].repeat(3, -1))
    return keras.Sequential([pixels, layers.RandomFlip(), prepare, bare])


@pytest.mark.parametrize("how", ["rescaling", "statistics", "adapted"])
def test_a_file_that_prepares_pixels_itself_is_given_them_as_they_are(
    plain: Callable[[str], Plain], tmp_path: Path, how: str
) -> None:
    file = tmp_path / "model.keras"
    model = _prepared(plain("MobileNetV2").pooled, how)
    save_keras(model, file)
    pixels = np.stack([each[0] for each in plain_inputs("MobileNetV2")]) * 127.5 + 127.5
    found = features_of(file, "MobileNetV2")
    # Without training=False its RandomFlip flips.
    close(found, np.asarray(model(pixels, training=False)))
    close(found, plain("MobileNetV2").features)
    spec = spec_of(file, name="keras:MobileNetV2")
    (note,) = task.record(spec, paths=False).notes
    assert "without preprocess_input" in note


def test_a_file_with_the_arithmetic_of_preprocess_input_inside_is_refused(
    plain: Callable[[str], Plain], tmp_path: Path
) -> None:
    import keras

    pixels = keras.Input((224, 224, 3))
    prepared = keras.applications.mobilenet_v2.preprocess_input(pixels)
    keras.Model(pixels, plain("MobileNetV2").pooled(prepared)).save(tmp_path / "model.keras")
    with pytest.raises(InvalidInput, match="keras:MobileNetV2 cannot be loaded"):
        features_of(tmp_path / "model.keras", "MobileNetV2")


def _topped(bare: Any, top: str) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    if top == "nested":
        pooled = keras.Sequential([bare, layers.GlobalMaxPooling2D()])
        head = keras.Sequential([layers.Dropout(0.2), layers.Dense(3)])
        return keras.Sequential([keras.Input((224, 224, 3)), pooled, head])
    joint = layers.GlobalMaxPooling2D() if top == "max" else layers.Flatten()
    return keras.Model(bare.input, layers.Dense(3)(joint(bare.output)))


@pytest.mark.parametrize("top", ["max", "flatten", "nested"])
def test_average_is_of_the_last_map_whatever_the_top_makes_of_it(
    plain: Callable[[str], Plain], tmp_path: Path, top: str
) -> None:
    # Its last squeeze-and-excite block averages a map of as many channels.
    model = _topped(plain("MobileNetV3Small").bare, top)
    save_keras(model, tmp_path / "model.keras")
    close(
        features_of(tmp_path / "model.keras", "MobileNetV3Small"),
        plain("MobileNetV3Small").features,
    )
    inputs = plain_inputs("MobileNetV3Small")
    logits = np.concatenate([np.asarray(model(each)) for each in inputs])
    classes = build_features("MobileNetV3Small", str(tmp_path / "model.keras"), "classes")
    actual = np.concatenate([np.asarray(classes(each)) for each in inputs])
    close(actual, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("form", ["weights.h5", "keras", "linear.keras"])
def test_classes_are_the_probabilities_of_plain_keras(
    plain: Callable[[str], Plain], tmp_path: Path, form: str
) -> None:
    import keras

    top = plain("MobileNetV3Small").top
    expected = np.concatenate([np.asarray(top(each)) for each in plain_inputs("MobileNetV3Small")])
    if form == "linear.keras":  # as built with classifier_activation=None
        scores = keras.layers.Dense(7, kernel_initializer=keras.initializers.RandomNormal(seed=0))
        features = plain("MobileNetV3Small").pooled
        top = keras.Model(features.input, scores(features.output))
        logits = np.asarray(scores(plain("MobileNetV3Small").features))
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    save_keras(top, tmp_path / f"model.{form}")
    close(
        features_of(tmp_path / f"model.{form}", "MobileNetV3Small", layer=None, task="classify"),
        expected,
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [("keras", "holds no classification top"), ("weights.h5", r"\(layer classes\)")],
)
def test_weights_without_a_top_give_no_classes(
    plain: Callable[[str], Plain], tmp_path: Path, form: str, words: str
) -> None:
    file = tmp_path / f"model.{form}"
    save_keras(plain("MobileNetV3Small").pooled, file)
    with pytest.raises(InvalidInput, match=words):
        build_features("MobileNetV3Small", str(file), "classes")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_changes_nothing(
    plain: Callable[[str], Plain], tmp_path: Path, batch_size: int
) -> None:
    save_keras(plain("MobileNetV3Small").pooled, tmp_path / "w.weights.h5")
    actual = features_of(tmp_path / "w.weights.h5", "MobileNetV3Small", batch_size=batch_size)
    close(actual, plain("MobileNetV3Small").features)


def test_two_batches_under_way_change_nothing(
    plain: Callable[[str], Plain], tmp_path: Path
) -> None:
    """As on a GPU, where float32 is float32."""
    import tensorflow as tf

    file = tmp_path / "w.weights.h5"
    save_keras(plain("MobileNetV3Small").pooled, file)
    spec = spec_of(file, name="keras:MobileNetV3Small", batch_size=2)
    encoder = KerasImageEncoder(spec, "cpu", 1, paths=None)
    assert encoder.in_flight == 1
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    rows = [encoded(picture(30 + number, 40), "PNG") for number in range(7)]
    (alone,) = encode([Slot(rows)], encoder, threads=1, timed=lambda *_: None)
    encoder.in_flight = 2
    (together,) = encode([Slot(rows)], encoder, threads=1, timed=lambda *_: None)
    np.testing.assert_allclose(together.vectors, alone.vectors, rtol=1e-5, atol=1e-6)


def test_bfloat16_stays_close(plain: Callable[[str], Plain], tmp_path: Path) -> None:
    save_keras(plain("MobileNetV3Small").pooled, tmp_path / "w.weights.h5")
    full = plain("MobileNetV3Small").features
    low = features_of(tmp_path / "w.weights.h5", "MobileNetV3Small", precision="bfloat16")
    assert low.dtype == np.float32
    assert (low != full).any()
    cosine = (low * full).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.99


def test_convnext_ends_in_its_norm_from_a_whole_model_too() -> None:
    from ember.worker.models.keras_models import _cut

    # The smallest of the family has 28 million weights; this one has the same ends.
    build = application_module("ConvNeXtTiny").ConvNeXt
    shape = {
        "depths": [1, 1, 1, 1],
        "projection_dims": [4, 4, 8, 8],
        "weights": None,
        "input_shape": (32, 32, 3),
    }
    whole = build(include_top=True, classes=7, name="whole", **shape)
    bare = build(include_top=False, pooling="avg", name="bare", **shape)
    stir_keras(whole)
    bare.set_weights(whole.get_weights()[: len(bare.get_weights())])
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    for model in (whole, bare):
        cut = _cut(model, "ConvNeXtTiny", "avg_pool")
        np.testing.assert_allclose(cut(pixels), bare(pixels), atol=1e-5)


def test_prepared_imagenet_weights_keep_what_only_the_graph_held(
    fresh_process: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import keras

    # EfficientNet has one more layer when it is built with weights="imagenet".
    published = keras_weights(tmp_path / "published.weights.h5", "EfficientNetB0", top=True)
    private = application_module("EfficientNetB0")
    fresh_process.setattr(private.file_utils, "get_file", lambda *_, **__: str(published))
    expected = keras.applications.EfficientNetB0(weights="imagenet")

    target = tmp_path / "prepared.weights.h5"
    prepare.main("weights", "EfficientNetB0", "imagenet", str(target))
    assert {file.name for file in tmp_path.iterdir()} == {published.name, target.name}

    actual = build_features("EfficientNetB0", str(target), "avg_pool")
    pixels = plain_inputs("EfficientNetB0")[0]
    # Compared where the extra layer has just been; random weights blur it further on.
    one, other = (
        np.asarray(keras.Model(model.input, model.get_layer("stem_conv").output)(pixels))
        for model in (actual, expected)
    )
    assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()


def test_prepared_random_weights_are_the_same_again(
    fresh_process: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = plain_inputs("MobileNetV3Small")[0]
    outputs = []
    for name in ("a.weights.h5", "b.weights.h5"):
        prepare.main("weights", "MobileNetV3Small", "random", str(tmp_path / name))
        features = build_features("MobileNetV3Small", str(tmp_path / name), "avg_pool")
        outputs.append(np.asarray(features(pixels)))
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].std() > 0


@pytest.mark.parametrize(("form", "top"), [("weights.h5", True), ("keras", False)])
def test_weights_of_another_architecture_are_named(tmp_path: Path, form: str, top: bool) -> None:
    file = keras_weights(tmp_path / f"w.{form}", "MobileNetV3Small", top=top)
    with pytest.raises(InvalidInput, match=rf"{file} do not fit keras:MobileNetV2"):
        build_features("MobileNetV2", str(file), "avg_pool")


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("weights.h5", b"no weights at all"),
        ("weights.h5", None),
        ("h5", b""),
        ("keras", b""),
        ("keras", b"no weights at all"),
        ("keras", None),
    ],
)
def test_unreadable_weights_are_named(tmp_path: Path, form: str, content: bytes | None) -> None:
    file = tmp_path / f"w.{form}"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"cannot read weights from {file}"):
        build_features("MobileNetV3Small", str(file), "avg_pool")


def test_keras_file_of_another_input_size_does_not_fit(tmp_path: Path) -> None:
    import keras

    model = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    model.save(tmp_path / "small.keras")
    with pytest.raises(InvalidInput, match="do not fit"):
        build_features("MobileNetV2", str(tmp_path / "small.keras"), "avg_pool")


def test_layer_that_only_vgg_has_is_refused(plain: Callable[[str], Plain], tmp_path: Path) -> None:
    save_keras(plain("MobileNetV3Small").top, tmp_path / "w.weights.h5")
    with pytest.raises(InvalidInput, match="keras:MobileNetV3Small has no layer 'fc1'; it has"):
        build_features("MobileNetV3Small", str(tmp_path / "w.weights.h5"), "fc1")


# Its public module has the preprocessing, but not the models.
CAMEL = {"mobilenet_v3": "MobileNetV3"}


@pytest.mark.parametrize("architecture", KERAS_INPUT_SIZE)
def test_preprocessing_is_that_of_the_public_module(architecture: str) -> None:
    import keras

    (public,) = {
        module.preprocess_input
        for name in dir(keras.applications)
        if name[0].islower()
        and hasattr(module := getattr(keras.applications, name), "preprocess_input")
        and (hasattr(module, architecture) or architecture.startswith(CAMEL.get(name, "-")))
    }
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    mine = application_module(architecture).preprocess_input(pixels.copy())
    np.testing.assert_array_equal(mine, public(pixels.copy()))


def test_tensorflow_memory_errors_are_known(plain: Callable[[str], Plain], tmp_path: Path) -> None:
    import tensorflow as tf

    save_keras(plain("MobileNetV3Small").top, tmp_path / "w.weights.h5")
    spec = spec_of(tmp_path / "w.weights.h5", name="keras:MobileNetV3Small")
    encoder = KerasImageEncoder(spec, "cpu", 1, paths=False)
    assert encoder.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM"))
    assert encoder.is_out_of_memory(MemoryError())
    assert not encoder.is_out_of_memory(tf.errors.InternalError(None, None, "other"))
