"""The configuration of `search`, `join`, `project` and `export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import (
    EmbeddingsConfig,
    Name,
    NewOutputConfig,
    OutputConfig,
    RejectsConfig,
    Source,
    TableConfig,
    Target,
)
from ember.settings.report import JoinReportConfig, SearchReportConfig

__all__ = [
    "AlignConfig",
    "ComparisonLimits",
    "ExportConfig",
    "GroupsConfig",
    "JoinConfig",
    "JoinLimits",
    "ProjectConfig",
    "SearchConfig",
    "VectorsConfig",
]


class ComparisonLimits(RejectsConfig):
    """`rows_per_block` bounds the memory of a worker, and the work that a killed task loses.

    auto: 16 MiB of vectors.
    """

    rows_per_block: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class JoinLimits(ComparisonLimits):
    """The ceiling of a join: more pairs than `max_pairs` are counted and not written."""

    max_pairs: Annotated[int, Field(ge=1)] = 100_000_000


class GroupsConfig(Config):
    """Where near-duplicate groups go; null: nowhere."""

    path: Target | None = None


class SearchConfig(Config):
    """Configuration of the `search` job. `corpus: null` searches the queries in themselves.

    `recall` is for `mode: approximate`.
    """

    queries: EmbeddingsConfig
    corpus: EmbeddingsConfig | None = None
    k: Annotated[int, Field(ge=1)] = 10
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    mode: Literal["exact", "approximate"] = "exact"
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    exclude_self: bool = False
    within: list[Name] = Field(default=[])
    report: SearchReportConfig | None = None
    output: OutputConfig
    limits: ComparisonLimits = ComparisonLimits()


class JoinConfig(Config):
    """Configuration of the `join` job. `right: null` joins the left table with itself."""

    left: EmbeddingsConfig
    right: EmbeddingsConfig | None = None
    threshold: float
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    within: list[Name] = Field(default=[])
    groups: GroupsConfig = GroupsConfig()
    report: JoinReportConfig | None = None
    output: OutputConfig
    limits: JoinLimits = JoinLimits()


class VectorsConfig(TableConfig):
    """A column of vectors whose length is all that is asked for."""

    embedding: Name = "embedding"


class AlignConfig(Config):
    """A linear map to the vectors of another table, learned from the ids that both have.

    `penalty` is for ridge and cca, a share of the mean variance; `dimension` is for cca, which maps
    both tables: the map of the other one is saved as `<save>/target`.
    """

    to: EmbeddingsConfig
    method: Literal["ridge", "procrustes", "cca"] = "ridge"
    penalty: Annotated[float, Field(ge=0)] | Literal["cross_validation"] = "cross_validation"
    dimension: Annotated[int, Field(ge=1)] | None = None


class ProjectConfig(Config):
    """Configuration of the `project` job.

    One of `dimension`, `explained` (a share of the variance), `like` (the dimension of that table),
    `align` (a map to that table) and `projection` (a folder saved by an earlier run).
    `save: null` is `<output.path>.projection`.
    """

    input: EmbeddingsConfig
    dimension: Annotated[int, Field(ge=1)] | None = None
    explained: Annotated[float, Field(gt=0, le=1)] | None = None
    like: VectorsConfig | None = None
    align: AlignConfig | None = None
    projection: Source | None = None
    center: bool = True
    whiten: bool = False
    save: Target | None = None
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()


class ExportConfig(Config):
    """Configuration of the `export` job."""

    corpus: EmbeddingsConfig
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()
