"""What tables of embeddings hold, counted before anything is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidInput

__all__ = ["Census", "census", "dimension_of"]


@dataclass(frozen=True)
class Census:
    """rows: of the table. dimension: the length of its vectors, 0 where there is none.

    ungrouped: rows whose group is null, where there are groups.
    """

    rows: int
    dimension: int
    ungrouped: int


def census(tables: Mapping[str, DataFrame], max_failed_fraction: float) -> list[Census]:
    """Count the rows of tables (id, embedding) or (id, embedding, group), in one pass over all.

    tables: by how messages name them. A few rows with vectors of another length are rejected
    later. More than the ceiling allows cannot be meant: raises InvalidInput that names both
    lengths.
    """
    length = F.when(F.col("embedding").isNotNull(), F.size("embedding"))
    parts = [
        rows.select(
            F.lit(number).alias("table"),
            length.alias("length"),
            (F.col("group").isNull() if "group" in rows.columns else F.lit(False)).alias("loose"),
        )
        for number, rows in enumerate(tables.values())
    ]
    counts = reduce(DataFrame.union, parts).groupBy("table", "length", "loose").count().collect()
    found = []
    for number, shown in enumerate(tables):
        mine = [row for row in counts if row["table"] == number]
        lengths: dict[int, int] = {}
        for row in mine:
            if row["length"] is not None:
                lengths[row["length"]] = lengths.get(row["length"], 0) + row["count"]
        found.append(
            Census(
                sum(row["count"] for row in mine),
                _common(lengths, shown, max_failed_fraction),
                sum(row["count"] for row in mine if row["loose"]),
            )
        )
    return found


def dimension_of(rows: DataFrame, shown: str, max_failed_fraction: float) -> int:
    """The length of the vectors of a table with a column `embedding`; see `census`."""
    return census({shown: rows}, max_failed_fraction)[0].dimension


def _common(lengths: Mapping[int, int], shown: str, max_failed_fraction: float) -> int:
    """The most frequent length, the larger of equally frequent ones; 0 where there is none."""
    ranked = sorted(((count, length) for length, count in lengths.items()), reverse=True)
    if not ranked:
        return 0
    if sum(count for count, _ in ranked[1:]) > max_failed_fraction * sum(lengths.values()):
        raise InvalidInput(
            f"{shown} mixes vectors of {ranked[0][1]} and {ranked[1][1]} dimensions "
            f"({ranked[0][0]} and {ranked[1][0]} rows); compare one kind at a time"
        )
    return ranked[0][1]
