"""Make files of a model that are not there yet, in a process of its own.

    python -m ember.worker.models.prepare weights ResNet50 imagenet TARGET.h5
    python -m ember.worker.models.prepare keras ResNet50 WEIGHTS avg_pool FOLDER
    python -m ember.worker.models.prepare transformers FOLDER < REQUEST
    python -m ember.worker.models.prepare int8 FOLDER < REQUEST

The driver runs this, since it imports no framework itself. Weights: `imagenet` fetches the
published ones, `random` draws them with seed 0; the file holds the classification top as well.
Folders get a model in OpenVINO's format. A request is what `openvino_transformers.convert` and
`openvino_int8.quantize` take, pickled: a ModelSpec, rows, and where they may name files.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from ember.errors import EmberError

__all__ = ["DRIFT", "UNSUITED", "main"]

# Why a model is left to torch, in place of the model.
UNSUITED = "unsuited.txt"
# What int8 costs, beside the model.
DRIFT = "drift.json"


def main(what: str, *arguments: str) -> int:
    """Make what the arguments say, whole or not at all; the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    makers: dict[str, Callable[..., Path]] = {
        "weights": _weights,
        "keras": _keras,
        "transformers": _transformers,
        "int8": _int8,
    }
    target = Path(arguments[-1])
    # Under another name first: another run may be looking for the same files.
    partial = tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        made = makers[what](*arguments[:-1], partial)
        made.rename(target)
    except EmberError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError:
        if not target.exists():  # else another run was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return 0


def _weights(architecture: str, weights: str, partial: str) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, architecture)
    model = build(weights=None if weights == "random" else weights)
    _fold_rescaling(keras, model)
    file = Path(partial, "made.weights.h5")
    model.save_weights(file)
    return file


def _fold_rescaling(keras: Any, model: Any) -> None:
    """Move into a Normalization's variance the Rescaling that follows it.

    EfficientNet has that second layer with `weights="imagenet"` only, and a file of weights would
    lose it: (x - mean) / sqrt(variance) * scale = (x - mean) / sqrt(variance / scale²).
    """
    for layer, following in pairwise(model.layers):
        if isinstance(layer, keras.layers.Normalization) and isinstance(
            following, keras.layers.Rescaling
        ):
            scale = keras.ops.convert_to_tensor(following.scale, "float32")
            layer.adapt_variance.assign(layer.adapt_variance / scale**2)


def _keras(architecture: str, weights: str, layer: str, partial: str) -> Path:
    from ember.worker.models.openvino_keras import convert

    folder = _folder(partial)
    convert(architecture, weights, layer, str(folder))
    return folder


def _transformers(partial: str) -> Path:
    from ember.worker.models.openvino_check import Unsuited
    from ember.worker.models.openvino_transformers import convert

    folder = _folder(partial)
    spec, rows, paths = pickle.load(sys.stdin.buffer)
    try:
        convert(spec, str(folder), rows, paths)
    except Unsuited as error:
        # Remembered, so that the next run does not try again.
        shutil.rmtree(folder)
        folder = _folder(partial)
        Path(folder, UNSUITED).write_text(str(error), "utf-8")
    return folder


def _int8(partial: str) -> Path:
    from ember.worker.models.openvino_int8 import quantize

    folder = _folder(partial)
    spec, rows, paths = pickle.load(sys.stdin.buffer)
    drift = quantize(spec, str(folder), rows, paths)
    Path(folder, DRIFT).write_text(json.dumps(drift), "utf-8")
    return folder


def _folder(partial: str) -> Path:
    """A new, empty one."""
    folder = Path(partial, "made")
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
