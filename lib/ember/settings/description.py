"""The configuration of `describe`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import LimitsConfig
from ember.settings.names import ModelName, Name, Paths
from ember.settings.outputs import RowsOutputConfig
from ember.settings.tables import InputConfig, TableConfig
from ember.worker.spec import Precision

__all__ = [
    "DescribeConfig",
    "GenerationConfig",
    "PromptConfig",
    "PromptTable",
    "SamplingConfig",
    "WriterConfig",
]


class WriterConfig(Config):
    """A model that writes texts."""

    name: ModelName = Field(
        description="Model of the Hugging Face hub or a folder as hf:ID: a causal language model "
        "for texts, image-to-text for images."
    )
    revision: Name | None = Field(
        default=None, description="Branch, tag or commit of the hub's repository; pin it."
    )
    precision: Precision = Field(
        default="float32",
        description="Number format in which the model computes; with 16 bits a text may depend on "
        "its batch.",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = Field(
        default="auto", description="Rows of an average batch; long prompts share smaller ones."
    )


class PromptTable(TableConfig):
    """Values of another table's `column`, joined by id.

    With `neighbors`, the values of a row's nearest neighbors.
    """

    id: Name = Field(description="Column of the ids that the input's rows or their neighbors have.")
    column: Name = Field(
        description="Column of the values; of predictions, the best labels are the values."
    )
    neighbors: Paths | None = Field(
        default=None,
        description="Table that search wrote, to take the values of each row's nearest neighbors; "
        "null: those of the row itself.",
    )
    top: Annotated[int, Field(ge=1)] = Field(
        default=1, description="How many labels of a list, or how many neighbors, best first."
    )


class PromptConfig(Config):
    """A text with {names}, each a column of the input, or what `columns` or `tables` say it is."""

    template: Name = Field(
        description="Text of the prompt; each {name} in it is a column, {{ and }} are braces."
    )
    columns: dict[str, Name] = Field(
        default={},
        description="Columns of the input by the names that the template has for them.",
    )
    tables: dict[str, PromptTable] = Field(
        default={}, description="Tables, joined by id, by the names that the template has for them."
    )
    top: Annotated[int, Field(ge=1)] = Field(
        default=1, description="How many labels of a column that holds a list, best first."
    )
    separator: str = Field(default=", ", description="What stands between several labels.")


class SamplingConfig(Config):
    """How tokens are drawn."""

    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        default=1.0,
        description="Divides the scores of tokens before drawing; lower is closer to the best "
        "token.",
    )
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=50, description="Draw from so many best tokens; null: from all."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Draw from the best tokens that have this share of the probability.",
    )
    seed: int = Field(
        default=0, description="Seed of the random numbers, which depend on it and the row's id."
    )


class GenerationConfig(Config):
    """How long a text is, what ends it, and how its tokens are chosen."""

    max_new_tokens: Annotated[int, Field(ge=1)] = Field(
        default=32,
        description="Tokens to write at most; a prompt too long for the model less these loses its "
        "beginning.",
    )
    min_new_tokens: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Tokens to write at least."
    )
    stop: list[Name] = Field(
        default=[], description="Strings that end a text, and are not part of it."
    )
    sampling: SamplingConfig | None = Field(
        default=None, description="How to draw tokens; null: take the best token each time."
    )


class DescribeConfig(Config):
    """Configuration of the `describe` job."""

    input: InputConfig = Field(description="The corpus to describe.")
    model: WriterConfig = Field(description="The model that writes the texts.")
    prompt: PromptConfig | None = Field(
        default=None,
        description="What to ask for each row, of texts in place of input.content; null: a text is "
        "its own prompt, an image has none.",
    )
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="Length of the texts and choice of their tokens."
    )
    output: RowsOutputConfig = Field(description="Where the table of descriptions goes.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Bounds of the run.")
