"""Rows that have to meet in one task, for work that Spark knows nothing of."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

__all__ = ["together"]


def together(rows: DataFrame, *keys: str | Column, partitions: int | None = None) -> DataFrame:
    """The rows, all that have the same keys in one partition.

    A plain `repartition(*keys)` is no promise. Behind a join by these keys Spark leaves it out, for
    the rows lie so already; then adaptive execution, which sees no operator that needs them so,
    may make the join a broadcast one and read its larger side as it lies, so that rows of one key
    get into several partitions. Keys in a struct are a partitioning that no join has.
    """
    whole = F.struct(*keys)
    return rows.repartition(whole) if partitions is None else rows.repartition(partitions, whole)
