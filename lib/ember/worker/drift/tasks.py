"""What the tasks of a judgment of drift do with their rows, as Arrow batches.

Rows have `key` (int64, the hash of the id), `side` (0 for the reference, 1 for the current table)
and what a task looks at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ember.worker.drift.features import Features
from ember.worker.drift.kernel import KernelSums
from ember.worker.drift.neighbors import Nearest, Queries
from ember.worker.metrics.partial_sums import Batches, record
from ember.worker.metrics.sums import ALL, Chunk, Sums, codes_in
from ember.worker.vectors.vectors import Vectors, read_vectors

__all__ = [
    "KERNEL",
    "NEIGHBORS",
    "OverlapSums",
    "ShiftSums",
    "Sides",
    "find_neighbors",
    "joined",
    "kernel_sums",
    "vector_faults",
]

KERNEL = "kernel"
NEIGHBORS = "side int, query bigint, score bigint, neighbor bigint"
_PIECES = 32  # of the sums of the kernel test, which are added up in so many tasks


@dataclass(frozen=True)
class Sides:
    """How the vectors of both tables are read. metric: None where they are not compared."""

    dimensions: tuple[int, int]
    metric: str | None

    def read(self, batch: pa.RecordBatch) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each table that a batch has rows of: its number, keys (m,), matrix (m, d)."""
        keys = batch.column("key").to_numpy()
        for number, rows, vectors in self.split(batch):
            yield number, keys[rows][vectors.kept], vectors.matrix

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[int, np.ndarray, Vectors]]:
        """Of each table that a batch has rows of: its number, their positions, their vectors."""
        side = batch.column("side").to_numpy()
        for number, dimension in enumerate(self.dimensions):
            rows = np.flatnonzero(side == number)
            if len(rows):
                column = batch.column("embedding").take(pa.array(rows))
                yield number, rows, read_vectors(column, self.metric, dimension)


def vector_faults(sides: Sides) -> Batches:
    """From rows (id, side, embedding) to those without a usable vector (id, side, reason)."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            reasons: dict[int, str] = {}
            for _, rows, found in sides.split(batch):
                reasons |= {int(rows[place]): reason for place, reason in found.reasons.items()}
            places = pa.array(sorted(reasons), pa.int64())
            texts = pa.array([reasons[place] for place in sorted(reasons)], pa.string())
            columns = [batch.column(name).take(places) for name in ("id", "side")]
            yield pa.RecordBatch.from_arrays([*columns, texts], ["id", "side", "reason"])

    return run


def kernel_sums(sides: Sides, features: Features, share: float) -> Batches:
    """From rows (key, side, embedding) to records of `KernelSums`, in pieces."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = KernelSums.empty(share, features.count)
        for batch in batches:
            for side, keys, matrix in sides.read(batch):
                sums.add(features, matrix, keys, side)
        if sums.counts.any():
            for piece, part in enumerate(np.array_split(sums.flat, _PIECES)):
                yield record(KERNEL, ALL, piece, part)

    return run


def joined(pieces: Sequence[np.ndarray], features: Features, share: float) -> KernelSums:
    """The sums of records that were added up, in the order of their pieces."""
    empty = KernelSums.empty(share, features.count)
    return empty.filled(np.concatenate([piece.ravel() for piece in pieces])) if pieces else empty


def find_neighbors(sides: Sides, queries: Sequence[Queries], k: int) -> Batches:
    """From rows (key, side, embedding) to the nearest of each query in each table, by their keys.

    queries: of both tables, the same keys in the same order.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nearest = [Nearest(each, k) for each in queries]
        for batch in batches:
            for side, keys, matrix in sides.read(batch):
                nearest[side].add(keys, matrix)
        for side, found in enumerate(nearest):
            columns = {
                "side": pa.array(np.full(len(found.query), side, np.int32)),
                "query": pa.array(found.queries.keys[found.query]),
                "score": pa.array(found.score),
                "neighbor": pa.array(found.key),
            }
            yield pa.RecordBatch.from_pydict(columns)

    return run


@dataclass(frozen=True)
class ShiftSums:
    """Counts of rows (score, label, both perhaps null) by value, in the slice of their table.

    bounds: of scores, a row counts with the first that is not below it. labels: every label.
    """

    bounds: np.ndarray | None
    labels: pa.Array | None

    def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add a chunk to the sections "score" and "label"."""
        by_side = chunk.slicings[1]
        found = {}
        if self.bounds is not None and len(self.bounds):
            scores = chunk.numbers("score")
            places = np.minimum(np.searchsorted(self.bounds, scores), len(self.bounds) - 1)
            found["score"] = np.where(np.isfinite(scores), places, -1)
        if self.labels is not None:
            found["label"] = codes_in(chunk.rows.column("label"), self.labels)
        for section, items in found.items():
            rows = np.flatnonzero(items >= 0)
            ones = np.ones((len(rows), 1), bool)
            sums.add(section, by_side, items[rows], ones, chunk.weights, rows=rows)


class OverlapSums:
    """Counts over queries (shared, of how many neighbors both tables agree)."""

    def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add a chunk to the section "overlap": queries, shared neighbors, and their squares."""
        shared = chunk.numbers("shared").astype(np.int64)
        values = np.stack([np.ones(len(shared), np.int64), shared, shared**2], axis=1)
        items = np.zeros(len(shared), np.int64)
        sums.add("overlap", chunk.slicings[0], items, values, chunk.weights)
