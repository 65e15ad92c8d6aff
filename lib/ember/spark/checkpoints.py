"""A table by way of files, where Spark's own checkpoints would need a directory of the session."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from ember.spark.paths import literal

__all__ = ["counted", "counting", "stored"]


def stored(table: DataFrame, folder: str) -> DataFrame:
    """The table, written to `folder` in place of what is there, so that nobody makes it again."""
    table.write.mode("overwrite").parquet(folder)
    return table.sparkSession.read.schema(table.schema).parquet(literal(folder))


def counted(table: DataFrame, folder: str, rows: Column | None = None) -> tuple[DataFrame, int]:
    """As `stored`; and how many rows there are, or how many of those where `rows` holds."""
    table, count = counting(table, rows)
    return stored(table, folder), count()


def counting(table: DataFrame, rows: Column | None = None) -> tuple[DataFrame, Callable[[], int]]:
    """The table, to be written, and what says afterward how many rows it had.

    The tasks that write it count them, so that no job reads it again. rows: count those alone.
    """
    seen = Observation()
    number = F.count_if(F.lit(True) if rows is None else rows).alias("rows")
    return table.observe(seen, number), lambda: int(seen.get["rows"])
