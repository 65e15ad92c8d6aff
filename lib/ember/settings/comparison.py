"""The configuration of `search`, `join`, `project` and `export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import RejectsConfig
from ember.settings.names import Name, Source, Target
from ember.settings.outputs import NewOutputConfig, NewTableOutputConfig, TableOutputConfig
from ember.settings.report import JoinReportConfig, SearchReportConfig
from ember.settings.tables import EmbeddingsConfig, TableConfig

__all__ = [
    "AlignConfig",
    "ComparisonLimits",
    "ExportConfig",
    "GroupsConfig",
    "IndexConfig",
    "JoinConfig",
    "JoinLimits",
    "Metric",
    "ProjectConfig",
    "SearchConfig",
    "VectorsConfig",
]

# As ember.worker.vectors has them, whose import takes longer than reading a configuration may.
Metric = Literal["cosine", "inner_product", "euclidean"]


class ComparisonLimits(RejectsConfig):
    """What a comparison may leave out, and how large its blocks are."""

    rows_per_block: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows that are compared at a time, which bounds memory and what a killed task "
        "loses; auto: 16 MiB of vectors.",
    )


class JoinLimits(ComparisonLimits):
    """The ceiling of a join."""

    max_pairs: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000,
        description="Pairs of a join; more are counted, not written, and the run ends with exit "
        "code 3.",
    )


class GroupsConfig(Config):
    """Where near-duplicate groups go."""

    path: Target | None = Field(
        default=None, description="Folder to write; null: no groups are made."
    )


class IndexConfig(Config):
    """Where the corpus of a search is kept, packed, for later searches."""

    path: Target | None = Field(
        default=None,
        description="Folder in which the corpus is kept, packed, and follows the files of its "
        "table; null: each run packs it.",
    )


class SearchConfig(Config):
    """Configuration of the `search` job."""

    queries: EmbeddingsConfig = Field(description="The embeddings to find neighbors for.")
    corpus: EmbeddingsConfig | None = Field(
        default=None,
        description="The embeddings to find neighbors among; null: the queries themselves.",
    )
    k: Annotated[int, Field(ge=1)] = Field(
        default=10, description="How many neighbors to find for each query."
    )
    metric: Metric = Field(
        default="cosine",
        description="What similar means; euclidean is a distance, and the smallest comes first.",
    )
    mode: Literal["exact", "approximate"] = Field(
        default="exact",
        description="Whether the exact answer is asked for, or a share of it in whatever way takes "
        "the least time: so far the exact search.",
    )
    recall: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95,
        description="For mode: approximate, the share of the exact answer that must be found.",
    )
    exclude_self: bool = Field(
        default=False,
        description="Whether to leave out the corpus row that has the query's own id.",
    )
    within: list[Name] = Field(
        default=[], description="Columns of both tables; only rows that agree on all are compared."
    )
    index: IndexConfig = Field(
        default=IndexConfig(), description="Where the packed corpus is kept for later searches."
    )
    report: SearchReportConfig | None = Field(
        default=None, description="What a page in the output shows of the rows; null: no page."
    )
    output: TableOutputConfig = Field(description="Where the table of neighbors goes.")
    limits: ComparisonLimits = Field(default=ComparisonLimits(), description="Bounds of the run.")


class JoinConfig(Config):
    """Configuration of the `join` job."""

    left: EmbeddingsConfig = Field(description="The embeddings to compare.")
    right: EmbeddingsConfig | None = Field(
        default=None,
        description="The embeddings to compare them with; null: the left table with itself, each "
        "pair once.",
    )
    threshold: float = Field(
        description="Score that a pair must reach; for euclidean, the distance it may not exceed."
    )
    metric: Metric = Field(
        default="cosine", description="What similar means; euclidean is a distance."
    )
    within: list[Name] = Field(
        default=[], description="Columns of both tables; only rows that agree on all are compared."
    )
    groups: GroupsConfig = Field(
        default=GroupsConfig(), description="Where the groups of near-duplicates go."
    )
    report: JoinReportConfig | None = Field(
        default=None, description="What a page in the output shows of the rows; null: no page."
    )
    output: TableOutputConfig = Field(description="Where the table of pairs goes.")
    limits: JoinLimits = Field(default=JoinLimits(), description="Bounds of the run.")


class VectorsConfig(TableConfig):
    """A column of vectors whose length is all that is asked for."""

    embedding: Name = Field(default="embedding", description="Column of the vectors.")


class AlignConfig(Config):
    """A linear map to the vectors of another table, learned from the ids that both have.

    cca maps both tables: the map of the other one is saved as `<save>/target`.
    """

    to: EmbeddingsConfig = Field(
        description="The table to map to; the map is learned from the ids that both tables have."
    )
    method: Literal["ridge", "procrustes", "cca"] = Field(
        default="ridge",
        description="Kind of map: ridge regression, a rotation (procrustes), or one for both "
        "tables (cca).",
    )
    penalty: Annotated[float, Field(ge=0)] | Literal["cross_validation"] = Field(
        default="cross_validation",
        description="For ridge and cca, the penalty on the map, a share of the mean variance.",
    )
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="For cca, how many dimensions to map to; null: that of the smaller table.",
    )


class ProjectConfig(Config):
    """Configuration of the `project` job.

    One of `dimension`, `explained`, `like`, `align` and `projection` says what to project to.
    """

    input: EmbeddingsConfig = Field(description="The embeddings to project.")
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="How many principal components to keep. Give this, explained, like, align or "
        "projection.",
    )
    explained: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Keep the fewest principal components that explain this share of the variance.",
    )
    like: VectorsConfig | None = Field(
        default=None, description="Keep as many principal components as this table has dimensions."
    )
    align: AlignConfig | None = Field(
        default=None, description="Map to the vectors of another table, learned from pairs."
    )
    projection: Source | None = Field(
        default=None,
        description="Folder of a projection that an earlier run saved, or of a head that train "
        "wrote with head: similarity.",
    )
    center: bool = Field(
        default=True,
        description="Whether to subtract the mean before principal components are found; false is "
        "kinder to inner products.",
    )
    whiten: bool = Field(
        default=False, description="Whether to scale each principal component to variance 1."
    )
    save: Target | None = Field(
        default=None,
        description="Folder for the projection itself; null: output.path followed by .projection.",
    )
    output: NewTableOutputConfig = Field(description="Where the projected table goes.")
    limits: RejectsConfig = Field(default=RejectsConfig(), description="Bounds of the run.")


class ExportConfig(Config):
    """Configuration of the `export` job."""

    corpus: EmbeddingsConfig = Field(description="The embeddings to export.")
    metric: Metric = Field(
        default="cosine",
        description="What the index ranks by; for cosine, rows are scaled to length 1, and queries "
        "must be.",
    )
    output: NewOutputConfig = Field(description="Where the index and its ids go.")
    limits: RejectsConfig = Field(default=RejectsConfig(), description="Bounds of the run.")
