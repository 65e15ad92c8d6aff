"""Exact top-k: the k best rows of a corpus for each query, ties by id.

Branch and bound with a filter (bounds.py): a row can be left out when its upper bound is below the
k-th best lower bound that the query already has. Three things make that floor high early:

1. seeds: rows of every block around the query's nearest pivots are compared first (the idea of an
   inverted file, Sivic and Zisserman, Video Google, 2003), which gives a floor and no results;
2. queries are sorted by their floor, and each part of them gets the filter that suits it: the
   easy ones a short prefix, the hard ones nearly all dimensions;
3. the floor rises from tile to tile.

Blocks of the corpus may come in any order and on any machine; ``Neighbors.merge`` gives the same
answer whatever the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.block import Block
from ember.worker.vectors.filter_choice import choose
from ember.worker.vectors.filters import Filter, Fitted
from ember.worker.vectors.neighbors import Neighbors
from ember.worker.vectors.scores import filter_value, similarities
from ember.worker.vectors.threads import default_threads, run_tiles
from ember.worker.vectors.tiles import TILE_ROWS, Side, Tiles, Which
from ember.worker.vectors.warm_start import seed_floor

PART_ROWS = 1024
"""Queries that share a filter, at most: a task."""
PLANNED_BLOCKS = 4
"""Blocks searched with the filters that were chosen for the first of them; if one is more than
twice as large, filters are chosen anew."""
MAX_PENDING = 1 << 19
"""Candidates of one part of the queries that may wait for their exact score."""


def top_k(
    queries: Block,
    corpus: Sequence[Block],
    k: int,
    *,
    exclude_self: bool = False,
    threads: int | None = None,
    how: Filter | None = None,
) -> tuple[Int64, Float32]:
    """The k best rows of the corpus for each query.

    Args:
        queries: q rows.
        corpus: blocks of the same basis, with ids that are unique over all of them; each is taken
            twice.
        k: places.
        exclude_self: leave out corpus rows whose `own` key is the query's.
        threads: default: OMP_NUM_THREADS, else all cores.
        how: the filter to use; by default one is chosen for each part of the queries.

    Returns:
        ids, (q, k) int64, -1 where the corpus has fewer rows, and scores, (q, k) float32, NaN
        there. Score falling (Euclidean distance rising), then id rising.

    Raises:
        ValueError: k below 1, or blocks of different bases.
    """
    nothing = Neighbors.empty(len(queries), check_k(k))
    found = search(queries, corpus, nothing, exclude_self=exclude_self, threads=threads, how=how)
    return found.result(queries.metric)


def check_k(k: int) -> int:
    """Raises ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least one neighbor")
    return k


def search(
    queries: Block,
    corpus: Sequence[Block],
    found: Neighbors,
    *,
    exclude_self: bool = False,
    threads: int | None = None,
    how: Filter | None = None,
) -> Neighbors:
    """``found`` with the rows of some more blocks of the corpus taken into account.

    Args as in ``top_k``; start from ``Neighbors.empty(len(queries), k)``.
    """
    result = Neighbors(found.ids.copy(), found.similarity.copy())  # (q, k) each
    threads = threads or default_threads()
    parts: list[Int64] = []
    filters: list[Filter] = []
    planned = 0
    k = found.ids.shape[1]
    # (q,) floors from rows of all blocks around each query's nearest pivots.
    seeds = seed_floor(queries, corpus, k, exclude_self=exclude_self, threads=threads)
    for number, block in enumerate(corpus if len(queries) else ()):
        if len(block) == 0:
            continue
        # F that a pair needs to be among the k best of what is found so far: (q,).
        reached = filter_value(queries.metric, result.similarity[:, -1], queries.basis.exponent)
        floor = np.maximum(reached, seeds)
        if number % PLANNED_BLOCKS == 0 or len(block) > 2 * planned:
            planned = len(block)
            parts = _parts(floor, threads)
            # A filter costs a moment to choose: kept for some blocks of about this size.
            filters = (
                [how] * len(parts) if how else choose(queries, block, floor, parts, threads=threads)
            )
        work = _Search(queries, block, floor, result, exclude_self)
        for _ in run_tiles(work.run, work.tasks(parts, filters, threads), threads):
            pass
    return result


def _parts(floor: Float64, threads: int) -> list[Int64]:
    """Positions of queries with similar floors: parts small enough to keep all threads busy."""
    # Four parts for each thread, so that one slow part does not hold up the end.
    rows = min(PART_ROWS, max(64, -(-len(floor) // (4 * threads))))
    order = np.argsort(floor, kind="stable")  # (q,), the lowest floors first
    return np.split(order, range(rows, len(order), rows))


@dataclass(frozen=True)
class _Task:
    part: Int64
    how: Fitted
    right: Side


@dataclass(frozen=True)
class _Search:
    """What the tasks of one search share; each writes its own rows of ``result``."""

    queries: Block
    block: Block
    floor: Float64
    result: Neighbors
    exclude_self: bool

    def tasks(self, parts: list[Int64], filters: list[Filter], threads: int) -> Iterator[_Task]:
        """A task for each part; the block is packed for each filter before."""
        each = list(dict.fromkeys(filters))  # several parts share one
        sides = dict(zip(each, run_tiles(self._side, each, threads), strict=True))
        for part, how in zip(parts, filters, strict=True):
            yield _Task(part, *sides[how])

    def _side(self, how: Filter) -> tuple[Fitted, Side]:
        fitted = how.fit(self.queries, self.block)  # to all queries, so for every part
        return fitted, Side.of(self.block, fitted.right(self.block), self.block.own)

    def run(self, task: _Task) -> None:
        """Search the whole block for some queries."""
        queries = self.queries.take(task.part)  # p of q, at most PART_ROWS
        # Copies of their places: no two tasks share any.
        found = Neighbors(self.result.ids[task.part], self.result.similarity[task.part])
        answer = _Answer(queries, self.block, self.floor[task.part], found)
        left = Side.of(queries, task.how.left(queries), queries.own)
        which = Which.OTHER_KEYS if self.exclude_self else Which.ALL
        tiles = Tiles(task.how, queries.metric, which)
        for start in range(0, len(queries), TILE_ROWS):
            tile = slice(start, start + TILE_ROWS)
            # Views, (a,) and (a, k), which `candidates` raises as better rows turn up.
            floor, best = answer.floor[tile], answer.best[tile]
            rows = left.take(tile)
            for some in tiles.candidates(rows, task.right, floor, best):
                # Positions in the tile to those in the part; upper bounds of F.
                answer.take(some.i + start, some.j, some.value + some.error)
        answer.score_pending()
        self.result.ids[task.part] = answer.found.ids
        self.result.similarity[task.part] = answer.found.similarity


class _Answer:
    """The running answer for p queries.

    Attributes:
        floor: (p,) F that a row must reach.
        best: (p, k) lower bounds of the k best F, as heaps; they know rows that have no exact
            score yet.
    """

    def __init__(self, queries: Block, block: Block, floor: Float64, found: Neighbors) -> None:
        self.queries, self.block, self.found = queries, block, found
        self.floor = floor
        self.best: Float32 = np.full(found.ids.shape, -np.inf, np.float32)
        self.pending: list[tuple[Int64, Int64, Float64]] = []  # i, j, upper bounds
        self.waiting = 0  # pairs in `pending`

    def take(self, i: Int64, j: Int64, upper: Float64) -> None:
        """Keep candidates, with upper bounds of F, until there are enough of them to be scored."""
        self.pending.append((i, j, upper))
        self.waiting += len(i)
        if self.waiting > MAX_PENDING:
            self.score_pending()

    def score_pending(self) -> None:
        """Exact scores for the candidates that still reach the floor."""
        if not self.pending:
            return
        # (p,) each: positions in the part and the block, upper bounds of F.
        i, j, upper = (np.concatenate(parts) for parts in zip(*self.pending, strict=True))
        self.pending, self.waiting = [], 0
        # The floor has risen since most of them were found.
        possible = upper >= self.floor[i]
        i, j = i[possible], j[possible]
        similarity = similarities(self.queries, self.block, i, j)  # (p,) exact, to the last bit
        self.found.add(i, self.block.ids[j], similarity)
        basis = self.queries.basis
        reached = filter_value(basis.metric, self.found.similarity[:, -1], basis.exponent)
        np.maximum(self.floor, reached, out=self.floor)
