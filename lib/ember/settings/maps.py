"""The configuration of `map`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import RejectsConfig
from ember.settings.names import Name
from ember.settings.outputs import NewOutputConfig
from ember.settings.tables import ContentIsKey, EmbeddingsConfig, OtherTableConfig, RootKey

__all__ = ["MOST_ROWS", "ColorConfig", "MapConfig", "MapContentConfig"]

MOST_ROWS = 50_000
"""What one task can lay out in minutes, and one page draw without a pause."""


class ColorConfig(OtherTableConfig):
    """A column of another table, found by the ids."""

    column: Name = Field(
        default="label",
        description="Column to color by: any single value, a list of labels, or predictions.",
    )
    name: Name | None = Field(
        default=None, description="What the color is called; null: as the column is."
    )


class MapContentConfig(OtherTableConfig):
    """The images or texts behind the ids."""

    content: Name = Field(
        default="content",
        description="Column of the content: encoded images, paths of image files, or texts.",
    )
    modality: Literal["image", "text"] | None = Field(
        default=None,
        description="What the content is; null: images in a binary column, else texts.",
    )
    content_is: ContentIsKey = None
    root: RootKey = None


class MapConfig(Config):
    """Configuration of the `map` job."""

    input: EmbeddingsConfig = Field(description="The embeddings to make a map of.")
    color: Name | list[Name | ColorConfig] = Field(
        default=[],
        description="Columns to color by: of the input by their names, of other tables as "
        "sections.",
    )
    agree: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="Two of the colors, such as a label and a prediction; one more color then says "
        "whether they agree.",
    )
    content: MapContentConfig | None = Field(
        default=None,
        description="Images or texts to show of the rows under the pointer; null: ids only.",
    )
    metric: Literal["cosine", "euclidean"] = Field(
        default="cosine", description="What near means among the vectors."
    )
    sample: Annotated[int, Field(ge=1, le=MOST_ROWS)] = Field(
        default=20_000,
        description="Rows on the map at most; of more, so many are drawn by the hashes of their "
        "ids.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="Chooses among samples; the same seed draws the same rows."
    )
    output: NewOutputConfig = Field(description="Where the coordinates and the page go.")
    limits: RejectsConfig = Field(default=RejectsConfig(), description="Bounds of the run.")
