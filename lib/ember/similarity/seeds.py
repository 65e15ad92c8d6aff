"""Floors for top-k: what the k-th best of each query is at least, from rows around its pivots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ember.similarity import bounds
from ember.similarity.block import Block, Float32, Float64, Int64, check_pair, nearest_pivots
from ember.similarity.scores import tie_floor
from ember.similarity.threads import run_tiles, tensor

PROBES = 4
MAX_ROWS = 1024
"""Rows of a block that are looked at for one pivot; the first ones, which are as good as any."""


def seed_floor(
    queries: Block,
    blocks: Sequence[Block],
    k: int,
    *,
    exclude_self: bool,
    threads: int,
    device: str,
) -> Float64:
    """A value F (bounds.py) that at least k rows of all blocks reach, -inf where none was found.

    Returns:
        (q,) float64, low enough for rows that tie with the k-th in float32.
    """
    seen = _Seen(queries, k, exclude_self, device)
    # Some pivots at a time: threads that meet after each would wait for each other.
    parts = [list(seen.asking)[first :: 2 * threads] for first in range(2 * threads)]
    for block in blocks:
        check_pair(queries, block)
        for _ in run_tiles(partial(seen.look, _Near(block)), parts, threads):
            pass
    return seen.floor()


class _Near:
    """The rows of a block by pivot, and what makes values of products with them.

    A value, product * scale - shift - error, rises and falls with a lower bound of F; see
    `_Seen.floor`.
    """

    def __init__(self, block: Block) -> None:
        self.rows = block.rows
        self.order = np.argsort(block.pivot, kind="stable")
        pivots = np.arange(max(1, len(block.basis.pivots)) + 1)
        self.starts = np.searchsorted(block.pivot[self.order], pivots)
        self.ids, self.norms = block.ids[self.order], block.norms[self.order]
        scale, shift = np.ones(len(block)), np.zeros(len(block))
        if block.metric == "cosine":
            scale = 1.0 / self.norms
        elif block.metric == "euclidean":
            shift = 0.5 * (1.0 + 2.0 * bounds.dot_slack(block.basis.dimension)) * self.norms**2
        self.scale, self.shift = scale.astype(np.float32), shift.astype(np.float32)

    def of(self, pivot: int) -> slice:
        """Where the rows of a pivot are, the first ones of them."""
        start, stop = self.starts[pivot : pivot + 2]
        return slice(start, min(stop, start + MAX_ROWS))


class _Seen:
    """The best values that queries have seen around each pivot that they probe.

    asking: for each pivot, the places of ``best`` that it fills, so that no two pivots share any.
    best: (q * probes, k) float32, heaps.
    """

    def __init__(self, queries: Block, k: int, exclude_self: bool, device: str) -> None:
        self.queries, self.exclude_self, self.device = queries, exclude_self, device
        self.slack = bounds.dot_slack(queries.basis.dimension)
        probes = nearest_pivots(queries.prefix, queries.basis, PROBES)
        self.probes = probes.shape[1]
        self.best = np.full((probes.size, k), -np.inf, np.float32)
        order = np.argsort(probes, axis=None, kind="stable")
        pivots, starts = np.unique(probes.ravel()[order], return_index=True)
        places = np.split(order, starts)[1:]
        self.asking = dict(zip(pivots.tolist(), places, strict=True))

    def look(self, near: _Near, pivots: list[int]) -> None:
        """Compare the rows of some pivots with the queries that probe them."""
        for pivot in pivots:
            part = near.of(pivot)
            if part.start < part.stop:
                self._look(near, part, self.asking[pivot])

    def _look(self, near: _Near, part: slice, places: Int64) -> None:
        from ember.similarity import loops

        query = places // self.probes
        a = tensor(self.queries.rows[query]).to(self.device)
        b = tensor(near.rows[near.order[part]]).to(self.device)
        products: Float32 = (a @ b.T).cpu().numpy()
        if self.exclude_self:
            products[self.queries.ids[query][:, None] == near.ids[part]] = -np.inf
        error = np.zeros(len(query))
        if self.queries.metric == "inner_product":
            largest = near.norms[part].max()
            error = self.slack * self.queries.norms[query] * largest + bounds.TINY
        value = near.scale[part], near.shift[part], error.astype(np.float32)
        loops.keep_best(products, value, places, self.best)

    def floor(self) -> Float64:
        """(q,) lower bounds of the k-th best F."""
        k = self.best.shape[1]
        seen = self.best.reshape(len(self.queries), self.probes * k)
        values = np.partition(seen, -k, axis=1)[:, -k].astype(np.float64)
        norms = self.queries.norms
        if self.queries.metric == "cosine":
            values = values / norms - self.slack
        elif self.queries.metric == "euclidean":
            # slack |a| |b| is at most slack (|a|^2 + |b|^2) / 2; `_Near` took the half of |b|.
            values -= 0.5 * (1.0 + 2.0 * self.slack) * norms**2 + bounds.TINY
        return tie_floor(values)
