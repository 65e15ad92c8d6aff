"""Fine-tuning models of keras.applications in TensorFlow, in one process."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.worker.device import Device
from ember.worker.finetune.learner import Batch, Stage, Tuning
from ember.worker.images.decoding import decode
from ember.worker.models.keras_models import build_features, preparation
from ember.worker.models.keras_runtime import start_tensorflow
from ember.worker.models.pixel_plan import to_size
from ember.worker.spec import KERAS_INPUT_SIZE, ModelSpec

__all__ = ["KerasLearner"]

Float32 = npt.NDArray[np.float32]


class KerasLearner:
    """Features of a model of keras.applications, and a new softmax layer. See `learner.Learner`.

    A stage of the backbone is what works at one resolution: the layers whose output has the same
    height and width.
    """

    def __init__(self, spec: ModelSpec, tuning: Tuning, device: Device, threads: int) -> None:
        self._tf, _ = start_tensorflow(device, threads)
        import keras

        self._keras = keras
        self.tuning = tuning
        self.spec = spec
        self.size = KERAS_INPUT_SIZE[spec.architecture]
        keras.utils.set_random_seed(tuning.seed)
        self.features = build_features(spec.architecture, spec.path, "avg_pool")
        self._preprocess, _ = preparation(spec.architecture, self.features)
        self.head = keras.layers.Dense(len(tuning.labels), "softmax", name="labels")
        self.model = keras.Model(self.features.input, self.head(self.features.output))
        self._optimizer: Any = None
        self._step: Any = None

    def begin(self, stage: Stage) -> None:
        keras, tf = self._keras, self._tf
        norms = keras.layers.BatchNormalization
        stages = self._last_stages() if stage == "full" else set()
        for layer in self.features.layers:
            frozen = isinstance(layer, norms) and self.tuning.batch_norm == "frozen"
            # Keras runs batch normalization that is not trainable with the statistics it has.
            layer.trainable = layer.name in stages and not frozen
        self._optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01, clipnorm=1.0)
        self._optimizer.build(self.model.trainable_variables)
        self._step = tf.function(self._train_step, reduce_retracing=True)

    def _last_stages(self) -> set[str]:
        layers = self.features.layers
        if self.tuning.unfreeze is None:
            return {layer.name for layer in layers}
        heights = [_height(layer) for layer in layers]
        known = sorted({height for height in heights if height > 1})[: self.tuning.unfreeze]
        first = next(
            number for number, height in enumerate(heights) if 1 < height <= max(known, default=1)
        )
        return {layer.name for layer in layers[first:]}

    def seed(self, seed: int) -> None:
        self._keras.utils.set_random_seed(seed)

    def prepare(self, content: bytes, rng: np.random.Generator | None) -> npt.NDArray[np.uint8]:
        """Pixels (h, w, 3) uint8."""
        image = decode(content, self.spec.max_pixels)
        if rng is not None and self.tuning.augmentation is not None:
            image = self.tuning.augmentation.apply(image, (self.size, self.size), rng)
        return to_size(self.size)(image)

    def encode(self, items: Sequence[Any]) -> Float32 | None:
        return np.asarray(self.features(self._inputs(items), training=False), np.float32)

    def _inputs(self, items: Sequence[Any]) -> Any:
        return self._preprocess(np.stack(items).astype(np.float32))

    def train(self, batch: Batch, rate: float, rows: int) -> tuple[float, int]:
        self._optimizer.learning_rate.assign(rate)
        items = np.stack(batch.items) if batch.encoded else self._inputs(batch.items)
        loss, right = self._step(items, batch.targets, np.float32(rows), encoded=batch.encoded)
        return float(loss), int(right)

    def _train_step(self, items: Any, targets: Any, rows: Any, *, encoded: bool) -> Any:
        tf = self._tf
        model = self.head if encoded else self.model
        with tf.GradientTape() as tape:
            scores = model(items, training=True)
            loss = self._loss(scores, targets)
            mean = loss / rows
        variables = self.model.trainable_variables
        gradients = tape.gradient(mean, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, self._right(scores, targets)

    def score(self, batch: Batch) -> tuple[float, int]:
        if batch.encoded:
            scores = self.head(np.stack(batch.items))
        else:
            scores = self.model(self._inputs(batch.items), training=False)
        return float(self._loss(scores, batch.targets)), int(self._right(scores, batch.targets))

    def _loss(self, scores: Any, targets: Any) -> Any:
        losses = self._keras.losses.sparse_categorical_crossentropy(targets, scores)
        return self._tf.reduce_sum(losses)

    def _right(self, scores: Any, targets: Any) -> Any:
        tf = self._tf
        best = tf.argmax(scores, axis=-1, output_type=tf.int64)
        return tf.reduce_sum(tf.cast(best == targets, tf.int32))

    def end_epoch(self) -> None:
        """There is one process."""

    def state(self) -> bytes:
        stream = io.BytesIO()
        arrays: dict[str, Any] = {
            f"w{n}": np.asarray(each) for n, each in enumerate(self.model.weights)
        }
        arrays |= {f"o{n}": np.asarray(v) for n, v in enumerate(self._optimizer.variables)}
        np.savez(stream, **arrays)
        return stream.getvalue()

    def restore(self, state: bytes, *, optimizer: bool) -> None:
        kept = np.load(io.BytesIO(state))
        for number, weight in enumerate(self.model.weights):
            weight.assign(kept[f"w{number}"])
        if optimizer:
            for number, variable in enumerate(self._optimizer.variables):
                variable.assign(kept[f"o{number}"])

    def save(self, folder: str) -> None:
        """Write `model.keras`, and the names of its classes beside it."""
        self.model.trainable = True
        self.model.save(Path(folder, "model.keras"))
        names = json.dumps(list(self.tuning.labels), ensure_ascii=False)
        Path(folder, "model.labels.json").write_text(names, "utf-8")


def _height(layer: Any) -> int:
    """The height of a layer's output; 1 where it is not a feature map."""
    shape: Any = getattr(layer.output, "shape", ())
    return int(shape[1]) if len(shape) == 4 else 1
