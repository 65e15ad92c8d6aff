"""The configuration of `embed`, and the sections that other jobs share with it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.file_size import FileSize, in_bytes
from ember.settings.names import (
    LocalFile,
    ModelName,
    Name,
    Paths,
    Roots,
    Share,
    Source,
    TableName,
    TableTarget,
    Target,
    Use,
)
from ember.worker.rows import MAX_BYTES
from ember.worker.spec import Precision

__all__ = [
    "MAX_FAILED_FRACTION",
    "ChunkConfig",
    "CorpusConfig",
    "EmbedConfig",
    "EmbeddingsConfig",
    "InputConfig",
    "Layer",
    "LimitsConfig",
    "LocalFile",
    "ModelConfig",
    "ModelName",
    "Name",
    "NewOutputConfig",
    "NewTableOutputConfig",
    "OutputConfig",
    "Paths",
    "Precision",
    "RejectsConfig",
    "Role",
    "Roots",
    "RowsOutputConfig",
    "Runtime",
    "Share",
    "Source",
    "SyncMode",
    "TableConfig",
    "TableName",
    "TableOutputConfig",
    "Target",
    "Use",
    "VectorLimitsConfig",
]


# What of a table may fail, by default, before a run ends with exit code 3.
MAX_FAILED_FRACTION = 0.01

Layer = Literal["auto", "avg_pool", "fc1", "fc2", "mean", "cls", "pooler"] | None
Role = Literal["query", "document"] | None
Runtime = Literal["auto", "tensorflow", "torch", "openvino"]


class TableConfig(Config):
    """A table that is read, from files or by its name."""

    either: ClassVar[tuple[str, ...]] = ("path", "table")

    path: Paths = Field(
        default="",
        description="Parquet to read: a folder, a file, a glob, or a list of these, by any URI; or "
        "give table in its place.",
    )
    table: TableName | None = Field(
        default=None,
        description="In place of path, a table or view of Spark's catalogs, as db.name or "
        "catalog.db.name.",
    )
    where: Name | None = Field(
        default=None, description="Condition in SQL; only rows for which it is true are read."
    )

    @property
    def shown(self) -> str:
        """The table as an error names it."""
        if not self.path:
            return f"table {self.table}"
        return self.path if isinstance(self.path, str) else ", ".join(self.path)


class CorpusConfig(TableConfig):
    """A table of images or texts."""

    id: Name = Field(
        description="Column that names each row; its name and its type, any atomic one, are kept."
    )
    content: Name = Field(
        default="content",
        description="Column of the content: encoded images, paths of image files, or texts.",
    )
    modality: Literal["image", "text"] = Field(description="What the content is.")
    content_is: Literal["bytes", "paths"] | None = Field(
        default=None,
        description="What an image column holds: encoded images (bytes), or names of files or URIs "
        "(paths); null: bytes, of a binary column.",
    )
    root: Roots | None = Field(
        default=None,
        description="For content_is: paths, the folders or URIs under which files may be read; "
        "null: the folder that holds the table at path.",
    )


class InputConfig(CorpusConfig):
    """A corpus that a job reads row by row."""

    unique_ids: bool = Field(
        default=False, description="Whether to refuse an input in which an id occurs twice."
    )


class ModelConfig(Config):
    """A model and what is taken from it.

    Attributes:
        layer: `auto`, and null, is what the model's folder says: all modules of a
            sentence-transformers folder, with its length, lower-casing and default prompt, for
            texts; the projected features of dual encoders such as CLIP, in which images and texts
            can be compared; else avg_pool for images and mean for texts. Any other layer is of the
            transformer alone, also in a sentence-transformers folder: without its modules, its
            length and its default prompt.
        role: takes the folder's prompt of that name (none where it has none), and the modules for
            that role where they differ.
        prompt: stands before every text in place of what `role` or the folder chooses. An empty
            text is no prompt.
        dimension: what is kept is brought to unit length again where the model's vectors have it.
    """

    name: ModelName = Field(
        description="Model of keras.applications as keras:NAME, of the Hugging Face hub or a "
        "folder as hf:ID."
    )
    weights: ModelName = Field(
        default="imagenet",
        description="For keras: models, imagenet, random, or a file that Keras saved.",
    )
    revision: Name | None = Field(
        default=None,
        description="For hf: models, the branch, tag or commit of the hub's repository; pin it.",
    )
    layer: Layer = Field(
        default="auto",
        description="Layer to take vectors from; auto and null: what the model's folder says, else "
        "avg_pool for images and mean for texts.",
    )
    role: Role = Field(
        default=None,
        description="Whether texts are queries or documents, where the model tells them apart; "
        "chooses the folder's prompt for that role.",
    )
    prompt: str | None = Field(
        default=None,
        description="Name of one of the folder's prompts, or a text to put before every text; an "
        "empty text is no prompt.",
    )
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Leading numbers to keep of each vector of a text (Matryoshka); null: all.",
    )
    runtime: Runtime = Field(
        default="auto",
        description="Library that runs the model; auto: openvino on CPUs where it is installed and "
        "fits, else the library of the model.",
    )
    precision: Precision = Field(
        default="float32",
        description="Number format in which the model computes; int8: calibrated on rows of the "
        "corpus, on CPUs.",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        default="auto",
        description="Rows of a batch, on average where lengths differ; halved by itself when "
        "memory runs out.",
    )
    normalize: bool = Field(default=False, description="Whether to scale each vector to length 1.")

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
    """Long texts are cut into windows of tokens, each of which has a vector."""

    tokens: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="Tokens of a window at most, without special tokens and the prompt; fewer "
        "where the model takes fewer.",
    )
    overlap: Annotated[int, Field(ge=0)] = Field(
        default=32, description="Tokens that a window shares with the one before it."
    )
    pool: Literal["mean"] | None = Field(
        default=None,
        description="How a text's windows become one vector (mean); null: a row for each window.",
    )


SyncMode = Annotated[
    Literal["fail", "overwrite", "resume", "sync"],
    Field(
        description="What to do when the output exists: refuse, replace it, do the rest, or do "
        "what changed."
    ),
]
"""Of outputs that can also follow an input that changes."""


class OutputConfig(Config):
    """Where the table goes, and what happens when one is there."""

    path: Target = Field(description="Folder to write.")
    mode: Literal["fail", "overwrite", "resume"] = Field(
        default="fail",
        description="What to do when the output exists: refuse, replace what this job wrote, or "
        "keep what is done and do the rest.",
    )


class NewOutputConfig(Config):
    """Where a table goes that is made in one piece."""

    path: Target = Field(description="Folder to write.")
    mode: Literal["fail", "overwrite"] = Field(
        default="fail",
        description="What to do when the output exists: refuse, or replace what this job wrote.",
    )


class _PlaceConfig(Config):
    """A folder or a table of Spark's catalogs, as which rows are published."""

    either: ClassVar[tuple[str, ...]] = ("path", "table")

    path: Target = Field(default="", description="Folder to write; or give table in its place.")
    table: TableTarget | None = Field(
        default=None,
        description="In place of path, a table of Spark's catalogs; its schema has to be there.",
    )
    format: Literal["parquet", "delta", "iceberg"] = Field(
        default="parquet",
        description="Format of the table; delta and iceberg need jars of theirs, and iceberg a "
        "name.",
    )
    staging: Name | None = Field(
        default=None,
        description="Folder for staged rows and the manifest of a table; null: where its schema "
        "is.",
    )


class TableOutputConfig(_PlaceConfig):
    """Where rows go that many tasks make, and how they lie in files."""

    mode: SyncMode = "fail"
    file_size: FileSize = Field(
        default="256 MB",
        description="About how large published files are, in bytes or such as 256 MB; smaller ones "
        "that tasks left are merged.",
    )
    sorted: bool = Field(
        default=False,
        description="Whether rows are sorted by id, within files and from file to file; who reads "
        "some ids can skip the rest.",
    )

    @property
    def file_bytes(self) -> int:
        """`file_size` in bytes."""
        return in_bytes(self.file_size)


class NewTableOutputConfig(_PlaceConfig):
    """Where rows go that are made in one piece."""

    mode: Literal["fail", "overwrite"] = Field(
        default="fail",
        description="What to do when the output exists: refuse, or replace what this job wrote.",
    )


class RowsOutputConfig(TableOutputConfig):
    """Where the result of each row of the input goes."""

    either: ClassVar[tuple[str, ...]] = ("path", "table", "merge_into")

    retry_failed: bool = Field(
        default=True,
        description="With mode sync, whether rows that failed are done again though their content "
        "is the same.",
    )
    merge_into: TableTarget | None = Field(
        default=None,
        description="In place of path, a Delta or Iceberg table with these ids that gets the "
        "results as columns.",
    )


class LimitsConfig(Config):
    """The failures to bear, and the bounds of a row and of a task."""

    max_failed_fraction: Share = Field(
        default=MAX_FAILED_FRACTION,
        description="Share of rows that may fail; above it the run ends with exit code 3 and "
        "publishes nothing.",
    )
    max_pixels: Annotated[int, Field(ge=1)] = Field(
        default=89_478_485,
        description="Pixels of an image, known from its header; a larger one is a failed row, and "
        "is not decoded.",
    )
    max_bytes: Annotated[int, Field(ge=1)] = Field(
        default=MAX_BYTES,
        description="Bytes of a row's text, image or file; a larger one is a failed row.",
    )
    rows_per_task: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows that one task does, the most that a killed task loses; auto: chosen by "
        "job and modality.",
    )


class VectorLimitsConfig(LimitsConfig):
    """The same, and how far the vectors of a quantized model may be off."""

    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        description="With precision int8, least cosine of vectors with those at float32; below it "
        "exit code 5; null: any.",
    )


class RejectsConfig(Config):
    """How many rows may have vectors that cannot be used."""

    max_failed_fraction: Share = Field(
        default=MAX_FAILED_FRACTION,
        description="Share of rows that may be unusable; above it the run ends with exit code 3.",
    )


class EmbedConfig(Config):
    """Configuration of the `embed` job."""

    input: InputConfig = Field(description="The corpus to embed.")
    model: ModelConfig = Field(description="The model, and what to take from it.")
    output: RowsOutputConfig = Field(description="Where the table of embeddings goes.")
    limits: VectorLimitsConfig = Field(
        default=VectorLimitsConfig(), description="Bounds of the run."
    )
    chunk: ChunkConfig | None = Field(
        default=None, description="Windows to cut long texts into; null: one vector for each text."
    )


class EmbeddingsConfig(TableConfig):
    """A table of embeddings, as `embed` writes it."""

    id: Name = Field(description="Column that names each row.")
    embedding: Name = Field(default="embedding", description="Column of the vectors.")
