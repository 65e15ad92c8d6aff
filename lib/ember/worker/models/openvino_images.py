"""Image models in OpenVINO: pixels in, vectors or probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ember.worker.device import Device
from ember.worker.models import openvino_runtime
from ember.worker.models.model_folder import loading
from ember.worker.models.openvino_runtime import OpenvinoModel, read_settings
from ember.worker.models.pictures import picture_of
from ember.worker.models.pixel_plan import PixelPlan, Pixels
from ember.worker.models.pixels import PixelEncoder
from ember.worker.row_paths import PathRules
from ember.worker.spec import ModelSpec

__all__ = ["OpenvinoImageEncoder"]

# Rows of a request. Their activations stay in the cache, and nothing is gained by more.
_ROWS = 8


class OpenvinoImageEncoder(PixelEncoder):
    """Image rows to vectors with a converted model. See `encoder.Encoder`."""

    device = "cpu"

    def __init__(
        self, spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
    ) -> None:
        with loading(spec.name, spec.path):
            self._model = OpenvinoModel(spec, device, threads)
            settings = read_settings(spec.path)
        self.notes = tuple(settings["notes"])
        plan = PixelPlan.from_json(settings["pixels"])
        super().__init__(spec, plan, _ROWS * threads, paths=paths)

    def _picture(self, raw: bytes | None) -> Image.Image:
        if self.spec.family == "keras":
            return super()._picture(raw)
        return picture_of(raw, self.paths, self.spec)

    def run(self, items: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Vectors (n, d) float32 of pixels n × (h, w, 3) uint8."""
        return self._model(self.arrays(items))

    def arrays(self, items: Sequence[Pixels]) -> list[npt.NDArray[np.uint8]]:
        """The model's inputs for a batch."""
        return [np.stack(items)]

    def is_out_of_memory(self, error: Exception) -> bool:
        return openvino_runtime.is_out_of_memory(error)
