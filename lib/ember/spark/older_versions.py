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
from py4j.protocol import Py4JError
from pyspark import inheritable_thread_target
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, types
from pyspark.sql import functions as F
from pyspark.sql.conf import RuntimeConfig
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

__all__ = [
    "NOT_COMPARABLE",
    "arrow_schema",
    "as_arrow",
    "as_dicts",
    "collation",
    "error_condition",
    "file_path",
    "from_arrow",
    "has_setting",
    "inheriting",
    "is_valid_utf8",
    "make_valid_utf8",
    "query_context_logger",
    "settings_given",
    "since_epoch",
    "try_cast",
]

# Atomic types of which no two values can be compared: since Spark 4.0, and 4.1.
NOT_COMPARABLE: tuple[type[types.DataType], ...] = tuple(
    getattr(types, name) for name in ("VariantType", "SpatialType") if hasattr(types, name)
)
_SINCE_4_0 = hasattr(DataFrame, "toArrow")
_QUERY_CONTEXT = "SQLQueryContextLogger"


def as_arrow(rows: DataFrame) -> pa.Table:
    """All rows on the driver."""
    if _SINCE_4_0:
        return rows.toArrow()
    frame: Any = rows
    batches: list[pa.RecordBatch] = frame._collect_as_arrow()
    return pa.Table.from_batches(batches, None if batches else arrow_schema(rows.schema))


def as_dicts(rows: DataFrame) -> list[Mapping[str, Any]]:
    """All rows on the driver, each by column in Python's types."""
    return list(as_arrow(rows).to_pylist())


def arrow_schema(schema: types.StructType) -> pa.Schema:
    """The schema in Arrow's types, timestamps in UTC, which Spark 4.2 has to be told."""
    convert: Callable[..., pa.Schema] = to_arrow_schema
    told = {"timezone": "UTC"} if "timezone" in signature(convert).parameters else {}
    return convert(schema, **told)


def file_path(table: DataFrame) -> Column:
    """The file that a row was read from."""
    if _SINCE_4_0:
        return table.metadataColumn("_metadata")["file_path"]
    return F.col("_metadata.file_path")


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """A small table as a DataFrame."""
    if _SINCE_4_0:
        return spark.createDataFrame(table)
    rows = [tuple(row.values()) for row in table.to_pylist()]
    return spark.createDataFrame(rows, from_arrow_schema(table.schema))


def inheriting(spark: SparkSession, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` for another thread, with this one's local properties, and tags since Spark 4.0."""
    wrap: Any = inheritable_thread_target
    wrapped: Callable[..., Any] = wrap(spark)(call) if _SINCE_4_0 else wrap(call)
    return wrapped


def error_condition(error: PySparkException) -> str:
    """The name of what went wrong, such as PATH_NOT_FOUND; "" where Spark gives none."""
    # What Spark 3.5 calls a class, 4.0 calls a condition.
    condition: Any = getattr(error, "getCondition", None) or error.getErrorClass
    return condition() or ""


def since_epoch(time: Column) -> Column:
    """A timestamp without a zone as a number: its distance from 1970, in one unit for all rows."""
    if hasattr(F, "timestamp_diff"):
        epoch = F.lit("1970-01-01").cast("timestamp_ntz")
        return F.timestamp_diff("MICROSECOND", epoch, time)
    day = F.unix_date(time.cast("date")).cast("bigint")
    # Of the second with its fraction, a decimal.
    second = F.date_part(F.lit("SECOND"), time)
    return 86_400 * day + 60 * (60 * F.hour(time) + F.minute(time)) + second


def settings_given(spark: SparkSession) -> dict[str, str]:
    """The settings of the session that anybody has given a value."""
    if hasattr(RuntimeConfig, "getAll"):
        return dict(spark.conf.getAll)
    return {row["key"]: row["value"] for row in spark.sql("SET").collect()}


def has_setting(spark: SparkSession, key: str) -> bool:
    """Whether this version knows a setting of that name, whatever its value."""
    try:
        spark.conf.get(key)
    except (PySparkException, Py4JError):  # in Spark 3.5 Java's own
        return False
    return True


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


def try_cast(value: Column, kind: str) -> Column:
    """The value in another type, null where it has none; in Spark 3.5 unless `ansi` is set."""
    return value.try_cast(kind) if _SINCE_4_0 else value.cast(kind)


def query_context_logger() -> logging.Logger:
    """What logs, as JSON, each error in SQL, since Spark 4.0."""
    with suppress(ImportError):
        from pyspark.logger import PySparkLogger

        return PySparkLogger.getLogger(_QUERY_CONTEXT)
    return logging.getLogger(_QUERY_CONTEXT)
