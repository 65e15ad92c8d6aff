"""Tables of embeddings as blocks: sorted by id, packed into matrices, put where tasks find them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
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
from ember.similarity.node import Shelf, pack_ids
from ember.similarity.vectors import read_vectors
from ember.storage import Storage

__all__ = [
    "BLOCK_BYTES",
    "Packed",
    "dimension_of",
    "fit",
    "pack",
    "rejected_rows",
]

# Of float32 values in a block. Large enough that a pair of blocks is seconds of work, small enough
# that a worker holds several.
BLOCK_BYTES = 16 << 20
_SAMPLE_ROWS = 8192


@dataclass(frozen=True)
class Packed:
    """A table of n valid vectors as blocks in Parquet files of one row each.

    files: URIs, in id order. firsts: the number of each block's first row. local: every task sees
    the files under these paths; else Spark has sent a copy to each node.
    """

    folder: str
    files: tuple[str, ...]
    firsts: tuple[int, ...]
    rows: int
    dimension: int
    id_type: DataType
    rejected: int
    local: bool

    def shelf(self, basis: bytes, threads: int) -> Shelf:
        """On a worker: this node's copy of the blocks."""
        names = [file.rpartition("/")[2] for file in self.files]
        paths = (
            [file.removeprefix("file:") for file in self.files]
            if self.local
            else [SparkFiles.get(name) for name in names]
        )
        cache = str(Path(SparkFiles.getRootDirectory(), "ember-blocks"))
        return Shelf(paths, self.firsts, pickle.loads(basis), cache, threads)


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


def pack(
    rows: DataFrame, metric: str, dimension: int, folder: str, block_rows: int | None = None
) -> Packed:
    """Write (id, embedding) as packed blocks into `folder` and have every node get them.

    Rows that cannot be compared (see ember.similarity.vectors) are set aside in the same files;
    `rejected_rows` reads them. Rows are in the order of their ids, rows of equal ids in an order
    that depends on their vectors only.
    """
    spark = rows.sparkSession
    size = block_rows or max(1, BLOCK_BYTES // (4 * max(1, dimension)))
    blocks = max(1, -(-rows.count() // size))
    tie = F.xxhash64("embedding")
    ordered = rows.repartitionByRange(blocks, "id", tie).sortWithinPartitions("id", tie)
    schema = StructType(
        [
            StructField("part", IntegerType()),
            StructField("rows", LongType()),
            StructField("ids", BinaryType()),
            StructField("matrix", BinaryType()),
            StructField("rejected", BinaryType()),
            StructField("rejected_rows", LongType()),
        ]
    )
    packed = ordered.mapInArrow(_packer(metric, dimension), schema)
    packed.write.mode("overwrite").option("compression", "none").parquet(folder)
    return _open(spark, folder, rows.schema["id"].dataType, dimension)


def _packer(metric: str, dimension: int) -> Callable[..., Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        ids, matrices, bad_ids = [], [], []
        reasons: list[str] = []
        for batch in batches:
            vectors = read_vectors(batch.column(1), metric, dimension)
            kept = pa.array(vectors.kept)
            ids.append(batch.column(0).filter(kept))
            # A copy: the batch's memory is Spark's.
            matrices.append(np.array(vectors.matrix, np.float32))
            bad_ids.append(batch.column(0).take(pa.array(list(vectors.reasons), pa.int64())))
            reasons.extend(vectors.reasons.values())
        if not ids:
            return
        context = TaskContext.get()
        matrix = np.concatenate(matrices)
        rejected = pa.RecordBatch.from_arrays(
            [pa.concat_arrays(bad_ids), pa.array(reasons, pa.string())], names=["id", "reason"]
        )
        yield pa.RecordBatch.from_pydict(
            {
                "part": pa.array([context.partitionId() if context else 0], pa.int32()),
                "rows": pa.array([len(matrix)], pa.int64()),
                "ids": pa.array([pack_ids(pa.concat_arrays(ids))], pa.binary()),
                "matrix": pa.array([matrix.tobytes()], pa.binary()),
                "rejected": pa.array([_pack_batch(rejected)], pa.binary()),
                "rejected_rows": pa.array([len(reasons)], pa.int64()),
            }
        )

    return run


def _pack_batch(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _open(spark: SparkSession, folder: str, id_type: DataType, dimension: int) -> Packed:
    """What `pack` wrote, put in order and made reachable."""
    table = spark.read.parquet(folder)
    facts = table.select("part", "rows", "rejected_rows", F.input_file_name().alias("file"))
    found = sorted(facts.collect(), key=lambda row: row["part"])
    filled = [row for row in found if row["rows"]]
    storage = Storage(spark)
    # Spark names files as URIs, with escapes.
    files = tuple(storage.qualify(unquote(row["file"])) for row in filled)
    local = is_local(spark) and all(file.startswith("file:") for file in files)
    if not local:
        for file in files:
            spark.sparkContext.addFile(file)
    counts = [row["rows"] for row in filled]
    firsts = tuple(int(sum(counts[:number])) for number in range(len(counts)))
    rejected = sum(row["rejected_rows"] for row in found)
    return Packed(folder, files, firsts, sum(counts), dimension, id_type, rejected, local)


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
    """The basis that all blocks of a comparison share, fitted in a task; pickled.

    On the rows whose ids hash lowest, so that it does not depend on the partitioning.
    """
    sample = rows.filter(F.size("embedding") == dimension)
    sample = sample.orderBy(F.xxhash64("id"), "id").limit(_SAMPLE_ROWS).coalesce(1)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.similarity.projection import fit_basis

        parts = [read_vectors(batch.column(1), metric, dimension).matrix for batch in batches]
        matrix = np.concatenate(parts) if parts else np.zeros((0, dimension), np.float32)
        basis = pickle.dumps(fit_basis(matrix, metric))
        yield pa.RecordBatch.from_pydict({"basis": pa.array([basis], pa.binary())})

    # Spark drops the task when it knows that there are no rows.
    found: list[Any] = sample.mapInArrow(run, "basis binary").collect()
    return bytes(found[0]["basis"] if found else next(run([])).column(0)[0].as_py())
