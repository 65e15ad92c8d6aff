"""What a comparison or a projection gives: a table, and what was left out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame

from ember.worker.vectors.projection import Projection

__all__ = ["JoinResult", "ProjectResult", "Recall", "SearchResult"]


@dataclass(frozen=True, eq=False)
class JoinResult:
    """What `ember.join` gives.

    Attributes:
        table: `left_id`, `right_id`, `score` float.
        rejected: the rows without a usable vector: `side` ("left" or "right"), `id` (a string,
            where the two tables have ids of different types), `reason`.
    """

    table: DataFrame
    rejected: DataFrame
    _describe: Callable[[], dict[str, Any]] = field(repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """For a manifest, JSON values: the dimension, rows and rejected rows of each table, …

        What is measured while the table is computed is complete afterwards.
        """
        return self._describe()


@dataclass(frozen=True)
class Recall:
    """The share of the exact answer that a search finds, and its 95% interval."""

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True, eq=False)
class SearchResult(JoinResult):
    """What `ember.search` gives.

    Attributes:
        table: `query_id`, `neighbor_id`, `rank` int 1..k, `score` float.
        rejected: the rows without a usable vector: `side` ("left" for the queries, "right" for
            the corpus), `id` (a string, where the two tables have ids of different types),
            `reason`.
        recall: of a search with a wanted recall (mode approximate), the share of the exact answer
            that it finds. None where an exact search was asked for.
    """

    recall: Recall | None = None


@dataclass(frozen=True, eq=False)
class ProjectResult:
    """What `ember.project` gives.

    Attributes:
        table: all columns of the table given, the vectors projected.
        rejected: the rows that cannot be projected: `id`, `reason`.
        projection: the map that was applied; `ember.save_projection` keeps it.
        facts: for a manifest, JSON values: the dimension, a summary of the projection, counts.
    """

    table: DataFrame
    rejected: DataFrame
    projection: Projection
    facts: dict[str, Any]
