"""The first half of packing: vectors as they lie in the table, in files of one row each.

One pass, without a shuffle: the vectors stay where Spark read them, and only their ids are sorted
(ember.comparison.blocks). A run holds vectors of one length, so that the lengths that a table mixes
are counted while it is packed; rows of rare lengths are only noted.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.comparison import vector_store
from ember.errors import InvalidInput
from ember.spark.dimensions import common_length
from ember.worker.vectors.arrays import Stored
from ember.worker.vectors.block_cache import to_ipc
from ember.worker.vectors.vectors import (
    NO_LENGTH,
    NULL,
    by_length,
    read_vectors,
    wrong_length,
)

__all__ = [
    "BLOCK_BYTES",
    "SORTED_ROWS",
    "Run",
    "Runs",
    "batches_of",
    "block_rows",
    "rejected_rows",
    "sorted_ids",
    "write",
]

# Of float32 values in a run, and in a block. Large enough that a pair of blocks is seconds of work,
# small enough that a worker holds several.
BLOCK_BYTES = 16 << 20
# Of ids to sort: with fewer, a task takes longer to start than to run.
SORTED_ROWS = 1 << 18
# Lengths of which a task keeps vectors; those of the rarest it gives up when there are more.
_LENGTHS = 16
# In the place of a length: of rows that are of several lengths.
_SEVERAL = -2
# ids: id, group where there are groups, and a hash of the vector, as an Arrow IPC stream.
# rejected: id, group, length and reason (null where it is the length), as another. What other
# columns the rows have is with both.
_RUN = vector_store.schema(
    length=IntegerType(),
    rows=LongType(),
    rejected_rows=LongType(),
    ungrouped=LongType(),
    lengths=StringType(),
    ids=BinaryType(),
    matrix=BinaryType(),
    rejected=BinaryType(),
)


@dataclass(frozen=True)
class Run:
    """What a file of runs holds.

    length: of its vectors; negative where there are none. rows: usable vectors. rejected: rows set
    aside. ungrouped: rows that belong to no group. lengths: how many vectors of each length it
    stands for, usable or not, as JSON.
    """

    file: str
    length: int
    rows: int
    rejected: int
    ungrouped: int
    lengths: str


@dataclass(frozen=True)
class Runs:
    """A table's rows as `write` has put them into files under a folder."""

    folder: str
    id_type: DataType
    grouped: bool
    kind: str  # of values: float32 | float64
    runs: tuple[Run, ...]

    def dimension(self, shown: str, max_failed_fraction: float) -> int:
        """The length of the table's vectors, 0 where there are none; see `common_length`."""
        counts, given_up = self._lengths()
        dimension = common_length(counts, shown, max_failed_fraction)
        if dimension in given_up:
            raise InvalidInput(
                f"{shown} has vectors of {len(counts)} lengths, most of them of {dimension} "
                "dimensions; compare one kind at a time"
            )
        return dimension

    def mostly(self, dimension: int) -> bool:
        """Is this the length of most vectors, and of none that were given up?"""
        counts, given_up = self._lengths()
        return not counts or (
            dimension not in given_up and counts[dimension] == max(counts.values())
        )

    def _lengths(self) -> tuple[Counter[int], set[int]]:
        """How many vectors of each length there are; and lengths of which some were given up."""
        counts: Counter[int] = Counter()
        given_up: set[int] = set()
        for run in self.runs:
            found = {int(length): rows for length, rows in json.loads(run.lengths).items()}
            counts.update(found)
            if run.length == _SEVERAL:
                given_up |= found.keys()
        return counts, given_up

    @property
    def ungrouped(self) -> int | None:
        """Rows that belong to no group; None where no groups are asked for."""
        return sum(run.ungrouped for run in self.runs) if self.grouped else None

    def rejected(self, dimension: int) -> int:
        """How many rows cannot be compared with vectors of a length."""
        return sum(run.rejected + (run.rows if run.length != dimension else 0) for run in self.runs)


def block_rows(dimension: int, kind: str = "float32") -> int:
    """How many vectors of this length, of values of this kind, fill a block."""
    return _fill(BLOCK_BYTES, np.dtype(kind).itemsize, dimension)


def write(rows: DataFrame, metric: str, folder: str, *, exact: bool = True) -> Runs:
    """Write (id, embedding), or (id, embedding, group), as runs; rows of no group are left out.

    Rows that cannot be compared, whatever their length (see ember.worker.vectors.vectors), are set
    aside in the same files. exact: doubles stay doubles, else they are rounded to float32.
    """
    names = ("length", "rows", "rejected_rows", "ungrouped", "lengths")
    vector = rows.schema["embedding"].dataType
    doubles = isinstance(vector, ArrayType) and isinstance(vector.elementType, DoubleType)
    kind = "float64" if doubles and exact else "float32"
    # The size as it is now: workers have this module, too.
    pack = _packer(metric, kind, partial(_fill, BLOCK_BYTES, np.dtype(kind).itemsize))
    found = vector_store.write(rows, pack, _RUN, folder, names, one_each=True)
    runs = tuple(Run(file, *values) for file, _, _, *values in found)
    return Runs(folder, rows.schema["id"].dataType, "group" in rows.columns, kind, runs)


def _fill(block_bytes: int, value_bytes: int, dimension: int) -> int:
    return max(1, block_bytes // (value_bytes * max(1, dimension)))


def rejected_rows(
    spark: SparkSession,
    folder: str,
    id_type: DataType,
    dimension: int,
    beside: Sequence[str] = (),
) -> DataFrame:
    """The rows that cannot be compared with vectors of a length: (id, reason).

    beside: columns of texts that came with the rows, and are given behind these.
    """
    texts = [StructField(name, StringType()) for name in ("reason", *beside)]
    schema = StructType([StructField("id", id_type), *texts])

    def told(length: int, reason: str | None) -> str:
        other = length not in (dimension, NO_LENGTH) and reason != NULL
        return wrong_length(length, dimension) if other else str(reason)

    def given(rows: pa.RecordBatch, reasons: pa.Array) -> pa.RecordBatch:
        more = {name: rows[name] for name in beside}
        return pa.RecordBatch.from_pydict({"id": rows["id"], "reason": reasons, **more})

    def unpack(_: int, run: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for rows in batches_of(run, "rejected"):
            pairs = zip(rows["length"].to_pylist(), rows["reason"].to_pylist(), strict=True)
            reasons = pa.array([told(*pair) for pair in pairs], pa.string())
            yield given(rows, reasons)
        length = run.column("length")[0].as_py()
        for rows in batches_of(run, "ids") if length != dimension else ():
            yield given(rows, pa.repeat(told(length, None), len(rows)))

    files, local = vector_store.files(spark, folder), vector_store.seen_by_tasks(spark, folder)
    vector_store.send(spark, files, local)
    return vector_store.rows(spark, files, local, unpack, schema)


def sorted_ids(
    spark: SparkSession,
    files: Sequence[str],
    edges: Sequence[int],
    *,
    local: bool,
    id_type: DataType,
    grouped: bool,
    most: int,
) -> DataFrame:
    """The ids in files that have `ids`, sorted: (id, group where there are groups, hash, place).

    edges: the place of each file's first row, and the number of all rows. most: rows of a task.
    """
    group = [StructField("group", StringType())] if grouped else []
    columns = [StructField("id", id_type), *group, StructField("hash", LongType())]
    schema = StructType([*columns, StructField("place", LongType())])
    names = [column.name for column in columns]

    def unpack(number: int, row: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        place = edges[number]
        for ids in batches_of(row, "ids"):
            places = np.arange(place, place + len(ids), dtype=np.int64)
            yield ids.select(names).append_column("place", pa.array(places))
            place += len(ids)

    keys = ["group", "id"] if grouped else ["id"]
    parts = max(1, -(-edges[-1] // most))
    table = vector_store.rows(spark, files, local, unpack, schema)
    # One task needs no sample by which ranges are found.
    spread = table.repartitionByRange(parts, *keys) if parts > 1 else table.repartition(1)
    return spread.sortWithinPartitions(*keys, "hash")


def batches_of(run: pa.RecordBatch, column: str) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow IPC stream in a run: of `ids` or `rejected`, see `_RUN`."""
    if run.column(column)[0].is_valid:
        yield from pa.ipc.open_stream(run.column(column)[0].as_buffer())


def _packer(metric: str, kind: str, rows_of: Callable[[int], int]) -> vector_store.Pack:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[Mapping[str, Any]]:
        filling: dict[int, _Filling] = {}
        rare = _Filling(_SEVERAL)
        for batch in batches:
            for length, rows in by_length(batch):
                filled = filling.setdefault(length, _Filling(length))
                filled.add(rows, metric, exact=kind == "float64")
                size = rows_of(length)
                while filled.rows >= size:
                    yield filled.take(size)
            if len(filling) > _LENGTHS:
                by_rows = sorted(filling.values(), key=lambda each: each.rows)
                for few in by_rows[: -_LENGTHS // 2]:
                    rare.give_up(filling.pop(few.length))
        for rest in (*filling.values(), rare):
            if rest.rows or rest.lengths or rest.rejected or rest.ungrouped:
                yield rest.take(rest.rows)

    return run


@dataclass
class _Filling:
    """Rows on their way into a run. Vectors stay in Arrow's memory until they are taken."""

    length: int
    rows: int = 0
    ungrouped: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    kept: list[pa.RecordBatch] = field(default_factory=list)
    matrices: deque[Stored] = field(default_factory=deque)
    rejected: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch, metric: str | None, *, exact: bool) -> None:
        if self.length != NO_LENGTH:
            self.lengths[self.length] += len(batch)
        if "group" in batch.schema.names and batch.column("group").null_count:
            self.ungrouped += batch.column("group").null_count
            batch = batch.filter(batch.column("group").is_valid())
        # Without values there is no norm: what is wrong with such a row is its length.
        metric = metric if self.length else None
        column = batch.column("embedding")
        vectors = read_vectors(column, metric, max(0, self.length), exact=exact)
        columns = batch.drop_columns(["embedding"])
        if vectors.reasons:
            bad = columns.take(pa.array(list(vectors.reasons), pa.int64()))
            self._reject(bad, list(vectors.reasons.values()))
            columns = columns.filter(pa.array(vectors.kept))
        hashes = map(zlib.crc32, vectors.matrix)
        hashed = pa.array(np.fromiter(hashes, np.int64, len(vectors.matrix)))
        self.kept.append(columns.append_column("hash", hashed))
        self.matrices.append(vectors.matrix)
        self.rows += len(vectors.matrix)

    def _reject(
        self, rows: pa.RecordBatch, reasons: list[str | None], length: int | None = None
    ) -> None:
        """Note rows with all columns that they have but for their vectors."""
        lengths = pa.repeat(self.length if length is None else length, len(rows))
        noted = rows.append_column("length", lengths)
        self.rejected.append(noted.append_column("reason", pa.array(reasons, pa.string())))

    def give_up(self, other: _Filling) -> None:
        """Note the rows of another length without their vectors."""
        for batch in other.kept:
            self._reject(batch.drop_columns(["hash"]), [None] * len(batch), other.length)
        self.rejected += other.rejected
        self.lengths.update(other.lengths)
        self.ungrouped += other.ungrouped

    def take(self, size: int) -> Mapping[str, Any]:
        """The first `size` rows, and all that is noted beside them, as values of `_RUN`."""
        rows = pa.Table.from_batches(self.kept) if self.kept else pa.table({})
        bad = pa.Table.from_batches(self.rejected) if self.rejected else None
        packed = {
            "length": self.length,
            "rows": size,
            "rejected_rows": bad.num_rows if bad else 0,
            "ungrouped": self.ungrouped,
            "lengths": json.dumps(self.lengths),
            "ids": to_ipc(rows.slice(0, size)) if size else None,
            "matrix": self._take_matrix(size),
            "rejected": to_ipc(bad) if bad else None,
        }
        self.kept, self.rejected = rows.slice(size).to_batches(), []
        self.rows, self.ungrouped, self.lengths = self.rows - size, 0, Counter()
        return packed

    def _take_matrix(self, size: int) -> list[Stored]:
        parts: list[Stored] = []
        while size:
            matrix = self.matrices.popleft()
            if len(matrix) > size:
                self.matrices.appendleft(matrix[size:])
                matrix = matrix[:size]
            parts.append(matrix)
            size -= len(matrix)
        return parts
