"""What a model is: everything a worker needs to load it, and the fingerprint that names it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ember.worker.recipe import TextRecipe
from ember.worker.rows import MAX_BYTES

__all__ = [
    "IMAGE_LAYERS",
    "KERAS_INPUT_SIZE",
    "MODULES",
    "RELATIVE_TOLERANCE",
    "TEXT_LAYERS",
    "Generation",
    "ModelSpec",
    "Sampling",
    "Task",
    "hash_files",
    "weight_files",
]

# What a model is to do: give a vector, the scores of its own classes, or a text that it writes.
Task = Literal["embed", "classify", "generate"]
Modality = Literal["image", "text"]
Family = Literal["keras", "hf"]
Runtime = Literal["tensorflow", "torch", "openvino"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]

IMAGE_LAYERS = ("avg_pool", "fc1", "fc2", "cls", "pooler")
TEXT_LAYERS = ("mean", "cls", "pooler")
# The layer that stands for the modules of a sentence-transformers folder.
MODULES = "modules"

# Not named in fingerprints and manifests where they are None.
_OPTIONAL = ("generation", "text", "calibration")

# Within this, relative to the largest value, vectors are the same whatever the batch they were in.
# Sums are taken in another order in batches of another shape.
RELATIVE_TOLERANCE: dict[Precision, float] = {
    "float32": 1e-4,
    "bfloat16": 5e-2,
    "float16": 1e-2,
    "int8": 5e-2,
}

# Height = width of the input that each model of keras.applications was trained with. Keras knows
# it only once a model is built, which the driver never does; a test holds this against Keras.
KERAS_INPUT_SIZE: dict[str, int] = {
    **dict.fromkeys(("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase"), 224),
    **dict.fromkeys(("ConvNeXtLarge", "ConvNeXtXLarge"), 224),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), 224),
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    **dict.fromkeys(("MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small"), 224),
    "NASNetLarge": 331,
    "NASNetMobile": 224,
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), 224),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), 224),
    **dict.fromkeys(("VGG16", "VGG19"), 224),
    "Xception": 299,
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn at random.

    Scores are divided by `temperature`. Then only the `top_k` best tokens count (None: all), and
    of these the best ones that together have `top_p` of the probability (None: all). Random numbers
    come from `seed` and the row's key.
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int


@dataclass(frozen=True)
class Generation:
    """How a text is written: its length in tokens, what ends it, and how each token is chosen.

    Before `min_new_tokens` the model's own end token is not allowed; a `stop` string ends a text
    wherever it occurs. `sampling: None` takes the best token each time.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    sampling: Sampling | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A model as the workers load it; plain data, so it travels to them as it is.

    `path` is a weights file (Keras) or a folder (transformers, OpenVINO) on the machine that
    loads it. `batch_size` is in rows; None lets the worker choose. `max_pixels` bounds the area
    of a decoded image and `max_bytes` a row's content; larger ones are error rows. `layer` is
    where embeddings are taken from, and None for the other tasks. `generation` is how texts are
    written, for the task "generate" alone. `runtime_reason` says why this runtime was chosen.
    `calibration` is a hash of the rows that int8 was calibrated on.
    """

    name: str
    family: Family
    modality: Modality
    path: str
    layer: str | None
    runtime: Runtime
    precision: Precision
    batch_size: int | None
    normalize: bool
    max_pixels: int
    weights_sha256: str
    preprocessing: str
    generation: Generation | None = None
    max_bytes: int = MAX_BYTES
    text: TextRecipe | None = None
    task: Task = "embed"
    runtime_reason: str = ""
    calibration: str | None = None

    @property
    def output(self) -> str:
        """What the model gives, in a word: the layer of embeddings, `classes`, or `text`.

        The word stands under `layer` in fingerprints and manifests, so that outputs of earlier
        versions are still known.
        """
        if self.task == "embed":
            return self.layer or ""
        return "classes" if self.task == "classify" else "text"

    @property
    def transformer_path(self) -> str:
        """The folder of the transformer, inside that of the model."""
        inner = self.text.transformer if self.text else ""
        return f"{self.path}/{inner}" if inner else self.path

    @property
    def architecture(self) -> str:
        """The model's name without its family: `ResNet50` of `keras:ResNet50`."""
        return self.name.partition(":")[2]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides the vectors; where the weights lie does not."""
        decisive = asdict(self)
        for incidental in ("path", "batch_size", "name", "task", "runtime_reason"):
            del decisive[incidental]
        decisive["layer"] = self.output
        for absent in [name for name in _OPTIONAL if decisive[name] is None]:
            del decisive[absent]
        if self.family == "keras":
            decisive["architecture"] = self.architecture
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def at(self, path: str) -> ModelSpec:
        """The same model with its files at another place."""
        return replace(self, path=path)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        described = asdict(self)
        del described["path"], described["task"]
        described["layer"] = self.output
        described["fingerprint"] = self.fingerprint
        for absent in [name for name in _OPTIONAL if described[name] is None]:
            del described[absent]
        if self.generation is None:  # what a model writes has no tolerance
            described["relative_tolerance"] = RELATIVE_TOLERANCE[self.precision]
        return described


def weight_files(path: Path) -> list[Path]:
    """The files that decide what a model computes: the file itself, or a folder's own files.

    Hidden files and files of prose are left out, so that a README does not change a fingerprint,
    and so are a run's manifest and tables, which `finetune` writes beside the model.
    """
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(
        file
        for file in files
        if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and file.suffix.lower() not in {".md", ".png", ".jpg", ".parquet"}
    )


def hash_files(path: Path) -> str:
    """SHA-256, in hex, over names and contents of `weight_files(path)`."""
    digest = hashlib.sha256()
    for file in weight_files(path):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
