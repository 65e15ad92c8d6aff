"""Models of keras.applications up to a layer or to their classes, from any file Keras wrote."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ember.errors import InvalidInput
from ember.worker.spec import KERAS_INPUT_SIZE

__all__ = ["application_module", "build_features", "preparation"]

# What stands in the place of a layer for the probabilities of the top.
_CLASSES = "classes"


def application_module(architecture: str) -> Any:
    """The module of keras.applications that holds `architecture` and its preprocess_input."""
    import keras

    function = getattr(keras.applications, architecture)
    # The public modules (keras.applications.resnet50, …) re-export functions of the private one
    # that defines the model; that one always has preprocess_input.
    return sys.modules[function.__module__]


def preparation(architecture: str, features: Any) -> tuple[Callable[..., Any], str | None]:
    """What pixels (n, h, w, 3) go through before `features`, and a note where it is nothing.

    Files of models that were trained further often begin with a Rescaling or a Normalization before
    the first convolution: they take pixels as they are. (Those that begin with the arithmetic of
    preprocess_input itself cannot be cut, and are refused.)
    """
    preprocess = application_module(architecture).preprocess_input
    pixels = np.array([[[[0, 100, 255]]]], np.float32)
    if np.array_equal(preprocess(pixels.copy()), pixels):
        return preprocess, None  # such a layer belongs to the architecture
    own = _own_preparation(features)
    if own is None:
        return preprocess, None
    note = f"pixels as they are, without preprocess_input: the file's {own} prepares them"
    return lambda batch: batch, note


def _own_preparation(features: Any) -> str | None:
    """The name of what scales pixels in a model before anything is learnt of them."""
    from keras.layers import Layer, Normalization, Rescaling

    for operation in features.operations:
        if isinstance(operation, Rescaling | Normalization):
            return str(operation.name)
        if isinstance(operation, Layer) and operation.weights:
            return None
    return None


def build_features(architecture: str, weights: str, layer: str) -> Any:
    """The keras.Model from pixels (n, h, w, 3) float32 to features (n, d), d by layer.

    weights: a file written by keras, with or without the classification top. `avg_pool` is the
    average of the last feature map; `fc1` and `fc2` are the named dense layers and need the top;
    `classes` is the top's probabilities.
    Raises InvalidInput when the file does not fit the architecture or lacks the layer.
    """
    size = KERAS_INPUT_SIZE[architecture]
    build = getattr(application_module(architecture), architecture)

    def bare() -> Any:
        shape = (size, size, 3)
        return build(include_top=False, pooling="avg", weights=None, input_shape=shape)

    misfit = InvalidInput(
        f"the weights in {weights} do not fit keras:{architecture} (layer {layer}): give a "
        f"file saved from keras.applications.{architecture}"
        + ("" if layer == "avg_pool" else " with include_top=True")
    )
    if weights.endswith(".keras"):
        whole = _load_whole(weights)
        expected = [each.shape for each in bare().weights]
        if _shapes(whole, expected)[: len(expected)] != expected or (
            whole.input_shape not in [(None, size, size, 3), (None, None, None, 3)]
        ):
            raise misfit
        if layer == _CLASSES and len(_shapes(whole, expected)) == len(expected):
            raise InvalidInput(f"{weights} holds no classification top; give one saved with it")
        return _cut(whole, architecture, layer)
    if layer == "avg_pool":
        features = bare()
        if _loads(features, weights):
            return features
    whole = build(weights=None)
    if not _loads(whole, weights):
        raise misfit
    return _cut(whole, architecture, layer)


def _shapes(model: Any, expected: list[Any]) -> list[Any]:
    """The shapes of a model's weights, without those of a Normalization put before it."""
    import keras

    found = [each.shape for each in model.weights]
    flat = model._flatten_layers(include_self=False, recursive=True)
    first = next(
        (each for each in flat if each.weights and not isinstance(each, keras.Model)), None
    )
    if isinstance(first, keras.layers.Normalization) and found[: len(expected)] != expected:
        return found[len(first.weights) :]
    return found


def _load_whole(weights: str) -> Any:
    import keras

    try:
        return keras.saving.load_model(weights, compile=False, safe_mode=True)
    except Exception as error:  # whatever the file holds, Keras reports it in its own way
        raise InvalidInput(
            f"cannot read weights from {weights}: {' '.join(str(error).split())[:200]}"
        ) from None


def _loads(model: Any, weights: str) -> bool:
    try:
        with warnings.catch_warnings():
            # Layers that the file lacks would keep random weights, and Keras only warns of it.
            warnings.filterwarnings("error", "Skipping", UserWarning)
            model.load_weights(weights)
    except (ValueError, KeyError, UserWarning):  # shapes or layers that do not match
        return False
    except Exception as error:  # a file that is damaged, as any of Keras's readers tells it
        raise InvalidInput(
            f"cannot read weights from {weights}: {' '.join(str(error).split())[:200]}"
        ) from None
    return True


@dataclass(frozen=True)
class _Call:
    """One layer's turn in a model."""

    layer: Any
    inputs: list[Any]
    output: Any


def _cut(model: Any, architecture: str, layer: str) -> Any:
    """The model up to `layer`, with the layers of models inside it as its own."""
    import keras

    pixels = keras.Input(model.input_shape[1:])
    calls: list[_Call] = []
    _unfold(model, pixels, calls)
    outputs = {call.layer.name: call.output for call in calls}
    if layer == _CLASSES:
        output = _probabilities(calls[-1])
    elif layer == "avg_pool":
        output = _average(calls)
    elif layer in outputs:
        output = outputs[layer]
    else:
        raise InvalidInput(
            f"keras:{architecture} has no layer {layer!r}; it has {', '.join([*outputs][-4:])}"
        )
    return keras.Model(pixels, output)


def _unfold(model: Any, value: Any, calls: list[_Call]) -> Any:
    """Call the layers of `model` on `value` in their order, into models inside it too."""
    import keras

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model) and _is_graph(layer) and len(args) == 1:
            return _unfold(layer, args[0], calls)
        output = layer(*args, **kwargs)
        inputs = keras.tree.flatten((args, kwargs))
        calls.append(_Call(layer, [each for each in inputs if _is_tensor(each)], output))
        return output

    if isinstance(model, keras.Sequential):
        for each in model.layers:
            value = call(each, value)
        return value
    copy = keras.models.clone_model(
        model, input_tensors=value, clone_function=lambda layer: layer, call_function=call
    )
    return copy.output


def _is_tensor(value: Any) -> bool:
    import keras

    return isinstance(value, keras.KerasTensor)


def _is_graph(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"


def _probabilities(top: _Call) -> Any:
    """The top's output; through a softmax where the top leaves that to its loss."""
    import keras

    plain = getattr(top.layer, "activation", None) is keras.activations.linear
    return keras.layers.Softmax(dtype="float32")(top.output) if plain else top.output


def _average(calls: list[_Call]) -> Any:
    """What `include_top=False, pooling="avg"` ends with, in a model built in any other way.

    That is the mean of the last feature map, whatever the top makes of it. A pooling layer counts
    only as the one that takes this map: squeeze-and-excite blocks have others, of the same kind.
    """
    from keras import layers

    pools = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    pooled: set[int] = set()  # what holds nothing but pooled values, some of it 1 × 1
    last = 0
    for number, call in enumerate(calls):
        if isinstance(call.layer, pools) or pooled.issuperset(map(id, call.inputs)):
            pooled.add(id(call.output))
        elif len(call.output.shape) == 4:
            last = number
    features, after = calls[last].output, calls[last + 1 :]
    takers = [call for call in after if call.inputs[0] is features]
    pool = next((call for call in takers if isinstance(call.layer, pools)), None)
    if pool is not None and isinstance(pool.layer, layers.GlobalAveragePooling2D):
        mean = pool.output if len(pool.output.shape) == 2 else layers.Flatten()(pool.output)
    else:
        mean = layers.GlobalAveragePooling2D()(features)
    for call in after:  # ConvNeXt
        norm = isinstance(call.layer, layers.LayerNormalization)
        if norm and pool is not None and call.inputs[0] is pool.output:
            return call.layer(mean)
    return mean
