"""A table by way of files, where Spark's own checkpoints would need a directory of the session."""

from __future__ import annotations

from pyspark.sql import DataFrame

from ember.spark.paths import literal

__all__ = ["stored"]


def stored(table: DataFrame, folder: str) -> DataFrame:
    """The table, written to `folder` in place of what is there, so that nobody makes it again."""
    table.write.mode("overwrite").parquet(folder)
    return table.sparkSession.read.schema(table.schema).parquet(literal(folder))
