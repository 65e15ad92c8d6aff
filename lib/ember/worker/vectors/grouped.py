"""Comparing only rows of one group: blocks sorted by group meet in runs of equal keys.

A run that a block shares with another is a rectangle of pairs. Large rectangles go through the
kernels; the many small ones of a table with many groups are scored pair by pair, all at once,
which is sooner done than a product each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ember.worker.vectors.arrays import Int64
from ember.worker.vectors.block import Block
from ember.worker.vectors.neighbors import Neighbors
from ember.worker.vectors.scores import similarities
from ember.worker.vectors.threshold import (
    Pairs,
    by_score,
    count_by_score,
    goal,
    threshold_pairs,
    to_score,
)
from ember.worker.vectors.topk import search

__all__ = ["count_between", "meetings", "search_within", "threshold_within"]

FEW_PAIRS = 4096
"""Rectangles of at most so many pairs are scored pair by pair: a kernel call costs as much."""
CHUNK_PAIRS = 1 << 20


def meetings(left: pa.Array, right: pa.Array) -> Int64:
    """Where two blocks share groups.

    left, right: the group of each row, sorted, without nulls.

    Returns (m, 4) int64: left start and stop, right start and stop of each group in both.
    """
    keys, starts = _runs(left)
    others, other_starts = _runs(right)
    found = np.asarray(pc.fill_null(pc.index_in(keys, value_set=others), -1)).astype(np.int64)
    mine = np.flatnonzero(found >= 0)
    there = found[mine]
    return np.stack(
        [starts[mine], starts[mine + 1], other_starts[there], other_starts[there + 1]], axis=1
    )


def threshold_within(
    left: Block, right: Block, shared: Int64, threshold: float, *, triangle: bool, threads: int
) -> Iterator[Pairs]:
    """As `threshold_pairs`, for the pairs in the rectangles `shared` (see `meetings`) only."""
    least = goal(left.metric, threshold)
    few = _is_small(shared)
    for rows, columns in _pairs(shared[few]):
        once = rows < columns if triangle else slice(None)
        i, j = rows[once], columns[once]
        similarity = similarities(left, right, i, j)
        hit = similarity >= least
        if hit.any():
            score = to_score(left.metric, similarity[hit])
            yield Pairs(left.ids[i[hit]], right.ids[j[hit]], score)
    for start, stop, other_start, other_stop in shared[~few].tolist():
        part = left.take(slice(start, stop))
        partner = part if triangle else right.take(slice(other_start, other_stop))
        yield from threshold_pairs(part, partner, threshold, triangle=triangle, threads=threads)


def count_between(
    left: Block,
    right: Block,
    groups: tuple[pa.Array, pa.Array] | None,
    threshold: float,
    *,
    triangle: bool,
    threads: int,
) -> dict[float, int]:
    """`count_by_score` of two blocks; with groups, the pairs of one group only."""
    how: dict[str, Any] = {"triangle": triangle, "threads": threads}
    if groups is None:
        return count_by_score(left, right, threshold, **how)
    total: Counter[float] = Counter()
    for pairs in threshold_within(left, right, meetings(*groups), threshold, **how):
        similarity = -pairs.score if left.metric == "euclidean" else pairs.score
        total.update(by_score(similarity))
    return dict(total)


def search_within(
    queries: Block,
    block: Block,
    shared: Int64,
    found: Neighbors,
    *,
    exclude_self: bool,
    threads: int,
) -> Neighbors:
    """As `search` of one block, for the pairs in the rectangles `shared` (see `meetings`) only."""
    result = Neighbors(found.ids.copy(), found.similarity.copy())
    few = _is_small(shared)
    for rows, columns in _pairs(shared[few]):
        other = queries.own[rows] != block.own[columns] if exclude_self else slice(None)
        i, j = rows[other], columns[other]
        result.add(i, block.ids[j], similarities(queries, block, i, j))
    for start, stop, other_start, other_stop in shared[~few].tolist():
        part = slice(start, stop)
        best = search(
            queries.take(part),
            [block.take(slice(other_start, other_stop))],
            Neighbors(result.ids[part], result.similarity[part]),
            exclude_self=exclude_self,
            threads=threads,
        )
        result.ids[part], result.similarity[part] = best.ids, best.similarity
    return result


def _runs(groups: pa.Array) -> tuple[pa.Array, Int64]:
    """The keys of a sorted column, and where their runs start; one more start than keys."""
    encoded = groups.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).astype(np.int64)
    return encoded.dictionary, np.append(starts, len(groups))


def _is_small(shared: Int64) -> np.ndarray:
    few: np.ndarray = _sizes(shared) <= FEW_PAIRS
    return few


def _sizes(shared: Int64) -> Int64:
    sizes: Int64 = (shared[:, 1] - shared[:, 0]) * (shared[:, 3] - shared[:, 2])
    return sizes


def _pairs(shared: Int64) -> Iterator[tuple[Int64, Int64]]:
    """All pairs of some rectangles, as positions, about CHUNK_PAIRS at a time."""
    ends = np.cumsum(_sizes(shared))
    cuts = np.searchsorted(ends, np.arange(CHUNK_PAIRS, ends[-1] if len(ends) else 0, CHUNK_PAIRS))
    for part in np.split(shared, np.unique(cuts)):
        sizes = _sizes(part)
        first = np.cumsum(sizes) - sizes
        offset = np.arange(sizes.sum()) - np.repeat(first, sizes)
        width = np.repeat(part[:, 3] - part[:, 2], sizes)
        if len(offset):
            i = np.repeat(part[:, 0], sizes) + offset // width
            yield i, np.repeat(part[:, 2], sizes) + offset % width
