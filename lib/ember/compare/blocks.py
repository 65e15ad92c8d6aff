"""Tables of embeddings as blocks: sorted, packed into matrices, put where tasks find them.

Rows are in the order of their ids; with groups (`within`), in the order of group and id, so that a
group lies in one block or in neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import (
    BinaryType,
    DataType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.models import is_local
from ember.similarity.block import Float32, Int64
from ember.similarity.node import Shelf, rows_at, to_ipc
from ember.similarity.projection import Basis, fit_basis
from ember.similarity.vectors import Vectors, read_vectors
from ember.storage import Storage

__all__ = [
    "BLOCK_BYTES",
    "Packed",
    "block_rows",
    "fit",
    "pack",
    "rejected_rows",
    "sampled",
]

# Of float32 values in a block. Large enough that a pair of blocks is seconds of work, small enough
# that a worker holds several.
BLOCK_BYTES = 16 << 20
_SAMPLE_ROWS = 8192
_PACKED = StructType(
    [
        StructField("part", IntegerType()),
        StructField("place", IntegerType()),
        StructField("rows", LongType()),
        StructField("first_group", StringType()),
        StructField("last_group", StringType()),
        StructField("ids", BinaryType()),
        StructField("groups", BinaryType()),
        StructField("matrix", BinaryType()),
        StructField("rejected", BinaryType()),
        StructField("rejected_rows", LongType()),
    ]
)


@dataclass(frozen=True)
class Packed:
    """A table of n valid vectors as blocks in Parquet files of one row each.

    files: URIs, in the order of the rows. firsts: the number of each block's first row. spans: with
    groups, the first and the last group of each block. local: every task sees the files under
    these paths; else Spark sends a copy to each node.
    """

    folder: str
    files: tuple[str, ...]
    firsts: tuple[int, ...]
    spans: tuple[tuple[str, str], ...] | None
    rows: int
    dimension: int
    id_type: DataType
    rejected: int
    local: bool

    def send(self, spark: SparkSession) -> None:
        """Have every node get the blocks, where they cannot be read in place."""
        if not self.local:
            for file in self.files:
                spark.sparkContext.addFile(file)

    def paths(self) -> list[str]:
        """On a worker: where this node has the files."""
        if self.local:
            return [file.removeprefix("file:") for file in self.files]
        return [SparkFiles.get(file.rpartition("/")[2]) for file in self.files]

    def shelf(self, basis: bytes, threads: int) -> Shelf:
        """On a worker: this node's copy of the blocks."""
        cache = str(Path(SparkFiles.getRootDirectory(), "ember-blocks"))
        return Shelf(self.paths(), self.firsts, Basis.from_bytes(basis), cache, threads)


def block_rows(dimension: int) -> int:
    """How many vectors of this length fill a block."""
    return max(1, BLOCK_BYTES // (4 * dimension))


def pack(
    rows: DataFrame, metric: str, dimension: int, folder: str, *, size: int, count: int
) -> Packed:
    """Write (id, embedding), or (id, embedding, group), as blocks of at most 2 `size` rows.

    count: about how many rows there are. Rows that cannot be compared (see
    ember.similarity.vectors) are set aside in the same files; `rejected_rows` reads them. Rows of
    equal ids are in an order that depends on their vectors only.
    """
    blocks = max(1, -(-count // size))
    group = [F.col("group")] if "group" in rows.columns else []
    order = [*group, F.col("id"), F.xxhash64("embedding")]
    # Not by the vectors' hash, too: to sample the keys, Spark would then read all vectors.
    ordered = rows.repartitionByRange(blocks, *order[:-1]).sortWithinPartitions(*order)
    packed = ordered.mapInArrow(_packer(metric, dimension, size), _PACKED)
    writer = packed.write.mode("overwrite").option("compression", "none")
    # Each value is a block: a dictionary of them would be a copy, and be thrown away.
    writer = writer.option("maxRecordsPerFile", "1").option("parquet.enable.dictionary", "false")
    writer.parquet(folder)
    return _open(rows.sparkSession, folder, rows.schema["id"].dataType, dimension)


def _packer(metric: str, dimension: int, size: int) -> Callable[..., Iterator[pa.RecordBatch]]:
    """Each partition becomes a block, or several where many rows have one id."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        part = context.partitionId() if context else 0
        block = _Block(part)
        for batch in batches:
            block.add(batch, read_vectors(batch.column(1), metric, dimension))
            while block.rows > 2 * size:
                yield block.take(size)
        if block.rows or block.rejected:
            yield block.take(block.rows)

    return run


class _Block:
    """Rows on their way into a packed block."""

    def __init__(self, part: int) -> None:
        self.part, self.place, self.rows = part, 0, 0
        self.kept: list[pa.RecordBatch] = []
        self.matrices: list[Float32] = []
        self.rejected: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch, vectors: Vectors) -> None:
        self.kept.append(batch.drop_columns(["embedding"]).filter(pa.array(vectors.kept)))
        # A copy: the batch's memory is Spark's.
        self.matrices.append(np.array(vectors.matrix, np.float32))
        self.rows += len(vectors.matrix)
        if vectors.reasons:
            bad = batch.column(0).take(pa.array(list(vectors.reasons), pa.int64()))
            reasons = pa.array(list(vectors.reasons.values()), pa.string())
            self.rejected.append(pa.RecordBatch.from_arrays([bad, reasons], names=["id", "reason"]))

    def take(self, count: int) -> pa.RecordBatch:
        """The first `count` rows, and all rejected ones, as a row of the packed table."""
        rows = pa.Table.from_batches(self.kept).combine_chunks()
        matrix = np.concatenate(self.matrices)
        groups = rows["group"].slice(0, count) if "group" in rows.column_names else None
        ends = (groups[0].as_py(), groups[-1].as_py()) if groups and count else (None, None)
        bad = pa.Table.from_batches(self.rejected) if self.rejected else None
        values = {
            "part": self.part,
            "place": self.place,
            "rows": count,
            "first_group": ends[0],
            "last_group": ends[1],
            "ids": to_ipc(rows.select(["id"]).slice(0, count)),
            "groups": None if groups is None else to_ipc(rows.select(["group"]).slice(0, count)),
            "matrix": matrix[:count].tobytes(),
            "rejected": to_ipc(bad) if bad else None,
            "rejected_rows": bad.num_rows if bad else 0,
        }
        self.kept = rows.slice(count).to_batches()
        self.matrices, self.rejected = [matrix[count:]], []
        self.rows, self.place = self.rows - count, self.place + 1
        types = to_arrow_schema(_PACKED)
        columns = [pa.array([values[field.name]], field.type) for field in types]
        return pa.RecordBatch.from_arrays(columns, schema=types)


def _open(spark: SparkSession, folder: str, id_type: DataType, dimension: int) -> Packed:
    """What `pack` wrote, put in order."""
    # The schema is given, so that no job has to find it.
    table = spark.read.schema(_PACKED).parquet(folder).drop("ids", "groups", "matrix", "rejected")
    found = sorted(
        table.withColumn("file", F.input_file_name()).collect(),
        key=lambda row: (row["part"], row["place"]),
    )
    filled = [row for row in found if row["rows"]]
    # Of the file's URI, which is encoded, only the name, which has nothing to encode.
    where = Storage(spark).qualify(folder)
    files = tuple(f"{where}/{row['file'].rpartition('/')[2]}" for row in filled)
    grouped = bool(filled) and filled[0]["first_group"] is not None
    counts = [row["rows"] for row in filled]
    return Packed(
        folder=where,
        files=files,
        firsts=tuple(sum(counts[:number]) for number in range(len(counts))),
        spans=tuple((row["first_group"], row["last_group"]) for row in filled) if grouped else None,
        rows=sum(counts),
        dimension=dimension,
        id_type=id_type,
        rejected=sum(row["rejected_rows"] for row in found),
        local=is_local(spark) and where.startswith("file:"),
    )


def rejected_rows(spark: SparkSession, folder: str, id_type: DataType) -> DataFrame:
    """The rows that `pack` set aside: (id, reason)."""
    schema = StructType([StructField("id", id_type), StructField("reason", StringType())])

    def unpack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for packed in batch.column(0).drop_null():
                with pa.ipc.open_stream(packed.as_buffer()) as stream:
                    yield from stream

    return spark.read.parquet(folder).select("rejected").mapInArrow(unpack, schema)


def fit(spark: SparkSession, packed: Packed, metric: str) -> bytes:
    """The basis that all blocks of a comparison share, fitted in a task; as `Basis.to_bytes`.

    On rows drawn by their numbers in the order of ids, so that it does not depend on partitions.
    """
    numbers = sampled(packed.rows, min(packed.rows, _SAMPLE_ROWS))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            sample = rows_at(packed.paths(), packed.firsts, numbers, packed.dimension)
            basis = fit_basis(sample, metric).to_bytes()
            yield pa.RecordBatch.from_pydict({"basis": pa.array([basis], pa.binary())})

    return bytes(spark.range(0, 1, 1, 1).mapInArrow(run, "basis binary").collect()[0]["basis"])


def sampled(rows: int, size: int) -> Int64:
    """Numbers of rows drawn without replacement, rising: the same in every run."""
    return np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
