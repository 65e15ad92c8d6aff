"""Tiles: a filter's product of some rows with others, and the pairs that it lets through.

All of it is one compiled loop (loops.py), whose products stay in the cache. One floor for each row
on the left rises as better pairs turn up, or stays: top-k and threshold differ in nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.basis import METRICS
from ember.worker.vectors.block import Block
from ember.worker.vectors.filters import Fitted, Packed
from ember.worker.vectors.threads import plain

if TYPE_CHECKING:
    from ember.worker.vectors import loops

TILE_ROWS = 256
TILE_COLUMNS = 1024
"""Both are multiples of filters.PANEL_COLUMNS."""
_FOUND_TILES = 4
"""Tiles whose pairs have room, if all of them pass, before they are handed out."""


class Which(IntEnum):
    """Which pairs count, by the keys of their rows; see `loops.Rule`."""

    ALL = 0
    OTHER_KEYS = 1
    LARGER_RIGHT_KEYS = 2


@dataclass(frozen=True)
class Side:
    """Rows on one side of a comparison: n packed, (n, d) scaled, (n,) sizes and int64 keys."""

    packed: Packed
    scaled: Float32
    sizes: Float64
    keys: Int64

    @classmethod
    def of(cls, block: Block, packed: Packed, keys: Int64) -> Side:
        return cls(packed, plain(block.scaled), plain(block.sizes), plain(keys))

    def arrays(self) -> loops.Rows:
        """For compiled loops."""
        return self.packed.arrays(), self.scaled, self.sizes, self.keys

    def take(self, part: slice) -> Side:
        return Side(*(getattr(self, field.name)[part] for field in fields(self)))


@dataclass(frozen=True)
class Candidates:
    """Pairs that may count: (p,) positions, F (bounds.py) of the pair, a bound on its error."""

    i: Int64
    j: Int64
    value: Float64
    error: Float64


@dataclass(frozen=True)
class Tiles:
    """How rows are compared: by a fitted filter, by a metric, and which pairs count at all."""

    how: Fitted
    metric: str
    which: Which

    def candidates(
        self, left: Side, right: Side, floor: Float64, best: Float32
    ) -> Iterator[Candidates]:
        """The pairs that may reach their left row's floor, in portions.

        Args:
            left: a rows, at most TILE_ROWS.
            right: b rows.
            floor: (a,) float64, F that pairs must reach. Raised, where ``best`` has places.
            best: (a, k) float32, lower bounds of the k best F of each left row, as heaps; changed.
                With k = 0 floors stay.
        """
        # Plain numbers, as compiled loops take them.
        slack = bounds.dot_slack(left.scaled.shape[1])
        rule = int(self.which), METRICS.index(self.metric), slack
        rows, others = left.arrays(), right.arrays()
        first = 0  # column; a call ends early when its room is full
        while first < len(right.keys) and len(left.keys):
            room = _room(len(left.keys) * TILE_COLUMNS)
            count, first = self.how.candidates(rows, others, rule, floor, best, first, room)
            if count:
                _, i, j, value, error = room
                # Copies, (count,) each: the room is used again.
                positions = i[:count].copy(), j[:count].copy()
                yield Candidates(*positions, value[:count].copy(), error[:count].copy())


_buffers = threading.local()


def _room(size: int) -> loops.Room:
    """This thread's buffers for tiles of so many pairs."""
    if getattr(_buffers, "size", 0) != size:
        room = _FOUND_TILES * size
        places = np.empty((2, room), np.int64)  # i and j
        # Products of one tile; then positions, values and errors of the pairs of several.
        _buffers.room = np.empty(size, np.float32), *places, *np.empty((2, room))
        _buffers.size = size
    found: loops.Room = _buffers.room
    return found
