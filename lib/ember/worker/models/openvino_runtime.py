"""Models of keras.applications in OpenVINO, for CPUs: no TensorFlow on the executors.

The driver converts a model once (ember.worker.models.prepare) to OpenVINO's format, with the
preprocessing inside, so that a worker starts in about a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.models.model_folder import loading
from ember.worker.models.pixels import PixelEncoder, Pixels
from ember.worker.row_paths import PathRules
from ember.worker.spec import ModelSpec

__all__ = ["OpenvinoImageEncoder", "convert"]

# What is out of the ordinary in the model, a line each; no file where there is nothing.
_NOTES = "notes.txt"
_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenvinoImageEncoder(PixelEncoder):
    """Image rows to vectors with a converted model. See `batching.Encoder`."""

    device = "cpu"

    def __init__(
        self, spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
    ) -> None:
        import openvino

        if device == "cuda":
            raise InvalidInput(
                "model.runtime openvino runs on the CPU, and this task was given a GPU; use "
                "tensorflow or auto"
            )
        # Small batches: their activations stay in the cache, and nothing is gained by larger ones.
        super().__init__(spec, 8, paths=paths)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _PRECISION[spec.precision],
            # Each worker would pin itself to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        with loading(spec.name, spec.path):
            notes = Path(spec.path, _NOTES)
            self.notes = tuple(notes.read_text("utf-8").splitlines()) if notes.is_file() else ()
            self._model = openvino.Core().compile_model(f"{spec.path}/model.xml", "CPU", settings)

    def run(self, items: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Vectors (n, d) float32 of pixels n × (h, w, 3) uint8."""
        # Copied: OpenVINO writes the next batch into the memory of the last one.
        return np.array(self._model(np.stack(items).astype(np.float32))[0], np.float32)

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError) or "bad_alloc" in str(error)


def convert(architecture: str, weights: str, layer: str, folder: str) -> None:
    """Write `model.xml` and `model.bin` into `folder`: pixels (n, h, w, 3) float32 to (n, d).

    Needs TensorFlow, and half a minute. Raises InvalidInput as `build_features` does.
    """
    import tempfile

    import keras
    import openvino

    from ember.worker.models.keras_models import build_features, preparation

    features = build_features(architecture, weights, layer)
    pixels = keras.Input(features.input_shape[1:])
    prepare, note = preparation(architecture, features)
    if note:
        Path(folder, _NOTES).write_text(note, "utf-8")
    model = keras.Model(pixels, features(prepare(pixels)))
    with tempfile.TemporaryDirectory() as exported:
        model.export(exported, verbose=False)
        openvino.save_model(
            openvino.convert_model(exported), f"{folder}/model.xml", compress_to_fp16=False
        )
