"""The configuration of `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import RejectsConfig
from ember.settings.names import Name, Source
from ember.settings.outputs import NewOutputConfig
from ember.settings.report import ContentConfig
from ember.settings.tables import TableConfig

__all__ = [
    "BaselineConfig",
    "DriftTableConfig",
    "EvaluateConfig",
    "NeighborsConfig",
    "OverlapConfig",
    "PairsConfig",
    "PredictionsConfig",
    "RelevanceConfig",
    "TruthConfig",
]


class PredictionsConfig(TableConfig):
    """A table of predictions, as `classify` writes it."""

    id: Name = Field(description="Column that names each row.")
    predictions: Name = Field(default="predictions", description="Column of the predictions.")


class NeighborsConfig(TableConfig):
    """Ranked lists, as `search` writes them."""

    query_id: Name = Field(default="query_id", description="Column that names the query.")
    neighbor_id: Name = Field(default="neighbor_id", description="Column that names the neighbor.")
    rank: Name | None = Field(
        default="rank",
        description="Column of the ranks, from 1; null: by score, highest first.",
    )
    score: Name = Field(default="score", description="Column of the scores, read for rank: null.")


class PairsConfig(TableConfig):
    """A table of scores."""

    id: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        description="Column that names each row, or the columns that do so together."
    )
    score: Name = Field(default="score", description="Column of the scores.")


class TruthConfig(TableConfig):
    """The truth: a label or labels for classes, a number or a boolean for similarity."""

    id: Name | Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None,
        description="Column or columns that name each row; null: named as in the table that is "
        "judged.",
    )
    label: Name = Field(
        default="label",
        description="Column of the truth: a label, a list of labels, a number, or a boolean.",
    )


class RelevanceConfig(TableConfig):
    """Which documents are relevant to which queries."""

    query_id: Name = Field(default="query_id", description="Column that names the query.")
    neighbor_id: Name = Field(default="neighbor_id", description="Column that names the document.")
    grade: Name | None = Field(
        default=None,
        description="Column of how relevant it is, relevant above 0; null: every row is relevant.",
    )


class BaselineConfig(TableConfig):
    """The other run of a comparison, in a table with the same column names."""


class DriftTableConfig(TableConfig):
    """One of two tables that are held against each other, in the columns that both name."""

    id: Name = Field(description="Column that names each row.")
    embedding: Name | None = Field(default=None, description="Column of the vectors.")
    score: Name | None = Field(default=None, description="Column of a number, such as a score.")
    label: Name | None = Field(default=None, description="Column of a label.")
    predictions: Name | None = Field(
        default=None,
        description="In place of score and label, the column of predictions: the first of each "
        "row counts.",
    )


class OverlapConfig(Config):
    """Of how many nearest neighbors two tables of the same rows agree."""

    k: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="How many nearest neighbors of a row to look at, by cosine."
    )
    sample: Annotated[int, Field(ge=2, le=10_000)] = Field(
        default=1000, description="Rows whose neighbors are looked at, drawn by the hash of the id."
    )
    least: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Mean share of common neighbors below which it is drift."
    )


Kind = Literal["classification", "multilabel", "retrieval", "similarity"]
Ranks = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class EvaluateConfig(Config):
    """Configuration of the `evaluate` job; which sections go with which kind is in conf/.

    `population: predictions` judges the rows that the judged table has, as after a split; by
    default every row of the truth must be in it.
    """

    kind: Kind | Literal["compare", "drift"] = Field(
        description="What is judged; compare: two runs of one kind (see of) on the same rows; "
        "drift: whether two tables are alike."
    )
    of: Kind = Field(default="classification", description="For kind: compare, what the runs are.")
    predictions: PredictionsConfig | None = Field(
        default=None, description="For classification and multilabel, the predictions to judge."
    )
    neighbors: NeighborsConfig | None = Field(
        default=None, description="For retrieval, the ranked lists to judge."
    )
    pairs: PairsConfig | None = Field(
        default=None, description="For similarity, the scores to judge."
    )
    baseline: BaselineConfig | None = Field(
        default=None,
        description="For compare, the run to compare with, in a table with the same column names.",
    )
    reference: DriftTableConfig | None = Field(
        default=None, description="For drift, the table that the other is held against."
    )
    current: DriftTableConfig | None = Field(
        default=None, description="For drift, the table that may have drifted."
    )
    overlap: OverlapConfig | None = Field(
        default=None,
        description="For drift, compare the neighbors of rows that both tables have, not how "
        "vectors lie; null: do not.",
    )
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.05,
        description="For drift, the probability that a run finds some where there is none.",
    )
    truth: TruthConfig | None = Field(
        default=None,
        description="What is true of each row; for retrieval, labels: documents with the query's "
        "label are relevant.",
    )
    queries: TruthConfig | None = Field(
        default=None,
        description="For retrieval by labels, those of the queries; null: they are among the "
        "documents.",
    )
    relevance: RelevanceConfig | None = Field(
        default=None,
        description="For retrieval in place of truth, which documents are relevant to which "
        "queries.",
    )
    population: Literal["truth", "predictions"] = Field(
        default="truth",
        description="Which rows to judge: all of the truth, or those that the judged table has.",
    )
    slices: list[Name] = Field(
        default_factory=list,
        description="Columns of the truth or the judged table; every figure is also given by their "
        "values.",
    )
    require: dict[str, float | Literal["none"]] = Field(
        default_factory=dict,
        description="Figures by name that must be reached, and drift: none; the run ends with exit "
        "code 5 where one is not.",
    )
    classes: list[str] | list[int] | None = Field(
        default=None,
        description="The classes; rows with another truth are left out; null: any label.",
    )
    match: Literal["auto", "label", "index"] = Field(
        default="auto",
        description="What of a prediction a truth of integers is; auto: its label where labels are "
        "integers, else its index.",
    )
    top_k: Ranks = Field(
        default_factory=lambda: [5],
        description="Numbers of best labels, for top-k accuracy and precision.",
    )
    at: Ranks = Field(
        default_factory=lambda: [1, 5, 10],
        description="For retrieval, the ranks at which recall, precision, hit rate and ndcg are "
        "taken.",
    )
    threshold: float = Field(
        default=0.5, description="For multilabel, the score from which a listed label is predicted."
    )
    exclude_self: bool = Field(
        default=False,
        description="For retrieval, whether the queries are documents, none a neighbor of itself.",
    )
    bins: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=15, description="For classification, the bins of the reliability table."
    )
    bootstrap: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=1000, description="Bootstrap replicates behind the intervals; 0: no intervals."
    )
    worst: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=100, description="Rows in the table of the worst ones."
    )
    report: bool = Field(
        default=True, description="Whether to write report.html, a page of it all."
    )
    map: Source | None = Field(
        default=None,
        description="Folder that the job map wrote, to link from the page; null: no link.",
    )
    content: ContentConfig | None = Field(
        default=None, description="Content behind the ids, to show in the report; null: ids only."
    )
    query_content: ContentConfig | None = Field(
        default=None,
        description="Content behind the ids of queries, or first ids of pairs; null: as content.",
    )
    output: NewOutputConfig = Field(description="Where the tables of figures and the report go.")
    limits: RejectsConfig = Field(default=RejectsConfig(), description="Bounds of the run.")
