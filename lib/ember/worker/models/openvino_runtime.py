"""Models converted to OpenVINO, for CPUs: what loads and runs them, and what stands beside them.

The driver converts a model once (`ember.worker.models.prepare`), so that workers import neither
torch nor TensorFlow and start in half a second. A converted folder holds `model.xml` and
`model.bin`, and `ember.json` with what a worker has to know besides; for texts also the tokenizer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.spec import ModelSpec

__all__ = [
    "OpenvinoModel",
    "is_out_of_memory",
    "read_settings",
    "save",
    "save_model",
    "start_openvino",
]

Matrix = npt.NDArray[np.float32]
Arrays = Sequence[npt.NDArray[Any]]
_SETTINGS = "ember.json"
# At 8 bits, of what is not quantized.
_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}


class OpenvinoModel:
    """A converted model on `threads` cores, each with a request of its own.

    A request on one core that keeps its data in the cache does more than one on all of them.

    inputs: names of what it takes, in order.
    """

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        openvino = start_openvino()
        if device == "cuda":
            other = "tensorflow" if spec.family == "keras" else "torch"
            raise InvalidInput(
                "model.runtime openvino runs on the CPU, and this task was given a GPU; use "
                f"{other} or auto"
            )
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _PRECISION[spec.precision],
            # Each worker would pin itself to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = openvino.Core().compile_model(f"{spec.path}/model.xml", "CPU", settings)
        self.inputs = tuple(each.get_any_name() for each in self._model.inputs)
        self.threads = threads
        self._queue = openvino.AsyncInferQueue(self._model, threads) if threads > 1 else None

    def __call__(self, arrays: Arrays) -> Matrix:
        """The output (n, d) float32 for inputs (n, …), the rows shared out among the threads."""
        rows = len(arrays[0])
        if self._queue is None or rows == 1:
            # Copied: OpenVINO writes the next batch into the memory of the last one.
            return np.array(self._model(list(arrays))[0], np.float32)
        parts = min(self.threads, rows)
        bounds = [rows * part // parts for part in range(parts + 1)]
        made: list[Any] = [None] * parts

        def keep(request: Any, part: int) -> None:
            made[part] = np.array(request.get_output_tensor(0).data, np.float32)

        self._queue.set_callback(keep)
        for part in range(parts):
            piece = [each[bounds[part] : bounds[part + 1]] for each in arrays]
            self._queue.start_async(piece, part)
        self._queue.wait_all()
        return np.concatenate(made)


def is_out_of_memory(error: Exception) -> bool:
    """Is this what OpenVINO says where memory does not suffice?"""
    return isinstance(error, MemoryError) or "bad_alloc" in str(error)


def start_openvino() -> Any:
    """The module, without what would tell its makers that a model is converted here."""
    # None makes an import of it fail, for which OpenVINO and NNCF are prepared.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def save_model(model: Any, folder: str) -> None:
    """Write a model as OpenVINO has it."""
    start_openvino().save_model(model, f"{folder}/model.xml", compress_to_fp16=False)


def save(model: Any, folder: str, settings: Mapping[str, Any]) -> None:
    """Write a converted model, and what a worker has to know besides."""
    save_model(model, folder)
    Path(folder, _SETTINGS).write_text(json.dumps(settings), "utf-8")


def read_settings(folder: str) -> dict[str, Any]:
    """What `save` wrote beside a model."""
    settings: dict[str, Any] = json.loads(Path(folder, _SETTINGS).read_text("utf-8"))
    return settings
