"""Tables of embeddings as blocks: sorted, packed into matrices, put where tasks find them.

Rows are in the order of their ids; with groups (`within`), in the order of group and id, so that a
group lies in one block or in neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

from ember.errors import InvalidInput
from ember.models import is_local
from ember.similarity.node import Shelf, to_ipc
from ember.similarity.projection import Basis, fit_basis
from ember.similarity.vectors import read_vectors
from ember.storage import Storage

__all__ = [
    "BLOCK_BYTES",
    "Packed",
    "block_rows",
    "dimension_of",
    "fit",
    "pack",
    "rejected_rows",
]

# Of float32 values in a block. Large enough that a pair of blocks is seconds of work, small enough
# that a worker holds several.
BLOCK_BYTES = 16 << 20
_SAMPLE_ROWS = 8192
_PACKED = StructType(
    [
        StructField("part", IntegerType()),
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

    def shelf(self, basis: bytes, threads: int) -> Shelf:
        """On a worker: this node's copy of the blocks."""
        names = [file.rpartition("/")[2] for file in self.files]
        paths = (
            [file.removeprefix("file:") for file in self.files]
            if self.local
            else [SparkFiles.get(name) for name in names]
        )
        cache = str(Path(SparkFiles.getRootDirectory(), "ember-blocks"))
        return Shelf(paths, self.firsts, Basis.from_bytes(basis), cache, threads)


def block_rows(dimension: int) -> int:
    """How many vectors of this length fill a block."""
    return max(1, BLOCK_BYTES // (4 * dimension))


def dimension_of(rows: DataFrame, shown: str, max_failed_fraction: float) -> int:
    """The length of the vectors of (id, embedding); 0 when there is none.

    A few rows of another length are rejected later. More than the ceiling allows cannot be meant:
    raises InvalidInput that names both lengths.
    """
    length = F.size("embedding").alias("length")
    counts = rows.filter("embedding is not null").groupBy(length).count().collect()
    lengths = sorted(((row["count"], row["length"]) for row in counts), reverse=True)
    if not lengths:
        return 0
    others = sum(count for count, _ in lengths[1:])
    if others > max_failed_fraction * sum(count for count, _ in lengths):
        raise InvalidInput(
            f"{shown} mixes vectors of {lengths[0][1]} and {lengths[1][1]} dimensions "
            f"({lengths[0][0]} and {lengths[1][0]} rows); compare one kind at a time"
        )
    return int(lengths[0][1])


def pack(rows: DataFrame, metric: str, dimension: int, folder: str, size: int) -> Packed:
    """Write (id, embedding), or (id, embedding, group), as blocks of about `size` rows.

    Rows that cannot be compared (see ember.similarity.vectors) are set aside in the same files;
    `rejected_rows` reads them. Rows of equal ids are in an order that depends on their vectors
    only.
    """
    blocks = max(1, -(-rows.count() // size))
    group = [F.col("group")] if "group" in rows.columns else []
    order = [*group, F.col("id"), F.xxhash64("embedding")]
    ordered = rows.repartitionByRange(blocks, *order).sortWithinPartitions(*order)
    packed = ordered.mapInArrow(_packer(metric, dimension), _PACKED)
    packed.write.mode("overwrite").option("compression", "none").parquet(folder)
    return _open(rows.sparkSession, folder, rows.schema["id"].dataType, dimension)


def _packer(metric: str, dimension: int) -> Callable[..., Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        kept, matrices, rejected = [], [], []
        for batch in batches:
            vectors = read_vectors(batch.column(1), metric, dimension)
            kept.append(batch.drop_columns(["embedding"]).filter(pa.array(vectors.kept)))
            # A copy: the batch's memory is Spark's.
            matrices.append(np.array(vectors.matrix, np.float32))
            positions = pa.array(list(vectors.reasons), pa.int64())
            reasons = pa.array(list(vectors.reasons.values()), pa.string())
            bad = [batch.column(0).take(positions), reasons]
            rejected.append(pa.RecordBatch.from_arrays(bad, names=["id", "reason"]))
        if not kept:
            return
        context = TaskContext.get()
        rows = pa.Table.from_batches(kept).combine_chunks()
        bad_rows = pa.Table.from_batches(rejected)
        groups = rows["group"].combine_chunks() if "group" in rows.column_names else None
        ends = (
            (groups[0].as_py(), groups[-1].as_py())
            if groups is not None and len(groups)
            else (None, None)
        )
        values = {
            "part": context.partitionId() if context else 0,
            "rows": rows.num_rows,
            "first_group": ends[0],
            "last_group": ends[1],
            "ids": to_ipc(rows.select(["id"])),
            "groups": None if groups is None else to_ipc(rows.select(["group"])),
            "matrix": np.concatenate(matrices).tobytes(),
            "rejected": to_ipc(bad_rows),
            "rejected_rows": bad_rows.num_rows,
        }
        types = to_arrow_schema(_PACKED)
        columns = [pa.array([values[field.name]], field.type) for field in types]
        yield pa.RecordBatch.from_arrays(columns, schema=types)

    return run


def _open(spark: SparkSession, folder: str, id_type: DataType, dimension: int) -> Packed:
    """What `pack` wrote, put in order."""
    table = spark.read.parquet(folder).drop("ids", "groups", "matrix", "rejected")
    found = sorted(
        table.withColumn("file", F.input_file_name()).collect(), key=lambda row: row["part"]
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
            for packed in batch.column(0):
                with pa.ipc.open_stream(packed.as_buffer()) as stream:
                    yield from stream

    return spark.read.parquet(folder).select("rejected").mapInArrow(unpack, schema)


def fit(rows: DataFrame, metric: str, dimension: int) -> bytes:
    """The basis that all blocks of a comparison share, fitted in a task; as `Basis.to_bytes`.

    On the rows whose ids hash lowest, so that it does not depend on the partitioning.
    """
    sample = rows.filter(F.size("embedding") == dimension)
    sample = sample.orderBy(F.xxhash64("id"), "id").limit(_SAMPLE_ROWS).coalesce(1)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [read_vectors(batch.column(1), metric, dimension).matrix for batch in batches]
        matrix = np.concatenate(parts) if parts else np.zeros((0, dimension), np.float32)
        basis = fit_basis(matrix, metric).to_bytes()
        yield pa.RecordBatch.from_pydict({"basis": pa.array([basis], pa.binary())})

    # Spark drops the task when it knows that there are no rows.
    found: list[Any] = sample.mapInArrow(run, "basis binary").collect()
    return bytes(found[0]["basis"] if found else next(run([])).column(0)[0].as_py())
