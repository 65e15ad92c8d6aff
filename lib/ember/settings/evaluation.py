"""The configuration of `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import Name, NewOutputConfig, RejectsConfig, TableConfig
from ember.settings.report import ContentConfig

__all__ = [
    "BaselineConfig",
    "EvaluateConfig",
    "NeighborsConfig",
    "PairsConfig",
    "PredictionsConfig",
    "RelevanceConfig",
    "TruthConfig",
]


class PredictionsConfig(TableConfig):
    """A table of predictions, as `classify` writes it."""

    id: Name
    predictions: Name = "predictions"


class NeighborsConfig(TableConfig):
    """Ranked lists, as `search` writes them. `rank: null` orders by score, highest first."""

    query_id: Name = "query_id"
    neighbor_id: Name = "neighbor_id"
    rank: Name | None = "rank"
    score: Name = "score"


class PairsConfig(TableConfig):
    """A table of scores. `id` may be several columns that name a row together."""

    id: Name | Annotated[list[Name], Field(min_length=1)]
    score: Name = "score"


class TruthConfig(TableConfig):
    """The truth: a label or labels for classes, a number or a boolean for similarity.

    `id: null` takes the name of the id in the table that is judged.
    """

    id: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    label: Name = "label"


class RelevanceConfig(TableConfig):
    """Which documents are relevant to which queries. `grade: null` makes every row relevant."""

    query_id: Name = "query_id"
    neighbor_id: Name = "neighbor_id"
    grade: Name | None = None


class BaselineConfig(TableConfig):
    """The other run of a comparison, in a table with the same column names."""


Kind = Literal["classification", "multilabel", "retrieval", "similarity"]
Ranks = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class EvaluateConfig(Config):
    """Configuration of the `evaluate` job; which sections go with which kind is in conf/.

    `population: predictions` judges the rows that the judged table has, as after a split; by
    default every row of the truth must be in it. `match`: what of a prediction a truth of integers
    is; auto: its label where the predictions' labels are integers, its index where they are names.
    """

    kind: Kind | Literal["compare"]
    of: Kind = "classification"
    predictions: PredictionsConfig | None = None
    neighbors: NeighborsConfig | None = None
    pairs: PairsConfig | None = None
    baseline: BaselineConfig | None = None
    truth: TruthConfig | None = None
    queries: TruthConfig | None = None
    relevance: RelevanceConfig | None = None
    population: Literal["truth", "predictions"] = "truth"
    slices: list[Name] = Field(default_factory=list)
    require: dict[str, float] = Field(default_factory=dict)
    classes: list[str] | list[int] | None = None
    match: Literal["auto", "label", "index"] = "auto"
    top_k: Ranks = Field(default_factory=lambda: [5])
    at: Ranks = Field(default_factory=lambda: [1, 5, 10])
    threshold: float = 0.5
    exclude_self: bool = False
    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    bootstrap: Annotated[int, Field(ge=0, le=10_000)] = 1000
    worst: Annotated[int, Field(ge=0, le=100_000)] = 100
    report: bool = True
    content: ContentConfig | None = None
    query_content: ContentConfig | None = None
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()
