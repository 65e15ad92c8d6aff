"""Models of keras.applications in TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.worker.device import Device, require_cuda
from ember.worker.models.keras_models import build_features, preparation
from ember.worker.models.pixel_plan import Pixels, to_size
from ember.worker.models.pixels import PixelEncoder
from ember.worker.row_paths import PathRules
from ember.worker.spec import KERAS_INPUT_SIZE, ModelSpec

__all__ = ["KerasImageEncoder", "start_tensorflow"]

_POLICY = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class KerasImageEncoder(PixelEncoder):
    """Image rows to vectors with a model of keras.applications. See `encoder.Encoder`."""

    def __init__(
        self, spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
    ) -> None:
        tf, gpus = start_tensorflow(device, threads)
        import keras

        # float32 is float32: by default a GPU takes 10 of its 23 bits (TF32).
        tf.config.experimental.enable_tensor_float_32_execution(False)
        keras.config.set_dtype_policy(_POLICY[spec.precision])
        size = KERAS_INPUT_SIZE[spec.architecture]
        super().__init__(spec, to_size(size), 128 if device == "cuda" else 16, paths=paths)
        self.device = gpus[0].name if device == "cuda" else "cpu"
        # TensorFlow queues what it is to do on a GPU, and waits where the numbers are asked for.
        self.in_flight = 2 if device == "cuda" else 1
        self._exhausted = tf.errors.ResourceExhaustedError
        model = build_features(spec.architecture, spec.path, spec.output)
        self._preprocess, note = preparation(spec.architecture, model)
        self.notes = tuple(filter(None, (note,)))
        signature = [tf.TensorSpec((None, size, size, 3), tf.float32)]
        self._forward = tf.function(
            lambda x: tf.cast(model(x, training=False), tf.float32), input_signature=signature
        )

    def run(self, items: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Vectors (n, d) float32 of pixels n × (h, w, 3) uint8."""
        return self.finish(self.start(items))

    def start(self, items: Sequence[Pixels]) -> Any:
        """Begin with a batch; see `encoder.Overlapping`."""
        return self._forward(self._preprocess(np.stack(items).astype(np.float32)))

    def finish(self, started: Any) -> npt.NDArray[np.float32]:
        """What `run` returns."""
        vectors: npt.NDArray[np.float32] = started.numpy()
        return vectors

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, self._exhausted | MemoryError)


def start_tensorflow(device: Device, threads: int) -> tuple[Any, list[Any]]:
    """The module, on so many threads, and its GPUs, whose memory it takes as needed.

    Where TensorFlow is running already in this process (a notebook, a test) it keeps its settings.
    Raises DeviceMissing where a GPU is asked for and TensorFlow sees none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet(device == "cpu"):
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if device == "cuda":
        require_cuda(bool(gpus), "tensorflow")
    with suppress(RuntimeError):
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf, gpus


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Drop what native code writes to stderr: on a CPU TensorFlow complains of missing GPUs."""
    if not quiet:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
