"""A floor for each query before the search proper: what k rows near its pivots certainly reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

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
    probes = nearest_pivots(queries.prefix, queries.basis, PROBES)
    # Queries of one pivot together: their products are larger.
    parts = np.array_split(np.argsort(probes[:, 0], kind="stable"), threads)
    looks = [_Look(queries.take(part), probes[part], k, exclude_self, device) for part in parts]
    for block in blocks:
        check_pair(queries, block)
        take = partial(_Look.take, block=block, near=_by_pivot(block))
        for _ in run_tiles(take, looks, threads):
            pass
    floor = np.full(len(queries), -np.inf)
    for part, look in zip(parts, looks, strict=True):
        floor[part] = look.floor()
    return floor


def _by_pivot(block: Block) -> dict[int, Int64]:
    """Positions of some rows of each pivot."""
    order = np.argsort(block.pivot, kind="stable")
    pivots, starts = np.unique(block.pivot[order], return_index=True)
    groups = np.split(order, starts)[1:]
    return {int(p): rows[:MAX_ROWS] for p, rows in zip(pivots, groups, strict=True)}


class _Look:
    """Some queries, and the lower bounds of the k best values F, (q, k), that they have seen."""

    def __init__(
        self,
        queries: Block,
        probes: NDArray[np.int32],
        k: int,
        exclude_self: bool,
        device: str,
    ) -> None:
        self.queries, self.exclude_self, self.device = queries, exclude_self, device
        self.best = np.full((len(queries), k), -np.inf, np.float32)
        self.slack = bounds.dot_slack(queries.basis.dimension)
        order = np.argsort(probes, axis=None, kind="stable")
        pivots, starts = np.unique(probes.ravel()[order], return_index=True)
        asking = np.split(order // probes.shape[1], starts)[1:]
        self.asking = dict(zip(pivots.tolist(), asking, strict=True))

    def take(self, block: Block, near: dict[int, Int64]) -> None:
        """Compare the rows of each pivot with the queries that probe it."""
        k = self.best.shape[1]
        for pivot, asking in self.asking.items():
            rows = near.get(pivot)
            if rows is None:
                continue
            values = self._values(asking, block, rows)
            better = (values > self.best[asking].min(axis=1)[:, None]).any(axis=1)
            news = np.concatenate([self.best[asking[better]], values[better]], axis=1)
            self.best[asking[better]] = np.partition(news, -k, axis=1)[:, -k:]

    def floor(self) -> Float64:
        """(q,) lower bounds of the k-th best F."""
        values, norms = self.best.min(axis=1).astype(np.float64), self.queries.norms
        if self.queries.metric == "cosine":
            values = values / norms - self.slack
        elif self.queries.metric == "euclidean":
            # slack |a| |b| is at most slack (|a|^2 + |b|^2) / 2; _values took the half of |b|.
            values -= 0.5 * (1.0 + 2.0 * self.slack) * norms**2 + bounds.TINY
        return tie_floor(values)

    def _values(self, asking: Int64, block: Block, rows: Int64) -> Float32:
        """(q, rows) values that rise and fall with lower bounds of F; see `floor`."""
        a = tensor(self.queries.rows[asking]).to(self.device)
        b = tensor(block.rows[rows]).to(self.device)
        values: Float32 = (a @ b.T).cpu().numpy()
        others = block.norms[rows]
        if self.queries.metric == "cosine":
            values *= (1.0 / others).astype(np.float32)
        elif self.queries.metric == "inner_product":
            error = self.slack * self.queries.norms[asking] * others.max() + bounds.TINY
            values -= error.astype(np.float32)[:, None]
        else:
            values -= (0.5 * (1.0 + 2.0 * self.slack) * others**2).astype(np.float32)
        if self.exclude_self:
            values[self.queries.ids[asking][:, None] == block.ids[rows]] = -np.inf
        return values
