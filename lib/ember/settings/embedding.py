"""The configuration of `embed`; its model and its chunks are those of other jobs, too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import VectorLimitsConfig
from ember.settings.names import ModelName, Name
from ember.settings.outputs import RowsOutputConfig
from ember.settings.tables import InputConfig
from ember.worker.spec import Precision

__all__ = ["ChunkConfig", "EmbedConfig", "Layer", "ModelConfig", "Role", "Runtime"]

Layer = Literal["auto", "avg_pool", "fc1", "fc2", "mean", "cls", "pooler"] | None
Role = Literal["query", "document"] | None
Runtime = Literal["auto", "tensorflow", "torch", "openvino"]


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
