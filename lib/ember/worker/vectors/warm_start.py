"""Floors for top-k: what the k-th best of each query is at least, from rows around its pivots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.block import CHUNK_ROWS, Block, check_pair, nearest_pivots
from ember.worker.vectors.scores import tie_floor
from ember.worker.vectors.threads import plain, run_tiles

if TYPE_CHECKING:
    from ember.worker.vectors import loops

PROBES = 2
MAX_ROWS = 1024
"""Rows of a block that are compared for one pivot: its first ones, as good as any."""


def seed_floor(
    queries: Block, blocks: Sequence[Block], k: int, *, exclude_self: bool, threads: int
) -> Float64:
    """A value F (bounds.py) that at least k rows of all blocks reach, -inf where none was found.

    Returns:
        (q,) float64, low enough for rows that tie with the k-th in float32.
    """
    from ember.worker.vectors import loops

    probes = _Probes(queries, threads)
    best = np.full((probes.places.size, k), -np.inf, np.float32)
    # Several pivots at a time: threads that meet after each would wait for each other.
    parts = [np.arange(first, probes.pivots, 4 * threads) for first in range(4 * threads)]
    for block in blocks:
        check_pair(queries, block)
        if len(block):
            left, right = probes.by_pivot(block), _rows_by_pivot(block, exclude_self)
            compare = partial(loops.compare_by_pivot, left, right, best=best)
            for _ in run_tiles(compare, parts, threads):
                pass
    return _floor(queries, best)


class _Probes:
    """Queries by the pivots that they probe. Each fills places of its own, so no two share any."""

    def __init__(self, queries: Block, threads: int) -> None:
        prefix, starts = queries.prefix, range(0, max(len(queries), 1), CHUNK_ROWS)
        nearest = run_tiles(
            lambda start: nearest_pivots(prefix[start : start + CHUNK_ROWS], queries.basis, PROBES),
            starts,
            threads,
        )
        probes = np.concatenate(list(nearest))
        self.queries, self.pivots = queries, max(1, len(queries.basis.pivots))
        self.probes = probes.shape[1]
        self.places, self.starts = _by_pivot(probes.ravel(), self.pivots)

    def by_pivot(self, block: Block) -> loops.QueriesByPivot:
        """With the error of values of products with the block's rows."""
        queries, error = self.queries, np.zeros(len(self.queries))
        if queries.metric == "inner_product":
            slack = bounds.dot_slack(queries.basis.dimension)
            error = slack * queries.sizes * block.sizes.max() + bounds.TINY
        return (
            plain(queries.scaled), plain(queries.own), error.astype(np.float32), self.places,
            self.starts, self.probes,
        )  # fmt: skip


def _rows_by_pivot(block: Block, exclude_self: bool) -> loops.RowsByPivot:
    """A block's rows by pivot, and what makes values of products with them.

    A value, product * scale - shift - error, rises and falls with a lower bound of F; see `_floor`.
    """
    scale, shift = np.ones(len(block)), np.zeros(len(block))
    if block.metric == "cosine":
        scale = 1.0 / block.sizes
    elif block.metric == "euclidean":
        shift = 0.5 * (1.0 + 2.0 * bounds.dot_slack(block.basis.dimension)) * block.sizes**2
    return (
        plain(block.scaled), plain(block.own), scale.astype(np.float32), shift.astype(np.float32),
        *_by_pivot(block.pivot, max(1, len(block.basis.pivots))), MAX_ROWS, exclude_self,
    )  # fmt: skip


def _by_pivot(owners: NDArray[np.int32], pivots: int) -> tuple[Int64, Int64]:
    """Positions by pivot, and where each pivot's begin."""
    order = np.argsort(owners, kind="stable")
    return order, np.searchsorted(owners[order], np.arange(pivots + 1))


def _floor(queries: Block, best: Float32) -> Float64:
    """(q,) lower bounds of the k-th best F."""
    k, slack = best.shape[1], bounds.dot_slack(queries.basis.dimension)
    seen = best.reshape(len(queries), -1 if len(queries) else k)
    values = np.partition(seen, -k, axis=1)[:, -k].astype(np.float64)
    if queries.metric == "cosine":
        # The sizes of both are at least MIN_NORM, so what underflows is far below the slack.
        values = values / queries.sizes - slack
    elif queries.metric == "euclidean":
        # slack |a| |b| is at most slack (|a|^2 + |b|^2) / 2; `_rows_by_pivot` took the half of |b|.
        values -= 0.5 * (1.0 + 2.0 * slack) * queries.sizes**2 + bounds.TINY
    return tie_floor(values)
