"""The configuration of `describe`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import (
    InputConfig,
    LimitsConfig,
    ModelName,
    Name,
    OutputConfig,
    Paths,
    TableConfig,
)

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

    name: ModelName
    revision: Name | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = "auto"


class PromptTable(TableConfig):
    """Values of another table's `column`, joined by id.

    With `neighbors`, a table that `search` wrote, the values of a row's nearest neighbors. `top`:
    so many labels of a list, or so many neighbors, best first.
    """

    id: Name
    column: Name
    neighbors: Paths | None = None
    top: Annotated[int, Field(ge=1)] = 1


class PromptConfig(Config):
    """A text with {names}, each a column of the input, or what `columns` or `tables` say it is.

    `top`: so many labels of a column that holds a list, best first. Several stand with
    `separator` in between.
    """

    template: Name
    columns: dict[str, Name] = Field(default={})
    tables: dict[str, PromptTable] = Field(default={})
    top: Annotated[int, Field(ge=1)] = 1
    separator: str = ", "


class SamplingConfig(Config):
    """How tokens are drawn. `top_k: null` draws from all."""

    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = 50
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0


class GenerationConfig(Config):
    """How long a text is, what ends it, and how its tokens are chosen.

    `sampling: null` takes the best token each time.
    """

    max_new_tokens: Annotated[int, Field(ge=1)] = 32
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    stop: list[Name] = Field(default=[])
    sampling: SamplingConfig | None = None


class DescribeConfig(Config):
    """Configuration of the `describe` job.

    `prompt: null` takes the content of a text as its prompt, and gives an image none.
    """

    input: InputConfig
    model: WriterConfig
    prompt: PromptConfig | None = None
    generation: GenerationConfig = GenerationConfig()
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()
