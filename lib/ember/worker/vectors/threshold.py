"""Exact threshold join of two blocks: every pair whose score reaches the threshold, and no other.

Filter and refine, as in metric similarity search (Zezula et al., Similarity Search, 2006, section
1.5): a product of packed rows bounds each score from above, tile by tile; pairs below the threshold
are gone; survivors get a float32 dot product, and those it leaves in doubt or in the result get the
exact score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ember.worker.vectors.arrays import Float32, Float64, Int64, Stored
from ember.worker.vectors.basis import Basis, fit_basis, sample_size
from ember.worker.vectors.block import Block, check_pair, prepare
from ember.worker.vectors.filter_choice import choose, spread
from ember.worker.vectors.filters import Filter
from ember.worker.vectors.scores import certain_value, filter_value, similarities, similarity_at
from ember.worker.vectors.threads import default_threads, run_tiles
from ember.worker.vectors.tiles import TILE_COLUMNS, TILE_ROWS, Side, Tiles, Which

SPAN_COLUMNS = 16 * TILE_COLUMNS
"""Columns of one task; a task of TILE_ROWS x SPAN_COLUMNS pairs bounds the size of a chunk."""
_BIN = np.uint32((1 << 12) - 1)
"""The last bits of a float32, in which the numbers of one bin differ."""


@dataclass(frozen=True)
class Pairs:
    """A chunk of the result: ids of both sides, (p,) int64, and scores, (p,) float32."""

    left: Int64
    right: Int64
    score: Float32


def join_basis(
    sample: Stored, metric: str, threshold: float, *, threads: int | None = None
) -> Basis:
    """A basis for joins at a threshold: without pivots, with prefixes no wider than of use.

    Args:
        sample: (n, d), as `fit_basis` takes it; at most `sample_size` of them are used.
        metric: cosine, inner_product or euclidean.
        threshold: score, or distance for Euclidean.
        threads: default: OMP_NUM_THREADS, else all cores.

    Raises:
        ValueError: as `fit_basis` and `prepare` do.
    """
    threads = threads or default_threads()
    sample = sample[spread(len(sample), sample_size(sample.shape[1]))]
    basis = fit_basis(sample, metric, pivots=0)
    block = prepare(sample, metric, basis, threads=threads)
    # All rows have one floor, the threshold's F: one part, one filter.
    least = filter_value(metric, goal(metric, threshold), basis.exponent)
    floor = np.full(len(block), least)
    (how,) = choose(block, block, floor, [np.arange(len(block))], threads=threads)
    # Twice as wide as suits the sample: other rows may be better served by wider prefixes.
    return basis.truncate(2 * how.width) if how.width else basis


def threshold_pairs(
    left: Block,
    right: Block,
    threshold: float,
    *,
    triangle: bool = False,
    threads: int | None = None,
    how: Filter | None = None,
) -> Iterator[Pairs]:
    """All pairs with score >= float32(threshold); for Euclidean distance score <= it.

    Args:
        left: one block.
        right: another one of the same basis; with ``triangle`` the same block.
        threshold: score, or distance for Euclidean.
        triangle: each pair once, without the diagonal: left position < right position.
        threads: default: OMP_NUM_THREADS, else all cores.
        how: the filter to use; by default one is chosen on a sample.

    Yields:
        Chunks of at most TILE_ROWS x SPAN_COLUMNS pairs, none of them empty. Their order and
        content depend on the blocks alone.

    Raises:
        ValueError: the blocks do not belong together, or the threshold is NaN or a negative
            distance.
    """
    join = _Join(left, right, threshold, triangle=triangle, threads=threads, how=how)
    for i, j, similarity in run_tiles(join.pairs, join.tasks(), join.threads):
        if len(i):
            yield Pairs(left.ids[i], right.ids[j], to_score(left.metric, similarity))


def count_by_score(
    left: Block,
    right: Block,
    threshold: float,
    *,
    triangle: bool = False,
    threads: int | None = None,
    how: Filter | None = None,
) -> dict[float, int]:
    """How many pairs ``threshold_pairs`` would yield, by score, without scoring certain ones.

    Returns:
        The least similarity (scores.py) of a bin, and the pairs in it. Bins are float32 numbers
        that share their leading 11 bits of mantissa; pairs near an edge may be in the next bin,
        but the sum is exact.
    """
    join = _Join(left, right, threshold, triangle=triangle, threads=threads, how=how)
    total: Counter[float] = Counter()
    # Exact sums, in whatever order tasks end.
    for counts in run_tiles(join.count, join.tasks(), join.threads):
        total.update(counts)
    return dict(total)


def by_score(similarity: Float32) -> dict[float, int]:
    """Counts of similarities, (p,), by the lower edge of their bin; see `count_by_score`."""
    bits = similarity.view(np.uint32)  # (p,)
    # The lower edge: of positive numbers the smaller ones, of negative ones the larger ones.
    edges = np.where(bits >> 31, bits | _BIN, bits & ~_BIN).astype(np.uint32)
    values, counts = np.unique(edges, return_counts=True)
    return dict(zip(values.view(np.float32).tolist(), counts.tolist(), strict=True))


def goal(metric: str, threshold: float) -> np.float32:
    """The least similarity that a threshold asks for: for Euclidean distance its negative."""
    return np.float32(-threshold if metric == "euclidean" else threshold)


def to_score(metric: str, similarity: Float32) -> Float32:
    """Scores of similarities, (p,): for Euclidean distance the negative."""
    return -similarity if metric == "euclidean" else similarity


_Task = tuple[slice, slice]


class _Join:
    """What the tasks of one join share."""

    def __init__(
        self, left: Block, right: Block, threshold: float, *, triangle: bool, threads: int | None,
        how: Filter | None,
    ) -> None:  # fmt: skip
        check_pair(left, right)
        if triangle and left is not right:
            raise ValueError(
                "triangle is for a block joined with itself; pass the same block twice"
            )
        if np.isnan(threshold) or (left.metric == "euclidean" and threshold < 0):
            raise ValueError(f"a threshold of {threshold} selects nothing for {left.metric}")
        self.left, self.right, self.triangle = left, right, triangle
        self.threads = threads or default_threads()
        self.goal = goal(left.metric, threshold)  # the least similarity of the result
        self.exponent = left.basis.exponent
        # Pairs with F below `floor` are out, those from `certain` on are in; between, the exact
        # score decides.
        self.floor = filter_value(left.metric, self.goal, self.exponent)
        self.certain = certain_value(left.metric, self.goal, self.exponent)
        if how is None:
            floor, rows = np.full(len(left), self.floor), np.arange(len(left))
            (how,) = choose(left, right, floor, [rows], threads=self.threads)
        fitted = how.fit(left, right)
        which = Which.LARGER_RIGHT_KEYS if triangle else Which.ALL
        self.tiles = Tiles(fitted, left.metric, which)
        # Packed whole, once for all tasks. With triangle both sides are one block, and keys are
        # positions.
        self.a = Side.of(left, fitted.left(left), np.arange(len(left)))
        self.b = Side.of(right, fitted.right(right), np.arange(len(right)))

    def tasks(self) -> Iterator[_Task]:
        """Rows and columns of rectangles that cover all pairs."""
        for row in range(0, len(self.left), TILE_ROWS):
            # With triangle: the rectangles that touch the upper triangle; tiles check each pair.
            for column in range(row if self.triangle else 0, len(self.right), SPAN_COLUMNS):
                yield slice(row, row + TILE_ROWS), slice(column, column + SPAN_COLUMNS)

    def pairs(self, task: _Task) -> tuple[Int64, Int64, Float32]:
        """Positions and similarities of the task's part of the result, by row, then column."""
        found = []
        for i, j, _, _ in self._candidates(task):
            similarity = similarities(self.left, self.right, i, j)  # exact, (p,)
            hit = similarity >= self.goal
            found.append((i[hit], j[hit], similarity[hit]))
        if not found:
            none = np.empty(0, np.int64)
            return none, none, np.empty(0, np.float32)
        i, j, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
        # By row, then column, whatever filter and tiles found them in.
        order = np.lexsort((j, i))
        return i[order], j[order], similarity[order]

    def count(self, task: _Task) -> dict[float, int]:
        """`count_by_score` of the task's part of the pairs."""
        found = [np.empty(0, np.float32)]
        for i, j, value, error in self._candidates(task):
            certain = value - error >= self.certain  # (p,): in the result without an exact score
            similarity = similarities(self.left, self.right, i[~certain], j[~certain])
            near = similarity_at(self.left.metric, value[certain], self.exponent)
            # Near the threshold rounding must not put a pair below it.
            found += [np.maximum(near, self.goal), similarity[similarity >= self.goal]]
        return by_score(np.concatenate(found))

    def _candidates(self, task: _Task) -> Iterator[tuple[Int64, Int64, Float64, Float64]]:
        """Positions, values F and their error bounds of the pairs that may be in the result."""
        rows, columns = task  # at most (TILE_ROWS, SPAN_COLUMNS)
        left, right = self.a.take(rows), self.b.take(columns)
        # One floor for all rows, and no places for the best: it stays as it is.
        floor = np.full(len(left.keys), self.floor)
        best = np.empty((len(floor), 0), np.float32)
        for some in self.tiles.candidates(left, right, floor, best):
            yield some.i + rows.start, some.j + columns.start, some.value, some.error
