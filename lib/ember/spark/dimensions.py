"""The length of the vectors of a table."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidInput

__all__ = ["common_length", "dimension", "dimension_of"]


def dimension_of(rows: DataFrame, shown: str, max_failed_fraction: float) -> int:
    """The length of the vectors of a table with a column `embedding`; see `common_length`."""
    counts = rows.filter("embedding is not null").groupBy(F.size("embedding").alias("length"))
    lengths = {row["length"]: row["count"] for row in counts.count().collect()}
    return common_length(lengths, shown, max_failed_fraction)


def common_length(counts: Mapping[int, int], shown: str, max_failed_fraction: float) -> int:
    """The most frequent length of vectors, the larger one of a tie; 0 where there are none.

    counts: of vectors, by length. shown: the table, as messages name it. A few vectors of another
    length are rejected later. More than the ceiling allows cannot be meant: raises InvalidInput
    that names both lengths.
    """
    ranked = sorted(((count, length) for length, count in counts.items()), reverse=True)
    if not ranked:
        return 0
    if sum(count for count, _ in ranked[1:]) > max_failed_fraction * sum(counts.values()):
        raise InvalidInput(
            f"{shown} mixes vectors of {ranked[0][1]} and {ranked[1][1]} dimensions "
            f"({ranked[0][0]} and {ranked[1][0]} rows); compare one kind at a time"
        )
    return ranked[0][1]


def dimension(table: DataFrame) -> int | None:
    """The length of the vectors in column `embedding`; None where there is none."""
    lengths = table.select(F.size("embedding").alias("n")).filter("n > 0").limit(1).collect()
    return int(lengths[0]["n"]) if lengths else None
