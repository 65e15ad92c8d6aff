"""How Ember writes Parquet where the user's own settings leave it open."""

from __future__ import annotations

from pyspark.sql import SparkSession

from ember.spark.older_versions import settings_given

__all__ = ["parquet_options"]

_CODEC = "spark.sql.parquet.compression.codec"


def parquet_options(spark: SparkSession) -> dict[str, str]:
    """Options of a writer: zstd, of which vectors take a tenth less than of Spark's snappy.

    Byte-stream split would save as much again, and not every Spark reads it. What was measured is
    in docs/performance.md.
    """
    return {} if _CODEC in settings_given(spark) else {"compression": "zstd"}
