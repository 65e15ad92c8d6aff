"""Rows that a comparison or a projection leaves out, for callers that publish nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.comparison.comparison import Comparison
from ember.spark.failed_rows import refuse_failures
from ember.spark.ids import text_of

__all__ = ["count_reasons", "refuse_many", "refuse_rejected", "rejected_rows"]


def rejected_rows(compared: Comparison, spark: SparkSession) -> DataFrame:
    """The rows of both tables that cannot be compared: (side, id, reason).

    Ids of two types are one column of strings.
    """
    sides = compared.sides()
    one_type = len({packed.id_type.simpleString() for packed in sides.values()}) == 1
    tables = []
    for side, packed in sides.items():
        name = F.col("id") if one_type else text_of(F.col("id"), packed.id_type)
        rows = packed.rejected_rows(spark)
        tables.append(rows.select(F.lit(side).alias("side"), name.alias("id"), "reason"))
    return reduce(DataFrame.union, tables)


def refuse_rejected(compared: Comparison, spark: SparkSession, max_failed_fraction: float) -> None:
    """Raise TooManyFailures when more than this share of a table's rows cannot be compared."""
    for side, packed in compared.sides().items():
        total = packed.rows + packed.rejected
        if packed.rejected > max_failed_fraction * total:
            reasons = count_reasons(packed.rejected_rows(spark))
            refuse_many(reasons, total, max_failed_fraction, f" of the {side} table")


def refuse_many(
    reasons: Mapping[str, int], total: int, max_failed_fraction: float, of_what: str
) -> None:
    """Raise TooManyFailures when the rows counted by reason are more than this share of `total`."""
    rejected = sum(reasons.values())
    shown = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    told = f"rows{of_what} have no usable vector ({shown})"
    otherwise = " and look at what the result has in rejected"
    refuse_failures(rejected, total, max_failed_fraction, told, otherwise=otherwise)


def count_reasons(rejected: DataFrame) -> dict[str, int]:
    """Rows by reason (what stands before the colon), the most frequent first."""
    reason = F.substring_index("reason", ":", 1).alias("reason")
    found = rejected.groupBy(reason).count().orderBy(F.desc("count"), "reason").collect()
    return {row["reason"]: row["count"] for row in found}
