"""The names that the public API had before its verbs were those of the jobs.

They do what they did: rows without a usable vector are left out, however many there are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from pyspark.sql import DataFrame

from ember.comparison import comparison
from ember.comparison import join as joining
from ember.comparison.dataframes import (
    check_search,
    neighbors_of,
    pack_for_join,
    pack_for_search,
    pairs_of,
)
from ember.comparison.export import export
from ember.settings.comparison import Metric
from ember.settings.limits import MAX_FAILED_FRACTION

__all__ = ["approximate_top_k", "export_faiss", "similarity_join", "top_k"]


def top_k(
    queries: DataFrame,
    corpus: DataFrame | None,
    k: int,
    metric: str = "cosine",
    *,
    id: str = "id",
    embedding: str = "embedding",
    exclude_self: bool = False,
    within: Sequence[str] = (),
    folder: str | None = None,
) -> DataFrame:
    """Deprecated: the table of `ember.search`."""
    _warn("top_k", "search")
    check_search(k, None)
    tables = comparison.sides(queries, corpus, metric, id=id, embedding=embedding, within=within)
    compared = pack_for_search(
        *tables, k=k, metric=metric, exclude_self=exclude_self, folder=folder
    )
    return neighbors_of(compared, queries.sparkSession, k, None, exclude_self).table


def approximate_top_k(
    queries: DataFrame,
    corpus: DataFrame | None,
    k: int,
    metric: str = "cosine",
    recall: float = 0.95,
    *,
    id: str = "id",
    embedding: str = "embedding",
    exclude_self: bool = False,
    folder: str | None = None,
) -> DataFrame:
    """Deprecated: the table of `ember.search` with mode approximate."""
    _warn("approximate_top_k", 'search(…, mode="approximate")')
    check_search(k, recall)
    tables = comparison.sides(queries, corpus, metric, id=id, embedding=embedding, within=())
    compared = pack_for_search(
        *tables, k=k, metric=metric, exclude_self=exclude_self, folder=folder
    )
    return neighbors_of(compared, queries.sparkSession, k, recall, exclude_self).table


def similarity_join(
    left: DataFrame,
    right: DataFrame | None = None,
    threshold: float = 0.9,
    metric: str = "cosine",
    *,
    id: str = "id",
    embedding: str = "embedding",
    within: Sequence[str] = (),
    folder: str | None = None,
) -> DataFrame:
    """Deprecated: the table of `ember.join`."""
    _warn("similarity_join", "join")
    joining.check_threshold(threshold, metric)
    tables = comparison.sides(left, right, metric, id=id, embedding=embedding, within=within)
    compared = pack_for_join(*tables, threshold=threshold, metric=metric, folder=folder)
    return pairs_of(compared, left.sparkSession, threshold).table


def export_faiss(
    table: DataFrame,
    path: str,
    metric: Metric = "cosine",
    *,
    id: str = "id",
    embedding: str = "embedding",
    mode: Literal["fail", "overwrite"] = "fail",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> dict[str, Any]:
    """Deprecated: `ember.export`."""
    _warn("export_faiss", "export")
    return export(
        table,
        path,
        metric=metric,
        id=id,
        embedding=embedding,
        mode=mode,
        max_failed_fraction=max_failed_fraction,
    )


def _warn(old: str, new: str) -> None:
    message = f"ember.{old} is deprecated; use ember.{new}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
