"""The figures of each query of a retrieval, and their sums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ember.worker.metrics.partial_sums import Batches
from ember.worker.metrics.ranking import retrieval_figures
from ember.worker.metrics.sums import Chunk, Sums, flat, to_limbs

__all__ = ["FigureSums", "score_queries"]

_CHUNK_ROWS = 2048


def score_queries(passed: int, names: Sequence[str], at: Sequence[int]) -> Batches:
    """From queries (…, gains, ideal) to their figures (…, results, and `names`), all float64.

    passed: how many first columns are passed on; `relevant` is among them. at: see
    `ember.worker.metrics.ranking.retrieval_figures`.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, _CHUNK_ROWS):
                rows = batch.slice(start, _CHUNK_ROWS)
                gains, results = _padded(rows.column("gains"))
                ideal, _ = _padded(rows.column("ideal"))
                relevant = rows.column("relevant").to_numpy(zero_copy_only=False)
                figures = retrieval_figures(gains, ideal, relevant, at)
                columns = [pa.array(values) for values in (results, *figures.T)]
                yield pa.RecordBatch.from_arrays(
                    [*rows.columns[:passed], *columns],
                    names=[*rows.schema.names[:passed], "results", *names],
                )

    return run


def _padded(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Lists of numbers as the rows of a matrix, filled up with 0, and how long each is."""
    values, rows, places = flat(lists)
    matrix = np.zeros((len(lists), int(places.max(initial=-1)) + 1))
    matrix[rows, places] = values.to_numpy(zero_copy_only=False)
    return matrix, np.bincount(rows, minlength=len(lists)).astype(np.float64)


@dataclass(frozen=True)
class FigureSums:
    """What each query adds to the sums: one, and its figures in limbs."""

    figures: int

    def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add the list `values` of each query to "total"."""
        values, _, _ = flat(chunk.rows.column("values"))
        matrix = values.to_numpy(zero_copy_only=False).reshape(-1, self.figures)
        added = np.hstack([np.ones((len(matrix), 1), np.int64), to_limbs(matrix)])
        zeros = np.zeros(len(matrix), np.int64)
        for slicing in chunk.slicings:
            sums.add("total", slicing, zeros, added, chunk.weights)
