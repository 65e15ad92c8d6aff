"""Pictures through a transformers folder (or, for the case `image-keras`, keras.applications).

An encoder has two halves, so that a loop can overlap them: `prepare` turns encoded images into the
model's input on one core, and a call turns that into vectors (n, d) or scores of classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from peer_task import Task, ahead, in_batches, openvino_queue, picture, read, write

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

SIZE = 224
BATCH = 32
# OpenVINO's throughput comes from requests side by side, so that small batches are best.
_REQUEST_ROWS = 4


def image_network(folder: str, *, classify: bool, scales: bool) -> Any:
    """A torch module from pixels (n, 3, h, w) to the mean of the last map, or to the classes.

    scales: it takes uint8 and does the processor's scaling of the colors itself.
    """
    import torch
    from transformers import AutoModel, AutoModelForImageClassification

    processor = image_processor(folder)
    kind = AutoModelForImageClassification if classify else AutoModel

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = kind.from_pretrained(folder, dtype=torch.float32).eval()
            for name, values in (("mean", processor.image_mean), ("std", processor.image_std)):
                self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

        def forward(self, pixels: Any) -> Any:
            if scales:
                pixels = (pixels.float() / 255 - self.mean) / self.std
            output = self.model(pixels)
            return output.logits if classify else output.last_hidden_state.mean((2, 3))

    return Network().eval()


def image_processor(folder: str) -> Any:
    """The folder's processor on Pillow: that on torchvision resizes to other pixels."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, use_fast=False)


class TorchImages:
    """The documented way: AutoImageProcessor, AutoModel, inference_mode, channels last."""

    def __init__(self, task: Task, threads: int = 0) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.torch = torch
        self.processor = image_processor(task.model)
        network = image_network(task.model, classify=bool(task.labels), scales=False)
        self.network = network.to(memory_format=torch.channels_last)

    def prepare(self, pictures: Sequence[Any]) -> np.ndarray:
        """Encoded images, or arrays (h, w, 3) that are decoded already: (n, 3, 224, 224)."""
        images = [picture(each) if isinstance(each, bytes) else each for each in pictures]
        return self.processor(images, return_tensors="np")["pixel_values"]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        inputs = self.torch.from_numpy(pixels).to(memory_format=self.torch.channels_last)
        with self.torch.inference_mode():
            return self.network(inputs).numpy()


class KerasImages:
    """keras.applications as its documentation has it: load_img's pixels, preprocess_input."""

    def __init__(self, task: Task, threads: int = 0) -> None:
        import keras

        if threads:
            import tensorflow

            tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        build = getattr(keras.applications, task.about["keras"])
        self.preprocess = sys.modules[build.__module__].preprocess_input
        shape = (SIZE, SIZE, 3)
        self.model = build(include_top=False, pooling="avg", weights=None, input_shape=shape)
        self.model.load_weights(task.model)

    def prepare(self, pictures: Sequence[Any]) -> np.ndarray:
        return self.preprocess(np.stack([self.pixels(each) for each in pictures]))

    @staticmethod
    def pixels(each: Any) -> np.ndarray:
        """(224, 224, 3) float32 in 0..255, resized by the nearest pixel as load_img does it."""
        from PIL import Image

        image = picture(each) if isinstance(each, bytes) else Image.fromarray(each)
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.NEAREST), np.float32)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict_on_batch(pixels))


def images(task: Task, threads: int = 0) -> TorchImages | KerasImages:
    """The encoder of a task; threads: of the library; 0: as many as it takes by itself."""
    return (KerasImages if "keras" in task.about else TorchImages)(task, threads)


def library_loop(task: Task) -> None:
    """torch or TensorFlow alone, in one process on all cores; a thread decodes ahead."""
    encode = images(task)
    ids, contents = read(task)
    batches = ahead(encode.prepare, in_batches(contents, BATCH))
    write(task, ids, np.concatenate([encode(batch) for batch in batches]))


def openvino_loop(task: Task) -> None:
    """The converted model in throughput mode, its queue fed by a thread that decodes."""
    queue, outputs = openvino_queue(f"{task.folder}/openvino.xml")
    prepare = openvino_input(task)
    ids, contents = read(task)
    for number, batch in enumerate(ahead(prepare, in_batches(contents, _REQUEST_ROWS), 8)):
        queue.start_async({0: batch}, number)
    queue.wait_all()
    write(task, ids, np.concatenate([outputs[number] for number in range(len(outputs))]))


def openvino_input(task: Task) -> Any:
    """What the converted model takes: for a transformers folder bytes, which it scales itself."""
    if "keras" in task.about:
        # ResNet50's preprocess_input, without TensorFlow: BGR less the means of ImageNet.
        means = np.array([103.939, 116.779, 123.68], np.float32)
        return lambda raws: np.stack([KerasImages.pixels(raw)[..., ::-1] - means for raw in raws])
    processor = image_processor(task.model)
    cut = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}

    def prepare(raws: Sequence[bytes]) -> np.ndarray:
        return processor([picture(raw) for raw in raws], **cut)["pixel_values"].astype(np.uint8)

    return prepare
