"""What the report pages of `search`, `join` and `evaluate` show of the rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ember.settings.config import Config
from ember.settings.names import Name
from ember.settings.tables import CorpusConfig

__all__ = ["ContentConfig", "Examples", "JoinReportConfig", "SearchReportConfig"]

Examples = Annotated[int, Field(ge=1, le=100)]


class ContentConfig(CorpusConfig):
    """The corpus behind ids, as `embed` reads it."""

    label: Name | None = Field(
        default=None, description="Column with a word on each row, to show beside it."
    )


class SearchReportConfig(Config):
    """The page of a search."""

    queries: ContentConfig | None = Field(
        default=None, description="Content behind the ids of the queries; null: ids only are shown."
    )
    corpus: ContentConfig | None = Field(
        default=None,
        description="Content behind the ids of the neighbors; null: they are in the queries' "
        "table.",
    )
    examples: Examples = Field(
        default=12, description="How many queries to show, drawn by the hash of their id."
    )


class JoinReportConfig(Config):
    """The page of a join."""

    left: ContentConfig | None = Field(
        default=None,
        description="Content behind the ids of the left table; null: ids only are shown.",
    )
    right: ContentConfig | None = Field(
        default=None,
        description="Content behind the ids of the right table; null: they are in the left one's.",
    )
    examples: Examples = Field(
        default=12,
        description="How many groups, most similar pairs, and pairs near the threshold to show.",
    )
