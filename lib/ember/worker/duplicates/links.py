"""Links among the rows of a bucket: as many as it takes to see its groups, never all its pairs.

A bucket holds rows that may be near copies, such as all pictures whose hashes agree in one band. Of
m rows, up to m² pairs may reach the threshold, and nobody needs them: to find the groups, and with
each row the best one that it is a copy of, 2 m links are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ember.worker.duplicates.pictures import BITS

__all__ = ["Hashes", "Rows", "ShingleSets", "best_copies", "bucket_links", "links", "rows_of"]

Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class Rows(Protocol):
    """Rows by number, and how similar they are."""

    def scores(self, row: int, others: Numbers) -> Scores:
        """The similarity, 0 to 1, of a row with each of the others."""
        ...


class Hashes:
    """Perceptual hashes (n,); similar by the share of bits in which they agree."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values.to_numpy(zero_copy_only=False).view(np.uint64)

    def scores(self, row: int, others: Numbers) -> Scores:
        differing = np.bitwise_count(self._values[others] ^ self._values[row])
        alike: Scores = 1 - differing.astype(np.float64) / BITS
        return alike


class ShingleSets:
    """Sets of shingles, sorted; similar by their Jaccard index: common ones over all of both."""

    def __init__(self, sets: pa.ListArray) -> None:
        self._firsts = sets.offsets.to_numpy().astype(np.int64)
        self._lengths = np.diff(self._firsts)
        self._values = sets.values.to_numpy(zero_copy_only=False)

    def scores(self, row: int, others: Numbers) -> Scores:
        own = self._values[self._firsts[row] : self._firsts[row + 1]]
        lengths = self._lengths[others]
        # The places of all values of the others, side by side.
        ends = np.cumsum(lengths)
        starts = ends - lengths
        places = np.arange(ends[-1]) + np.repeat(self._firsts[others] - starts, lengths)
        values = self._values[places]
        nearest = np.minimum(np.searchsorted(own, values), len(own) - 1)
        common = np.add.reduceat((own[nearest] == values).astype(np.int64), starts)
        shared: Scores = common / (len(own) + lengths - common)
        return shared


def rows_of(payload: pa.Array) -> Rows:
    """The rows of a column of hashes, or of sets of shingles."""
    return ShingleSets(payload) if pa.types.is_list(payload.type) else Hashes(payload)


def links(rows: Rows, first: int, end: int, threshold: float) -> tuple[Numbers, Numbers, Scores]:
    """Links (left, right, score) among the rows first … end - 1, the preferred ones first.

    Each link reaches the threshold. Together they connect what all pairs at the threshold would
    connect, and each row is linked with the first of those before it that it reaches. There are at
    most two for each row; rows that are connected and linked are not compared.
    """
    count = end - first
    part = np.arange(count)  # (m,), the group of each row as far as it is known
    linked = np.zeros(count, bool)  # (m,), has it a link to a row before it?
    linked[0] = True
    found: list[tuple[Numbers, Numbers, Scores]] = []
    for row in range(count - 1):
        apart = part[row + 1 :] != part[row]
        others = np.flatnonzero(apart | ~linked[row + 1 :]) + row + 1
        if not len(others):
            if not (part != part[row]).any():
                break
            continue
        scores = rows.scores(first + row, others + first)
        near = scores >= threshold
        others, scores = others[near], scores[near]
        # All that had no link yet, and one of each part that this row connects.
        foreign = part[others] != part[row]
        once = np.zeros(len(others), bool)
        once[np.unique(part[others], return_index=True)[1]] = True
        new = ~linked[others] | (foreign & once)
        found.append((np.full(new.sum(), row), others[new], scores[new]))
        linked[others] = True
        if foreign.any():
            part[np.isin(part, part[others])] = part[row]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    left, right, score = (np.concatenate(each) for each in zip(*found, strict=True))
    return left + first, right + first, score


def best_copies(
    rows: Rows, first: int, middle: int, end: int, threshold: float
) -> tuple[Numbers, Numbers, Scores]:
    """For each of the rows first … middle - 1 the most similar of middle … end - 1, if any reaches.

    Of equally similar ones it is the first.
    """
    others = np.arange(middle, end)
    left, right, score = [], [], []
    for row in range(first, middle):
        scores = rows.scores(row, others)
        best = int(scores.argmax())
        if scores[best] >= threshold:
            left.append(row)
            right.append(middle + best)
            score.append(scores[best])
    return np.array(left, np.int64), np.array(right, np.int64), np.array(score)


def bucket_links(
    batches: Iterable[pa.RecordBatch], threshold: float, *, against: bool
) -> Iterator[pa.RecordBatch]:
    """Links within buckets as batches (left_id, right_id, score float, key of the bucket).

    batches: (key, id, payload), sorted by the key of the bucket, the preferred rows first; with
    `against` (key, id, other_id, payload), one of the ids null: rows of the input, then of the
    other table, which are on the right of the links.
    """
    for table in _whole_buckets(batches):
        keys = table.column(0).chunk(0).to_numpy()
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        ends = np.append(starts[1:], len(keys))
        several = ends - starts > 1
        rows = rows_of(table.column(table.num_columns - 1).chunk(0))
        ids = table.column(1).chunk(0)
        other_ids = table.column(2).chunk(0) if against else ids
        own = ids.is_valid().to_numpy(zero_copy_only=False)
        found = []
        for first, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
            if not against:
                found.append(links(rows, first, end, threshold))
                continue
            middle = first + int(own[first:end].sum())
            if first < middle < end:
                found.append(best_copies(rows, first, middle, end, threshold))
        if found:
            left, right, score = (np.concatenate(each) for each in zip(*found, strict=True))
            yield pa.RecordBatch.from_arrays(
                [
                    ids.take(pa.array(left)),
                    other_ids.take(pa.array(right)),
                    pa.array(score.astype(np.float32)),
                    pa.array(keys[left]),
                ],
                names=["left_id", "right_id", "score", "key"],
            )


def _whole_buckets(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of batches sorted by their first column, in tables that cut no bucket in two."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        keys = batch.column(0).to_numpy()
        if held and held[0].column(0)[0].as_py() == keys[-1]:
            held.append(batch)
            continue
        cut = int(np.searchsorted(keys, keys[-1]))
        whole = [*held, *([batch.slice(0, cut)] if cut else [])]
        if whole:
            yield pa.Table.from_batches(whole).combine_chunks()
        held = [batch.slice(cut)]
    if held:
        yield pa.Table.from_batches(held).combine_chunks()
