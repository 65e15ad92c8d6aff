"""Tables of few rows with large binary values: runs and blocks, and which file each row is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import DataType, IntegerType, StringType, StructField, StructType

from ember.spark.paths import literal
from ember.spark.session import is_local
from ember.spark.staged_files import name_of
from ember.spark.storage import Storage

__all__ = ["MATRIX", "Pack", "matrix_file", "schema", "seen_by_tasks", "write"]

# Makes of a partition the values of rows, by column. That of a column MATRIX is a matrix in parts,
# float32 arrays (n, d).
Pack = Callable[[Iterable[pa.RecordBatch]], Iterator[Mapping[str, Any]]]
MATRIX = "matrix"
_ENDING = ".parquet"
_NUMBERS = {"part": IntegerType(), "place": IntegerType()}
# A dictionary of the values would be a copy, and be thrown away; statistics would be several. With
# the first version of the format and uncompressed they lie in the file as they are: see
# ember.worker.vectors.block_cache.
_BY_SPARK = {
    "compression": "none",
    "parquet.enable.dictionary": "false",
    "parquet.writer.version": "v1",
}
_BY_ARROW: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_version": "1.0",
}


def schema(**columns: DataType) -> StructType:
    """Columns of these types that may all be null, behind `part` and `place` (see `write`)."""
    return StructType([StructField(*each) for each in (_NUMBERS | columns).items()])


def seen_by_tasks(spark: SparkSession, folder: str) -> bool:
    """Do all tasks see a folder under one path, as in local mode?"""
    return is_local(spark) and Storage(spark).qualify(folder).startswith("file:")


def matrix_file(file: str) -> str:
    """Where tasks that write themselves put the matrix of a file's row, in numpy's format."""
    return file.removesuffix(_ENDING) + ".npy"


def write(
    table: DataFrame,
    pack: Pack,
    schema: StructType,
    folder: str,
    names: Sequence[str],
    *,
    one_each: bool = False,
) -> list[tuple[Any, ...]]:
    """Write what `pack` makes of a table's partitions as Parquet files, in place of what is there.

    one_each: a file for each row; else one for each partition, with its rows in order. Needed where
        there is a column MATRIX. If all tasks see the folder, that column is null, and the matrix
        in `matrix_file`.

    Returns of each row the URI of its file, the partition that it is made of (`part`), its place
    among that partition's rows (`place`) and the columns `names`; sorted by part and place.

    Raises ValueError for matrices without `one_each`, RuntimeError where Spark has written two rows
    of one part and place, as after a task that was committed twice.
    """
    if MATRIX in schema.names and not one_each:
        raise ValueError(f"a file for each row is needed where there is a column {MATRIX}")
    spark = table.sparkSession
    folder = Storage(spark).qualify(folder)
    writer = _Writer(pack, schema, folder, [*_NUMBERS, *names], one_each)
    found = writer.by_tasks(table) if seen_by_tasks(spark, folder) else writer.by_spark(table)
    if len({row[:2] for row in found}) < len(found):
        raise RuntimeError(f"a task has left its rows twice in {folder}; run the job again")
    return [(f"{folder}/{name}", *values) for *values, name in sorted(found)]


@dataclass(frozen=True)
class _Writer:
    """What `write` was told. Both ways return the columns `names` of each row, and its file."""

    pack: Pack
    schema: StructType
    folder: str
    names: Sequence[str]
    one_each: bool

    def by_tasks(self, table: DataFrame) -> list[tuple[Any, ...]]:
        """Where tasks see the folder. Spark writes vectors at a third of the speed."""
        storage = Storage(table.sparkSession)
        storage.delete(self.folder)
        storage.make_folder(self.folder)
        unique = uuid4().hex  # a node tells files by their names

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            context = TaskContext.get()
            attempt = context.taskAttemptId() if context else 0
            rows = self.rows(batches)
            for some in ([row] for row in rows) if self.one_each else filter(None, [list(rows)]):
                part, place = (some[0][each] for each in _NUMBERS)
                name = f"{part:05}-{place:05}-{attempt}-{unique}{_ENDING}"
                stored = self.store(some, name)
                files = pa.array([name] * len(stored))
                yield from stored.select(self.names).append_column("file", files).to_batches()

        told = StructType([self.schema[name] for name in self.names]).add("file", StringType())
        found = [tuple(row) for row in table.mapInArrow(run, told).collect()]
        written = {each for *_, name in found for each in (name, matrix_file(name))}
        for file in storage.files(self.folder):
            if name_of(file) not in written:  # of an attempt that failed
                storage.delete(file)
        return found

    def store(self, rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
        """In a task that sees the folder: write a file of some rows, and their matrix beside it."""
        path = f"{self.folder.removeprefix('file:')}/{name}"
        stored = pa.Table.from_batches([self.batch({**row, MATRIX: None}) for row in rows])
        try:
            for row in rows:
                if parts := row.get(MATRIX):
                    _write_matrix(parts, matrix_file(path))
            pq.write_table(stored, path, **_BY_ARROW)
        except OSError as error:  # of a write, which does not say to what file
            raise OSError(error.errno, error.strerror or str(error), path) from error
        return stored

    def by_spark(self, table: DataFrame) -> list[tuple[Any, ...]]:
        """Where only Spark can reach the folder."""

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for row in self.rows(batches):
                parts = row.get(MATRIX)
                matrix = pa.py_buffer(np.concatenate(parts)) if parts else None
                yield self.batch({**row, MATRIX: matrix})

        writer = table.mapInArrow(run, self.schema).write.mode("overwrite").options(**_BY_SPARK)
        writer.option("maxRecordsPerFile", str(int(self.one_each))).parquet(self.folder)
        # The schema is given, so that no job has to find it.
        stored = table.sparkSession.read.schema(self.schema).parquet(literal(self.folder))
        rows = stored.select(*self.names, F.input_file_name()).collect()
        # Of the file's URI, which is encoded, only the name, which has nothing to encode.
        return [(*values, file.rpartition("/")[2]) for *values, file in rows]

    def rows(self, batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        """Values of the rows of a partition, numbered."""
        context = TaskContext.get()
        part = context.partitionId() if context else 0
        for place, packed in enumerate(self.pack(batches)):
            yield {"part": part, "place": place, **packed}

    def batch(self, values: Mapping[str, Any]) -> pa.RecordBatch:
        """A batch of one row; buffers become binary values without a copy."""
        columns, types = [], to_arrow_schema(self.schema)
        for each in types:
            value = values[each.name]
            if isinstance(value, pa.Buffer):
                ends = pa.py_buffer(np.array([0, value.size], np.int32))
                columns.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, value]))
            else:
                columns.append(pa.array([value], each.type))
        return pa.RecordBatch.from_arrays(columns, schema=types)


def _write_matrix(parts: Sequence[NDArray[Any]], path: str) -> None:
    """The rows of some arrays as one matrix in numpy's format."""
    rows, kind = sum(map(len, parts)), parts[0].dtype
    header = {"descr": kind.str, "fortran_order": False, "shape": (rows, parts[0].shape[1])}
    with Path(path).open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part).data)
