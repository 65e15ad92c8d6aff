"""What the report pages of `search`, `join` and `evaluate` show of the rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import Name, Roots, TableConfig

__all__ = ["ContentConfig", "Examples", "JoinReportConfig", "SearchReportConfig"]

Examples = Annotated[int, Field(ge=1, le=100)]


class ContentConfig(TableConfig):
    """The corpus behind ids, as `embed` reads it. `label`: a column with a word on each row.

    `content_is` and `root` are those of `embed`'s input.
    """

    id: Name
    content: Name = "content"
    modality: Literal["image", "text"]
    content_is: Literal["bytes", "paths"] | None = None
    root: Roots | None = None
    label: Name | None = None


class SearchReportConfig(Config):
    """The page of a search. `queries: null` shows ids only, `corpus: null` takes the queries'."""

    queries: ContentConfig | None = None
    corpus: ContentConfig | None = None
    examples: Examples = 12


class JoinReportConfig(Config):
    """The page of a join. `left: null` shows ids only, `right: null` takes the left table's."""

    left: ContentConfig | None = None
    right: ContentConfig | None = None
    examples: Examples = 12
