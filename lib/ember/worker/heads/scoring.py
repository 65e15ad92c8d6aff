"""A head on tables of embeddings: Arrow record batches in, predictions out, no other model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter

import numpy as np
import pyarrow as pa

from ember.worker.encoder import Slot
from ember.worker.results import Predictions, to_batch
from ember.worker.stats import TaskStats
from ember.worker.vectors.vectors import NULL, read_vectors

__all__ = ["predict_features"]


def predict_features(
    batches: Iterable[pa.RecordBatch],
    parts: tuple[int, ...],
    predictions: Predictions,
    stats: TaskStats,
) -> Iterator[pa.RecordBatch]:
    """Predictions of every row of a stream of batches (id, a column of embeddings for each table).

    parts: the dimension of each table. A row that lacks some tables is scored by the others; it
    is an error row when it lacks all, or has an embedding of another length or one that is not
    finite. Yields (id, predictions, status, error). Filled in on the way: `stats`.
    """
    for batch in batches:
        start = perf_counter()
        slot = _slot(batch, parts)
        stats.rows += batch.num_rows
        done = to_batch(slot, predictions)
        stats.timed("head", perf_counter() - start)
        yield done


def _slot(batch: pa.RecordBatch, parts: tuple[int, ...]) -> Slot:
    rows = batch.num_rows
    slot = Slot([None] * rows, batch.select([0]))
    slot.vectors = np.full((rows, sum(parts)), np.nan, np.float32)
    found = np.zeros(rows, bool)
    start = 0
    for column, size in zip(batch.columns[1:], parts, strict=True):
        vectors = read_vectors(column, None, size)
        slot.vectors[vectors.kept, start : start + size] = vectors.matrix
        found |= vectors.kept
        slot.errors |= {row: why for row, why in vectors.reasons.items() if why != NULL}
        start += size
    for row in np.flatnonzero(~found):
        slot.errors.setdefault(int(row), NULL)
    return slot
