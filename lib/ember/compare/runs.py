"""The first half of packing: vectors as they lie in the table, in files of one row each.

One pass, without a shuffle: the vectors stay where Spark read them, and only their ids are sorted
(ember.compare.blocks). A run holds vectors of one length, so that the lengths that a table mixes
are counted while it is packed.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    BinaryType,
    DataType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.compare import packed_files
from ember.similarity.block import Float32
from ember.similarity.node import to_ipc
from ember.similarity.vectors import read_vectors, wrong_length

__all__ = [
    "BLOCK_BYTES",
    "Run",
    "Runs",
    "block_rows",
    "read",
    "rejected_rows",
    "write",
]

# Of float32 values in a run, and in a block. Large enough that a pair of blocks is seconds of work,
# small enough that a worker holds several.
BLOCK_BYTES = 16 << 20
# Lengths of which a task gathers rows at once; a table of more is no table of embeddings.
_LENGTHS = 16
_NONE = -1
_RUN = packed_files.schema(
    part=IntegerType(),
    place=IntegerType(),
    length=IntegerType(),
    rows=LongType(),
    counted=LongType(),
    rejected_rows=LongType(),
    ungrouped=LongType(),
    ids=BinaryType(),
    matrix=BinaryType(),
    rejected=BinaryType(),
)


@dataclass(frozen=True)
class Run:
    """What a file of runs holds.

    part, place: of the table, by which runs are ordered. length: of its vectors; -1 for none.
    rows: usable vectors. counted: vectors of this length, usable or not. rejected: rows set aside.
    ungrouped: rows that belong to no group.
    """

    file: str
    part: int
    place: int
    length: int
    rows: int
    counted: int
    rejected: int
    ungrouped: int


@dataclass(frozen=True)
class Runs:
    """A table's rows as `write` has put them into files under a folder."""

    folder: str
    id_type: DataType
    grouped: bool
    runs: tuple[Run, ...]

    def lengths(self) -> dict[int, int]:
        """How many vectors there are of each length."""
        counts: dict[int, int] = {}
        for run in self.runs:
            if run.length != _NONE:
                counts[run.length] = counts.get(run.length, 0) + run.counted
        return counts

    @property
    def ungrouped(self) -> int | None:
        """Rows that belong to no group; None where no groups are asked for."""
        return sum(run.ungrouped for run in self.runs) if self.grouped else None

    def rejected(self, dimension: int) -> int:
        """How many rows cannot be compared with vectors of a length."""
        return sum(run.rejected + (run.rows if run.length != dimension else 0) for run in self.runs)


def block_rows(dimension: int) -> int:
    """How many vectors of this length fill a block."""
    return max(1, BLOCK_BYTES // (4 * max(1, dimension)))


def write(rows: DataFrame, metric: str, folder: str) -> Runs:
    """Write (id, embedding), or (id, embedding, group), as runs; rows of no group are left out.

    Rows that cannot be compared, whatever their length (see ember.similarity.vectors), are set
    aside in the same files.
    """
    packed_files.write(rows.mapInArrow(_packer(metric, BLOCK_BYTES), _RUN), folder, rows_per_file=1)
    names = ("part", "place", "length", "rows", "counted", "rejected_rows", "ungrouped")
    found = packed_files.read(rows.sparkSession, _RUN, folder, names)
    runs = tuple(Run(*row) for row in found)
    return Runs(folder, rows.schema["id"].dataType, "group" in rows.columns, runs)


def rejected_rows(spark: SparkSession, folder: str, id_type: DataType, dimension: int) -> DataFrame:
    """The rows that cannot be compared with vectors of a length: (id, reason)."""
    schema = StructType([StructField("id", id_type), StructField("reason", StringType())])

    def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                if row["rejected"] is not None:
                    yield from pa.ipc.open_stream(row["rejected"])
                if row["ids"] is not None and row["length"] != dimension:
                    reason = wrong_length(row["length"], dimension)
                    for rows in pa.ipc.open_stream(row["ids"]):
                        reasons = pa.repeat(reason, len(rows))
                        yield pa.RecordBatch.from_pydict(
                            {"id": rows.column("id"), "reason": reasons}
                        )

    return read(spark, folder).select("length", "ids", "rejected").mapInArrow(unpack, schema)


def read(spark: SparkSession, folder: str) -> DataFrame:
    """Runs as a table: part, place, length, ids, matrix, rejected and what else `Run` has.

    ids: id, group where there are groups, and a hash of the vector, as an Arrow IPC stream.
    matrix: float32 row by row. rejected: id and reason, as an Arrow IPC stream.
    """
    # The schema is given, so that no job has to find it.
    return spark.read.schema(_RUN).parquet(folder)


def _packer(metric: str, block_bytes: int) -> Callable[..., Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        part, places = context.partitionId() if context else 0, count()
        filling: dict[int, _Filling] = {}
        for batch in batches:
            for length, rows in _by_length(batch):
                filled = filling.setdefault(length, _Filling(length))
                filled.add(rows, metric)
                size = max(1, block_bytes // (4 * max(1, length)))
                while filled.rows >= size:
                    yield filled.take(size, part, next(places))
            if len(filling) > _LENGTHS:
                yield from _rest(filling, part, places)
        yield from _rest(filling, part, places)

    return run


def _rest(
    filling: dict[int, _Filling], part: int, places: Iterator[int]
) -> Iterator[pa.RecordBatch]:
    for each in filling.values():
        if each.rows or each.counted:
            yield each.take(each.rows, part, next(places))
    filling.clear()


def _by_length(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    found = pc.fill_null(pc.list_value_length(batch.column("embedding")), _NONE)
    each = pc.unique(found).to_pylist()
    for length in each:
        yield length, batch if len(each) == 1 else batch.filter(pc.equal(found, length))


@dataclass
class _Filling:
    """Rows on their way into a run. Vectors stay in Arrow's memory until they are taken."""

    length: int
    rows: int = 0
    counted: int = 0
    ungrouped: int = 0
    kept: list[pa.RecordBatch] = field(default_factory=list)
    matrices: deque[Float32] = field(default_factory=deque)
    rejected: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch, metric: str) -> None:
        self.counted += len(batch)
        if "group" in batch.schema.names and batch.column("group").null_count:
            self.ungrouped += batch.column("group").null_count
            batch = batch.filter(batch.column("group").is_valid())
        vectors = read_vectors(batch.column("embedding"), metric, max(0, self.length))
        columns = batch.drop_columns(["embedding"])
        if vectors.reasons:
            bad = columns.column("id").take(pa.array(list(vectors.reasons), pa.int64()))
            reasons = pa.array(list(vectors.reasons.values()), pa.string())
            self.rejected.append(pa.RecordBatch.from_arrays([bad, reasons], names=["id", "reason"]))
            columns = columns.filter(pa.array(vectors.kept))
        hashes = map(zlib.crc32, vectors.matrix)
        hashed = pa.array(np.fromiter(hashes, np.int64, len(vectors.matrix)))
        self.kept.append(columns.append_column("hash", hashed))
        self.matrices.append(vectors.matrix)
        self.rows += len(vectors.matrix)

    def take(self, size: int, part: int, place: int) -> pa.RecordBatch:
        """The first `size` rows, and all that is noted beside them, as a row of `_RUN`."""
        rows = pa.Table.from_batches(self.kept)
        bad = pa.Table.from_batches(self.rejected) if self.rejected else None
        packed = packed_files.row(
            _RUN,
            {
                "part": part,
                "place": place,
                "length": self.length,
                "rows": size,
                "counted": self.counted,
                "rejected_rows": bad.num_rows if bad else 0,
                "ungrouped": self.ungrouped,
                "ids": to_ipc(rows.slice(0, size)) if size else None,
                "matrix": self._take_matrix(size) if size else None,
                "rejected": to_ipc(bad) if bad else None,
            },
        )
        self.kept, self.rejected = rows.slice(size).to_batches(), []
        self.rows, self.counted, self.ungrouped = self.rows - size, 0, 0
        return packed

    def _take_matrix(self, size: int) -> pa.Buffer:
        parts = []
        while size:
            matrix = self.matrices.popleft()
            if len(matrix) > size:
                self.matrices.appendleft(matrix[size:])
                matrix = matrix[:size]
            parts.append(matrix)
            size -= len(matrix)
        return pa.py_buffer(np.concatenate(parts))
