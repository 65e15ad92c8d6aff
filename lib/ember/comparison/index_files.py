"""The files of a kept index: blocks that are prepared once, and the order of their ids.

ember.worker.vectors.index_cache has what is in them, and reads them. A file is never written to
again: rows that are new come in files of their own, and of a block in which rows are gone the rest
is written anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    BinaryType,
    DataType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.comparison import vector_files, vector_store
from ember.comparison.blocks import TableVectors
from ember.spark import classic
from ember.spark.paths import literal
from ember.spark.tasks import task_resources
from ember.worker.vectors.basis import Basis
from ember.worker.vectors.block import Block, prepare
from ember.worker.vectors.block_cache import joined, own_keys, stored_rows, to_ipc
from ember.worker.vectors.index_cache import ARRAYS, IndexCache, restored, stored

__all__ = ["SOURCE", "Index", "IndexBlock", "add", "order", "rejected", "remove"]

# Of a row: the file of the table that it is from, by a hash (ember.spark.origins.ByFile).
SOURCE = "source"
_BLOCK = vector_store.schema(
    count=LongType(),
    sources=StringType(),
    ids=BinaryType(),
    **{name: BinaryType() for name in ARRAYS},
)
_ORDER = vector_store.schema(rows=LongType(), places=BinaryType(), firsts=BinaryType())


@dataclass(frozen=True)
class IndexBlock:
    """A block of an index. sources: its rows by the file of the table that they are from."""

    file: str
    rows: int
    sources: Mapping[str, int]

    def keeps(self, gone: AbstractSet[str]) -> int:
        """How many of its rows are left when some files of the table are gone."""
        return sum(rows for source, rows in self.sources.items() if source not in gone)


@dataclass(frozen=True)
class Index:
    """A table's vectors as an index has them: what `blocks.Packed` is of a table that is packed.

    name: of this state of the index, which no other has. order: files of the order of the ids.
    kind: of the values, float32 or float64. local: every task sees the files under these paths.
    bad: folder of the rows that cannot be compared, (id, reason, source); None where there are
    none. spans, ungrouped: of an index without groups.
    """

    name: str
    blocks: tuple[IndexBlock, ...]
    order: tuple[str, ...]
    basis: bytes
    dimension: int
    kind: str
    id_type: DataType
    local: bool
    rejected: int
    bad: str | None
    spans: None = None
    ungrouped: None = None

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def send(self, spark: SparkSession) -> None:
        """Have every node get the files, where they cannot be read in place."""
        vector_store.send(spark, self.files(), self.local)

    def rejected_rows(self, spark: SparkSession) -> DataFrame:
        """The rows that cannot be compared: (id, reason)."""
        columns = [StructField("id", self.id_type), StructField("reason", StringType())]
        if self.bad is None:
            return spark.createDataFrame([], StructType(columns))
        return spark.read.parquet(literal(self.bad)).select("id", "reason")

    def block_cache(self, basis: bytes, threads: int) -> IndexCache:
        """On a worker: this node's copy of the blocks."""
        here = vector_store.here(self.files(), self.local)
        return IndexCache(
            files=here[: len(self.blocks)],
            firsts=[0, *accumulate(block.rows for block in self.blocks)][:-1],
            rows=self.rows,
            order=here[len(self.blocks) :],
            basis=Basis.from_bytes(basis),
            kind=self.kind,
            name=self.name,
            folder=str(Path(classic.received_folder(), "ember-index")),
        )

    def files(self) -> list[str]:
        """URIs of the blocks, and of the order of their ids."""
        return [*(block.file for block in self.blocks), *self.order]


def add(
    spark: SparkSession, vectors: TableVectors, metric: str, basis: bytes, folder: str
) -> list[IndexBlock]:
    """Prepare all vectors of a table that lie in its runs, a block of each, and write them."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[Mapping[str, Any]]:
        here, made = vectors.here(), Basis.from_bytes(basis)
        _, threads = task_resources()
        for number in _numbers(batches):
            (run,) = stored_rows(here.files[number])
            ids = pa.Table.from_batches(list(vector_files.batches_of(run, "ids")))
            yield _values(prepare(here.run(number), metric, made, threads=threads), ids)

    return _written(spark, len(vectors.files), pack, folder)


def remove(
    spark: SparkSession, index: Index, gone: AbstractSet[str], folder: str
) -> list[IndexBlock]:
    """The blocks without rows from files that are gone; those that have any are written anew."""
    touched = [block for block in index.blocks if 0 < block.keeps(gone) < block.rows]
    files, local = [block.file for block in touched], index.local
    vector_store.send(spark, files, local)

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[Mapping[str, Any]]:
        here, basis = vector_store.here(files, local), Basis.from_bytes(index.basis)
        for number in _numbers(batches):
            (row,) = stored_rows(here[number])
            ids = pa.Table.from_batches(list(vector_files.batches_of(row, "ids")))
            left = pc.invert(pc.is_in(ids[SOURCE], value_set=pa.array(sorted(gone), pa.string())))
            kept = np.flatnonzero(left.to_numpy())
            numbers = np.arange(len(ids), dtype=np.int64)
            block = restored(row, basis, index.kind, numbers, numbers)
            yield _values(block.take(kept), ids.take(kept))

    rest = _written(spark, len(touched), pack, folder) if touched else []
    return [block for block in index.blocks if block.keeps(gone) == block.rows] + rest


def order(
    spark: SparkSession, blocks: Sequence[IndexBlock], id_type: DataType, folder: str
) -> list[str]:
    """Write the order of the ids of all blocks; equal ids in an order by their vectors only."""
    files, local = [block.file for block in blocks], vector_store.seen_by_tasks(spark, folder)
    vector_store.send(spark, files, local)

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[Mapping[str, Any]]:
        if kept := list(batches):
            rows = pa.Table.from_batches(kept)
            own = own_keys(joined(rows["id"]), 0, 0)
            again = not np.array_equal(own, np.arange(len(own)))
            yield {
                "rows": len(rows),
                "places": pa.py_buffer(rows["place"].to_numpy().astype(np.int64)),
                "firsts": pa.py_buffer(own.astype(np.int64)) if again else None,
            }

    sorted_ids = vector_files.sorted_ids(
        spark,
        files,
        [*accumulate((block.rows for block in blocks), initial=0)],
        local=local,
        id_type=id_type,
        grouped=False,
        most=vector_files.SORTED_ROWS,
    )
    found = vector_store.write(sorted_ids, pack, _ORDER, folder, ("rows",))
    return [file for file, *_ in found]


def rejected(spark: SparkSession, folder: str, id_type: DataType, dimension: int) -> DataFrame:
    """Of runs with sources, the rows that cannot be compared: (id, reason, source)."""
    return vector_files.rejected_rows(spark, folder, id_type, dimension, beside=(SOURCE,))


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _values(block: Block, ids: pa.Table) -> Mapping[str, Any]:
    """A row of `_BLOCK`. ids: (id, hash, source) of each of the block's rows."""
    sources = Counter({each["values"]: each["counts"] for each in _counts(ids[SOURCE])})
    kept = ids.select(["id", "hash", SOURCE])
    return {
        "count": len(ids),
        "sources": json.dumps(sources),
        "ids": to_ipc(kept),
        **stored(block),
    }


def _counts(column: pa.ChunkedArray) -> list[dict[str, Any]]:
    counted: list[dict[str, Any]] = pc.value_counts(column).to_pylist()
    return counted


def _written(
    spark: SparkSession, count: int, pack: vector_store.Pack, folder: str
) -> list[IndexBlock]:
    """What `pack` makes of numbers below `count`, a file for each of its rows."""
    tasks = max(1, min(count, 4 * classic.cores(spark)))
    numbers = spark.range(0, count, 1, tasks).toDF("number")
    told = ("count", "sources")
    found = vector_store.write(numbers, pack, _BLOCK, folder, told, one_each=True)
    return [IndexBlock(file, rows, json.loads(sources)) for file, _, _, rows, sources in found]
