"""Tables of few rows with large binary values: runs and blocks, and which file each row is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import DataType, StructField, StructType

from ember.storage import Storage

__all__ = ["read", "row", "schema", "write"]


def schema(**columns: DataType) -> StructType:
    """Columns of these types that may all be null."""
    return StructType([StructField(name, kind) for name, kind in columns.items()])


def row(schema: StructType, values: Mapping[str, Any]) -> pa.RecordBatch:
    """A batch of one row; buffers become binary values without a copy."""
    types = to_arrow_schema(schema)
    columns = []
    for each in types:
        value = values[each.name]
        if isinstance(value, pa.Buffer):
            ends = pa.py_buffer(np.array([0, value.size], np.int32))
            columns.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, value]))
        else:
            columns.append(pa.array([value], each.type))
    return pa.RecordBatch.from_arrays(columns, schema=types)


def write(table: DataFrame, folder: str, rows_per_file: int = 0) -> None:
    """Write a table of large values; rows_per_file 0: a file for each partition."""
    writer = table.write.mode("overwrite").option("maxRecordsPerFile", str(rows_per_file))
    # A dictionary of the values would be a copy, and be thrown away. With the first version of the
    # format and uncompressed they lie in the file as they are: see ember.similarity.node.
    writer = writer.option("compression", "none").option("parquet.enable.dictionary", "false")
    writer.option("parquet.writer.version", "v1").parquet(folder)


def read(
    spark: SparkSession, schema: StructType, folder: str, names: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Some columns of what `write` wrote, behind the URI of the row's file, sorted.

    The first two tell rows apart: raises RuntimeError where they do not, as after a task that was
    committed twice.
    """
    table = spark.read.schema(schema).parquet(folder).select(*names, F.input_file_name())
    # Of the file's URI, which is encoded, only the name, which has nothing to encode.
    where = Storage(spark).qualify(folder)
    found = sorted(tuple(row) for row in table.collect())
    if len({each[:2] for each in found}) < len(found):
        raise RuntimeError(f"a task has left its rows twice in {folder}; run the job again")
    return [(f"{where}/{file.rpartition('/')[2]}", *values) for *values, file in found]
