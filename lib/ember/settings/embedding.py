"""The configuration of `embed`, and the sections that other jobs share with it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.engine.rows import MAX_BYTES

__all__ = [
    "ChunkConfig",
    "EmbedConfig",
    "EmbeddingsConfig",
    "InputConfig",
    "LimitsConfig",
    "LocalFile",
    "ModelConfig",
    "ModelName",
    "Name",
    "NewOutputConfig",
    "OutputConfig",
    "Paths",
    "RejectsConfig",
    "Roots",
    "Source",
    "TableConfig",
    "Target",
    "Use",
]


class Use(Enum):
    """Marks the keys that name what a job reads or writes; `pipeline` goes by it."""

    READ = "read"
    READ_LOCAL = "read on the driver's machine"
    MODEL = "a model, its files on the driver's machine or elsewhere"
    WRITE = "write"


Name = Annotated[str, Field(min_length=1)]
Paths = Annotated[Name | Annotated[list[str], Field(min_length=1)], Use.READ]
Source = Annotated[Name, Use.READ]
Roots = Name | Annotated[list[Name], Field(min_length=1)]
LocalFile = Annotated[Name, Use.READ_LOCAL]
ModelName = Annotated[Name, Use.MODEL]
Target = Annotated[Name, Use.WRITE]


class TableConfig(Config):
    """A table that is read. `where`: a condition in SQL; only rows for which it is true are."""

    path: Paths
    where: Name | None = None


class InputConfig(TableConfig):
    """A corpus. `unique_ids: true` has the run refuse an input with a repeated id.

    `content_is: paths`: the content names image files, which are read where they lie under `root`
    (a folder or a URI, or several); null: the folder that holds the table.
    """

    id: Name
    content: Name = "content"
    modality: Literal["image", "text"]
    content_is: Literal["bytes", "paths"] | None = None
    root: Roots | None = None
    unique_ids: bool = False


class ModelConfig(Config):
    """A model and what is taken from it.

    layer: `auto`, and null, is what the model's folder says: all modules of a sentence-transformers
        folder, with its length, lower-casing and default prompt, for texts; the projected features
        of dual encoders such as CLIP, in which images and texts can be compared; else avg_pool for
        images and mean for texts. Any other layer is of the transformer alone, also in a
        sentence-transformers folder: without its modules, its length and its default prompt.
    role: texts are queries or documents; takes the folder's prompt of that name (none where it has
        none), and the modules for that role where they differ.
    prompt: the name of one of the folder's prompts, or a text; stands before every text in place of
        what `role` or the folder chooses. An empty text is no prompt.
    dimension: so many leading numbers of each vector of a text are kept (Matryoshka); they are
        brought to unit length again where the model's vectors have it.
    """

    name: ModelName
    weights: ModelName = "imagenet"
    revision: Name | None = None
    layer: Literal["auto", "avg_pool", "fc1", "fc2", "mean", "cls", "pooler"] | None = "auto"
    role: Literal["query", "document"] | None = None
    prompt: str | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None
    runtime: Literal["auto", "tensorflow", "torch", "openvino"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = "auto"
    normalize: bool = False

    @property
    def chosen_layer(self) -> str | None:
        """The layer, where one was chosen."""
        return None if self.layer == "auto" else self.layer

    @property
    def about_embeddings(self) -> list[str]:
        """The keys in use that only embeddings have."""
        keys = ("role", "prompt", "dimension")
        used = [key for key in keys if getattr(self, key) is not None]
        return ["layer"] * bool(self.chosen_layer) + ["normalize"] * self.normalize + used


class ChunkConfig(Config):
    """Long texts are cut into windows of tokens, each of which has a vector.

    tokens: of a window at most, without special tokens and the prompt; fewer where the model takes
        fewer. overlap: of them, those that the window before has as well. pool: `mean` for one
        vector a text, the mean of its windows', each of which counts the same.
    """

    tokens: Annotated[int, Field(ge=1)] = 256
    overlap: Annotated[int, Field(ge=0)] = 32
    pool: Literal["mean"] | None = None


class OutputConfig(Config):
    """Where the table goes, and what happens when one is there."""

    path: Target
    mode: Literal["fail", "overwrite", "resume"] = "fail"


class NewOutputConfig(Config):
    """Where a table goes that is made in one piece."""

    path: Target
    mode: Literal["fail", "overwrite"] = "fail"


class LimitsConfig(Config):
    """`rows_per_task` bounds the work that a killed task loses; auto: 1,000 images, 2,000 texts.

    `max_bytes` bounds a row's text, image, or file; `max_pixels` a decoded image, and with it the
    time and the memory that decoding it takes.
    """

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    max_bytes: Annotated[int, Field(ge=1)] = MAX_BYTES
    rows_per_task: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class RejectsConfig(Config):
    """How many rows may have vectors that cannot be used."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class EmbedConfig(Config):
    """Configuration of the `embed` job."""

    input: InputConfig
    model: ModelConfig
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()
    chunk: ChunkConfig | None = None


class EmbeddingsConfig(TableConfig):
    """A table of embeddings, as `embed` writes it."""

    id: Name
    embedding: Name = "embedding"
