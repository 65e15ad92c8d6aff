"""The encoder of a converted model, of images or of texts."""

from __future__ import annotations

from ember.worker.device import Device
from ember.worker.encoder import Encoder
from ember.worker.models.openvino_images import OpenvinoImageEncoder
from ember.worker.models.openvino_texts import OpenvinoTextEncoder
from ember.worker.row_paths import PathRules
from ember.worker.spec import ModelSpec

__all__ = ["openvino_encoder"]


def openvino_encoder(
    spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
) -> Encoder:
    """Load it. Raises InvalidInput where the device is a GPU, and for damaged files."""
    if spec.modality == "text":
        return OpenvinoTextEncoder(spec, device, threads)
    return OpenvinoImageEncoder(spec, device, threads, paths=paths)
