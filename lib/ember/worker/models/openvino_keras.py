"""Models of keras.applications to OpenVINO, with their preprocessing inside."""

from __future__ import annotations

from typing import Any

from ember.worker.models.keras_models import build_features, preparation
from ember.worker.models.openvino_runtime import save, start_openvino
from ember.worker.models.pixel_plan import to_size

__all__ = ["convert"]


def convert(architecture: str, weights: str, layer: str, folder: str) -> None:
    """Write the model into `folder`: pixels (n, h, w, 3) uint8 to (n, d) float32.

    Needs TensorFlow. Raises InvalidInput as `build_features` does.
    """
    openvino = start_openvino()
    import tensorflow as tf

    features = build_features(architecture, weights, layer)
    size = features.input_shape[1]
    prepare, note = preparation(architecture, features)

    def forward(pixels: Any) -> Any:
        return features(prepare(tf.cast(pixels, tf.float32)), training=False)

    pixels = tf.TensorSpec((None, size, size, 3), tf.uint8)
    # The function itself: by way of a SavedModel on disk it takes twice as long.
    made = openvino.convert_model(tf.function(forward).get_concrete_function(pixels))
    save(made, folder, {"notes": [note] if note else [], "pixels": to_size(size).to_json()})
