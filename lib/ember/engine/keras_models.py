"""Models of keras.applications up to a layer or to their classes, from any file Keras wrote."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from ember.engine.spec import CLASSES, KERAS_INPUT_SIZE
from ember.errors import InvalidInput

__all__ = ["application_module", "build_features"]


def application_module(architecture: str) -> Any:
    """The module of keras.applications that holds `architecture` and its preprocess_input."""
    import keras

    function = getattr(keras.applications, architecture)
    # The public modules (keras.applications.resnet50, …) re-export functions of the private one
    # that defines the model; that one always has preprocess_input.
    return sys.modules[function.__module__]


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
        if [each.shape for each in whole.weights][: len(expected)] != expected or (
            whole.input_shape not in {(None, size, size, 3), (None, None, None, 3)}
        ):
            raise misfit
        if layer == CLASSES and len(whole.weights) == len(expected):
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


def _cut(model: Any, architecture: str, layer: str) -> Any:
    """The model up to `layer`."""
    import keras

    names = [each.name for each in model.layers]
    if layer == CLASSES:
        output = _probabilities(model)
    elif layer == "avg_pool":
        output = _average(model)
    elif layer in names:
        output = model.get_layer(layer).output
    else:
        raise InvalidInput(
            f"keras:{architecture} has no layer {layer!r}; it has {', '.join(names[-4:])}"
        )
    return keras.Model(model.input, output)


def _probabilities(model: Any) -> Any:
    """The top's output; through a softmax where the top leaves that to its loss."""
    import keras

    plain = getattr(model.layers[-1], "activation", None) is keras.activations.linear
    return keras.layers.Softmax(dtype="float32")(model.output) if plain else model.output


def _average(model: Any) -> Any:
    """What `include_top=False, pooling="avg"` ends with, in a model built in any other way."""
    from keras import layers

    pools = [
        index
        for index, each in enumerate(model.layers)
        if isinstance(each, layers.GlobalAveragePooling2D)
    ]
    if len(model.output.shape) == 4 or not pools:  # no top, or one without pooling, as VGG has
        maps = [each.output for each in model.layers if len(each.output.shape) == 4]
        return layers.GlobalAveragePooling2D()(maps[-1])
    pool = pools[-1]  # those before it belong to squeeze-and-excite blocks
    following = model.layers[pool + 1 : pool + 2]
    if following and isinstance(following[0], layers.LayerNormalization):  # ConvNeXt
        return following[0].output
    output = model.layers[pool].output
    return output if len(output.shape) == 2 else layers.Flatten()(output)
