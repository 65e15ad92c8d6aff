"""What a row of embeddings was, in few bytes, so that a later run sees whether it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ember.worker.vectors.arrays import Int64
from ember.worker.vectors.vectors import NO_LENGTH, NULL, by_length, read_vectors

__all__ = ["row_states"]


def row_states(
    batches: Iterable[pa.RecordBatch], metric: str, *, exact: bool
) -> Iterator[pa.RecordBatch]:
    """Batches (id, embedding) or (id, embedding, group) as a row (id, high, low, length, reason,
    apart) for each row, in some order.

    Args:
        batches: rows as `select_embeddings` gives them.
        metric: decides which vectors can be compared.
        exact: do doubles stay doubles? See `read_vectors`.

    Returns:
        high and low, int64, are the halves of a hash of the vector and the group; rows that cannot
        be compared have one of the reason. length: of the vector, -1 of null. reason: why the row
        cannot be compared with rows of its length; null where it can. apart: it is of no group.
    """
    for batch in batches:
        for length, rows in by_length(batch):
            yield _of_one_length(rows, length, metric, exact=exact)


def _of_one_length(
    rows: pa.RecordBatch, length: int, metric: str, *, exact: bool
) -> pa.RecordBatch:
    # Without values there is no norm: what is wrong with such a row is its length.
    vectors = read_vectors(
        rows.column("embedding"), metric if length > 0 else None, max(0, length), exact=exact
    )
    grouped = "group" in rows.schema.names
    groups = rows.column("group").to_pylist() if grouped else [""] * len(rows)
    apart = [group is None for group in groups]
    reasons = [None if out else vectors.reasons.get(number) for number, out in enumerate(apart)]
    if length == NO_LENGTH:
        reasons = [None if out else NULL for out in apart]
    halves = np.zeros((len(rows), 2), np.int64)
    places = np.cumsum(vectors.kept) - 1
    for number, (group, reason) in enumerate(zip(groups, reasons, strict=True)):
        if group is None:
            continue
        if reason is None:
            halves[number] = _hash(
                vectors.matrix[places[number]].tobytes() + f"{length} {group}".encode()
            )
        else:
            halves[number] = _hash(f"{length} {reason}".encode())
    return pa.RecordBatch.from_pydict(
        {
            "id": rows.column("id"),
            "high": pa.array(halves[:, 0]),
            "low": pa.array(halves[:, 1]),
            "length": pa.array([length] * len(rows), pa.int32()),
            "reason": pa.array(reasons, pa.string()),
            "apart": pa.array(apart, pa.bool_()),
        }
    )


def _hash(value: bytes) -> Int64:
    return np.frombuffer(hashlib.blake2b(value, digest_size=16).digest(), np.int64)
