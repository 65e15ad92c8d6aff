"""What older versions of Spark lack, each with what does the same there.

Which versions run which jobs: docs/compatibility.md. A setting that older ones do not know is left
to where it is set, as batches of Arrow by their bytes (Spark 4.1) in `read_batches`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import signature
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, types
from pyspark.sql import functions as F
from pyspark.sql.conf import RuntimeConfig
from pyspark.sql.pandas.types import to_arrow_schema

__all__ = [
    "NOT_COMPARABLE",
    "arrow_schema",
    "as_dicts",
    "collation",
    "error_condition",
    "is_valid_utf8",
    "make_valid_utf8",
    "query_context_logger",
    "settings_given",
]

# Atomic types of which no two values can be compared: since Spark 4.0, and 4.1.
NOT_COMPARABLE: tuple[type[types.DataType], ...] = tuple(
    getattr(types, name) for name in ("VariantType", "SpatialType") if hasattr(types, name)
)
_QUERY_CONTEXT = "SQLQueryContextLogger"


def as_dicts(rows: DataFrame) -> list[Mapping[str, Any]]:
    """All rows on the driver, each by column in Python's types."""
    if hasattr(DataFrame, "toArrow"):
        table = rows.toArrow()
    else:
        frame: Any = rows
        batches: list[pa.RecordBatch] = frame._collect_as_arrow()
        table = pa.Table.from_batches(batches, None if batches else arrow_schema(rows.schema))
    return list(table.to_pylist())


def arrow_schema(schema: types.StructType) -> pa.Schema:
    """The schema in Arrow's types, timestamps in UTC, which Spark 4.2 has to be told."""
    convert: Callable[..., pa.Schema] = to_arrow_schema
    told = {"timezone": "UTC"} if "timezone" in signature(convert).parameters else {}
    return convert(schema, **told)


def error_condition(error: PySparkException) -> str:
    """The name of what went wrong, such as PATH_NOT_FOUND; "" where Spark gives none."""
    # What Spark 3.5 calls a class, 4.0 calls a condition.
    condition: Any = getattr(error, "getCondition", None) or error.getErrorClass
    return condition() or ""


def settings_given(spark: SparkSession) -> dict[str, str]:
    """The settings of the session that anybody has given a value."""
    if hasattr(RuntimeConfig, "getAll"):
        return dict(spark.conf.getAll)
    return {row["key"]: row["value"] for row in spark.sql("SET").collect()}


def collation(kind: types.StringType) -> str:
    """By which strings are equal; those of Spark 3.5 are where their bytes are."""
    return getattr(kind, "collation", "UTF8_BINARY")


def make_valid_utf8(text: Column) -> Column:
    """The text with U+FFFD in the places of bytes that are no UTF-8."""
    if hasattr(F, "make_valid_utf8"):
        return F.make_valid_utf8(text)
    return F.decode(text.cast("binary"), "UTF-8")  # as Java does, where Spark 4 refuses them


def is_valid_utf8(text: Column) -> Column:
    if hasattr(F, "is_valid_utf8"):
        return F.is_valid_utf8(text)
    return make_valid_utf8(text).cast("binary") == text.cast("binary")


def query_context_logger() -> logging.Logger:
    """What logs, as JSON, each error in SQL, since Spark 4.0."""
    with suppress(ImportError):
        from pyspark.logger import PySparkLogger

        return PySparkLogger.getLogger(_QUERY_CONTEXT)
    return logging.getLogger(_QUERY_CONTEXT)
