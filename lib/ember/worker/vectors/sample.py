"""A sample of rows by the hashes of their ids, among those whose vectors can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ember.worker.vectors.arrays import Int64
from ember.worker.vectors.vectors import read_vectors

__all__ = ["CANDIDATES", "candidates", "unusable_batches"]

NULL_ID = "null id"
CANDIDATES = "hash long, reason string, rows long"


def candidates(
    batches: Iterable[pa.RecordBatch], metric: str, dimension: int, count: int
) -> Iterator[pa.RecordBatch]:
    """Of a task's batches (hash, embedding) what decides a sample of `count` rows.

    hash: null for rows without an id, which cannot be on a map.

    The `count` smallest hashes of usable rows, with neither reason nor rows; then how many rows are
    usable (with an empty reason), and how many are not, by reason. So a task sends little, however
    much it reads.
    """
    smallest: Int64 = np.empty(0, np.int64)
    reasons: Counter[str] = Counter()
    for batch in batches:
        named = batch.column(0).is_valid()
        reasons[NULL_ID] += len(batch) - named.true_count
        rows = batch.filter(named)
        found = read_vectors(rows.column(1), metric, dimension, exact=True)
        hashes = rows.column(0).to_numpy()[found.kept]
        smallest = np.sort(np.concatenate([smallest, hashes]))[:count]
        reasons[""] += len(hashes)
        reasons.update(reason.partition(":")[0] for reason in found.reasons.values())
    yield pa.RecordBatch.from_arrays(
        [
            pa.array([*smallest.tolist(), *[None] * len(reasons)], pa.int64()),
            pa.array([*[None] * len(smallest), *reasons], pa.string()),
            pa.array([*[None] * len(smallest), *reasons.values()], pa.int64()),
        ],
        names=["hash", "reason", "rows"],
    )


def unusable_batches(
    batches: Iterable[pa.RecordBatch], metric: str, dimension: int
) -> Iterator[pa.RecordBatch]:
    """The rows of batches (id, embedding) that cannot be on a map, as (id, reason)."""
    for batch in batches:
        reasons = read_vectors(batch.column(1), metric, dimension, exact=True).reasons
        nameless = np.flatnonzero(batch.column(0).is_null().to_numpy(zero_copy_only=False))
        reasons = dict(sorted({**reasons, **dict.fromkeys(nameless.tolist(), NULL_ID)}.items()))
        ids = batch.column(0).take(pa.array(list(reasons), pa.int64()))
        texts = pa.array(list(reasons.values()), pa.string())
        yield pa.RecordBatch.from_arrays([ids, texts], names=["id", "reason"])
