"""Tables of embeddings as blocks: in the order of ids, put where tasks find them.

Rows are in the order of their ids; with groups (`within`), in the order of group and id, so that a
group lies in one block or in neighboring ones. Only ids are sorted: a block says where in the runs
(ember.comparison.vector_files) its vectors are, and a node gathers them when it prepares the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    BinaryType,
    DataType,
    LongType,
    StringType,
)

from ember.comparison import vector_files, vector_store
from ember.comparison.vector_files import Runs
from ember.spark import classic
from ember.worker.vectors.arrays import Int64, Stored
from ember.worker.vectors.basis import Basis, sample_size
from ember.worker.vectors.block_cache import BlockCache, RunFiles, joined, own_keys, to_ipc

__all__ = ["Fitter", "Packed", "TableVectors", "fit", "pack", "sampled"]

# Makes a basis of a sample, (n, d), of the vectors.
Fitter = Callable[[Stored], Basis]
# A node reads the ids of all of them for each.
_BLOCKS_PER_FILE = 64
_BLOCK = vector_store.schema(
    rows=LongType(),
    first_group=StringType(),
    last_group=StringType(),
    ids=BinaryType(),
    groups=BinaryType(),
    places=BinaryType(),
    again=LongType(),
)


@dataclass(frozen=True)
class TableVectors:
    """The vectors of a table where they lie in its runs.

    folder: of all the table's runs. files: URIs of those that its vectors are in.
    firsts: the place of the first vector of each. local: every task sees the files under these
    paths; else Spark sends a copy to each node. kind: of values, float32 or float64.
    """

    folder: str
    files: tuple[str, ...]
    firsts: tuple[int, ...]
    rows: int
    dimension: int
    local: bool
    kind: str

    @classmethod
    def of(cls, spark: SparkSession, made: Runs, dimension: int) -> TableVectors:
        """Those of one length."""
        local = vector_store.seen_by_tasks(spark, made.folder)
        chosen = [run for run in made.runs if run.rows and run.length == dimension]
        counts = [run.rows for run in chosen]
        files = tuple(run.file for run in chosen)
        starts = _starts(counts)
        return cls(made.folder, files, starts, sum(counts), dimension, local, made.kind)

    def send(self, spark: SparkSession) -> None:
        """Have every node get the runs, where they cannot be read in place."""
        vector_store.send(spark, self.files, self.local)

    def here(self) -> RunFiles:
        """On a worker: this node's copy of the runs."""
        files = vector_store.here(self.files, self.local)
        return RunFiles(files, self.firsts, self.rows, self.dimension, self.kind)


@dataclass(frozen=True)
class Packed:
    """A table of n valid vectors as blocks, each a row of a file (ember.comparison.vector_store).

    blocks: URI of each one's file and row in it, in the order of the vectors. firsts: the number of
    each block's first vector. spans: with groups, the first and the last group of each block.
    rejected: rows that cannot be compared. ungrouped: rows that belong to no group, where groups
    are asked for.
    """

    blocks: tuple[tuple[str, int], ...]
    firsts: tuple[int, ...]
    spans: tuple[tuple[str, str], ...] | None
    vectors: TableVectors
    id_type: DataType
    rejected: int
    ungrouped: int | None

    @property
    def rows(self) -> int:
        return self.vectors.rows

    @property
    def dimension(self) -> int:
        return self.vectors.dimension

    def send(self, spark: SparkSession) -> None:
        """Have every node get the blocks and their vectors, where it cannot read them in place."""
        self.vectors.send(spark)
        vector_store.send(spark, self.files(), self.vectors.local)

    def rejected_rows(self, spark: SparkSession) -> DataFrame:
        """The rows that cannot be compared: (id, reason)."""
        return vector_files.rejected_rows(spark, self.vectors.folder, self.id_type, self.dimension)

    def block_cache(self, basis: bytes, threads: int) -> BlockCache:
        """On a worker: this node's copy of the blocks."""
        folder = str(Path(classic.received_folder(), "ember-blocks"))
        files = self.files()
        here = dict(zip(files, self.files_here(), strict=True))
        blocks = [(here[file], row) for file, row in self.blocks]
        made = Basis.from_bytes(basis)
        return BlockCache(blocks, self.firsts, self.vectors.here(), made, folder, threads)

    def files(self) -> list[str]:
        """URIs of the blocks' files, in the order of the vectors."""
        return list(dict.fromkeys(file for file, _ in self.blocks))

    def files_here(self) -> list[str]:
        """Where these files are, in a task or on the driver."""
        return vector_store.here(self.files(), self.vectors.local)


def pack(spark: SparkSession, made: Runs, vectors: TableVectors, folder: str, size: int) -> Packed:
    """Put a table's vectors of one length into blocks of about `size` rows, written to `folder`.

    No block has more than half as many again. Rows of equal ids are in an order that depends on
    their vectors only.
    """
    ordered = vector_files.sorted_ids(
        spark,
        vectors.files,
        (*vectors.firsts, vectors.rows),
        local=vectors.local,
        id_type=made.id_type,
        grouped=made.grouped,
        most=min(vector_files.SORTED_ROWS, _BLOCKS_PER_FILE * size),
    )
    told = ("rows", "first_group", "last_group")
    found = vector_store.write(ordered, _packer(size), _BLOCK, folder, told)
    return Packed(
        blocks=tuple((file, place) for file, _, place, *_ in found),
        firsts=_starts([rows for _, _, _, rows, _, _ in found]),
        spans=tuple((first, last) for *_, first, last in found) if made.grouped and found else None,
        vectors=vectors,
        id_type=made.id_type,
        rejected=made.rejected(vectors.dimension),
        ungrouped=made.ungrouped,
    )


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(accumulate(counts, initial=0))[:-1]


def _packer(size: int) -> vector_store.Pack:
    """Each partition becomes blocks."""

    def tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        kept: list[pa.RecordBatch] = []
        for batch in batches:
            kept.append(batch)
            rows = pa.Table.from_batches(kept)
            while len(rows) > 2 * size:
                yield rows.slice(0, size)
                rows = rows.slice(size)
                kept = rows.to_batches()
        if left := sum(map(len, kept)):
            rows, blocks = pa.Table.from_batches(kept), max(1, round(left / size))
            for some in np.array_split(np.arange(left), blocks):
                yield rows.slice(some[0], len(some))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[Mapping[str, Any]]:
        # Rows of one id are all in this partition: how many of them are before a block?
        last, begin, first = None, 0, 0
        for rows in tables(batches):
            ids = joined(rows["id"])
            keys = own_keys(ids if last is None else pa.concat_arrays([last, ids]), 0, 0)
            again = first - begin if last is not None and keys[1] == keys[0] else 0
            begin = int(own_keys(ids, first, again)[-1])
            last, first = ids[-1:], first + len(ids)
            yield _block(rows, again)

    return run


def _block(rows: pa.Table, again: int) -> Mapping[str, Any]:
    groups = rows["group"] if "group" in rows.column_names else None
    return {
        "rows": len(rows),
        "first_group": groups[0].as_py() if groups else None,
        "last_group": groups[-1].as_py() if groups else None,
        "ids": to_ipc(rows.select(["id"])),
        "groups": to_ipc(rows.select(["group"])) if groups else None,
        "places": rows["place"].to_numpy().astype(np.int64).tobytes(),
        "again": again,
    }


def fit(spark: SparkSession, vectors: TableVectors, fitter: Fitter) -> bytes:
    """The basis that all blocks of a comparison share, fitted in a task; as `Basis.to_bytes`."""
    places = sampled(vectors.rows, min(vectors.rows, sample_size(vectors.dimension)))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            basis = fitter(vectors.here().take(places)).to_bytes()
            yield pa.RecordBatch.from_pydict({"basis": pa.array([basis], pa.binary())})

    return bytes(spark.range(0, 1, 1, 1).mapInArrow(run, "basis binary").collect()[0]["basis"])


def sampled(rows: int, size: int) -> Int64:
    """Numbers of rows drawn without replacement, rising: the same in every run."""
    return np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
