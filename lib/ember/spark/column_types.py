"""The columns that jobs add to the rows of their input, with their types."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from ember.worker.models.chunks import CHUNK_COLUMNS

__all__ = ["TYPES"]

TYPES: Mapping[str, DataType] = {
    "embedding": ArrayType(FloatType()),
    "predictions": ArrayType(
        StructType(
            [
                StructField("index", IntegerType()),
                StructField("label", StringType()),
                StructField("score", FloatType()),
            ]
        )
    ),
    "description": StringType(),
    "status": StringType(),
    "error": StringType(),
    **dict.fromkeys(CHUNK_COLUMNS, IntegerType()),
}
