"""A floor for each query before the search proper: what k rows near its pivots certainly reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ember.similarity import bounds
from ember.similarity.block import Block, Float32, Float64, Int64, nearest_pivots
from ember.similarity.scores import float32_below, tie_floor
from ember.similarity.threads import run_tiles, tensor

PROBES = 3
CHUNK_QUERIES = 16_384
MAX_ROWS = 1024
"""Rows that are looked at for one pivot; the first ones, which are as good as any."""


def seed_floor(
    queries: Block, block: Block, k: int, *, exclude_self: bool, threads: int, device: str
) -> Float64:
    """A value F (bounds.py) that at least k rows of the block reach, -inf where none was found.

    Returns:
        (q,) float64, low enough for rows that tie with the k-th in float32.
    """
    order = np.argsort(block.pivot, kind="stable")
    pivots, starts = np.unique(block.pivot[order], return_index=True)
    rows = [group[:MAX_ROWS] for group in np.split(order, starts[1:])]
    floors = [np.empty(0, np.float64)]
    for start in range(0, len(queries), CHUNK_QUERIES):
        part = queries.take(slice(start, start + CHUNK_QUERIES))
        look = _Look(part, block, k, exclude_self, device)
        for _ in run_tiles(look, zip(pivots.tolist(), rows, strict=True), threads):
            pass
        kth = np.partition(look.best, -k, axis=1)[:, -k]
        floors.append(tie_floor(kth.astype(np.float64)))
    return np.concatenate(floors)


class _Look:
    """Compares the rows of one pivot with the queries that probe it.

    ``best`` is (q, PROBES * k): k places for each probe of a query, so no two pivots share any.
    """

    def __init__(
        self, queries: Block, block: Block, k: int, exclude_self: bool, device: str
    ) -> None:
        self.queries, self.block, self.k = queries, block, k
        self.exclude_self, self.device = exclude_self, device
        self.probes: NDArray[np.int32] = nearest_pivots(queries.prefix, queries.basis, PROBES)
        self.best = np.full((len(queries), PROBES * k), -np.inf, np.float32)

    def __call__(self, group: tuple[int, Int64]) -> None:
        pivot, rows = group
        query, probe = np.nonzero(self.probes == pivot)
        if len(query):
            top = self._lower_bounds(query, rows)
            columns = probe[:, None] * self.k + np.arange(top.shape[1])
            self.best[query[:, None], columns] = top

    def _lower_bounds(self, query: Int64, rows: Int64) -> Float32:
        """(q, min(k, rows)) lower bounds of the best values F, in no order."""
        a = tensor(self.queries.rows[query]).to(self.device)
        b = tensor(self.block.rows[rows]).to(self.device)
        values: Float32 = (a @ b.T).cpu().numpy()
        norms, others = self.queries.norms[query], self.block.norms[rows]
        slack = bounds.dot_slack(self.queries.basis.dimension)
        scale, error = np.ones(len(query)), np.full(len(query), slack)
        if self.queries.metric == "cosine":
            values *= (1.0 / others).astype(np.float32)
            scale = 1.0 / norms
        elif self.queries.metric == "inner_product":
            error = slack * norms * others.max() + bounds.TINY
        else:  # a.b - |a|^2/2 - |b|^2/2, and slack |a| |b| is at most slack (|a|^2 + |b|^2) / 2
            values -= (0.5 * (1.0 + 2.0 * slack) * others**2).astype(np.float32)
            error = 0.5 * (1.0 + 2.0 * slack) * norms**2 + bounds.TINY
        if self.exclude_self:
            values[self.queries.ids[query][:, None] == self.block.ids[rows]] = -np.inf
        top = np.partition(values, -min(self.k, len(rows)), axis=1)[:, -min(self.k, len(rows)) :]
        return float32_below(top * scale[:, None] - error[:, None])
