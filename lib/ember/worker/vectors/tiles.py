"""Tiles: a filter product whose result stays in the cache, and the pairs that it lets through.

On the CPU, in float32 or int8, all of it is one compiled loop (loops.py); with bfloat16 or on a
GPU the products are torch's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.basis import METRICS
from ember.worker.vectors.block import Block
from ember.worker.vectors.int8_pack import Int8Columns, Int8Rows, Scales, pack_int8, scales_for
from ember.worker.vectors.pack import Filter, pack, rounding_residual
from ember.worker.vectors.scores import float32_below
from ember.worker.vectors.threads import plain, tensor

if TYPE_CHECKING:
    import torch

    from ember.worker.vectors import loops

Operand = Any
"""(n, w) float32 array, Int8Rows or Int8Columns, or a tensor: in bfloat16, or on a GPU."""
Shared = float | Scales
"""What both blocks of a product are packed with: see `common`."""
TILE_ROWS = 256
TILE_COLUMNS = 1024
"""Both are multiples of int8_layout.PANEL_COLUMNS, so that tiles and parts of blocks are panels."""
_FOUND_TILES = 4
"""Tiles whose pairs have room, if all of them pass, before they are handed out."""

_GATHERED = 1 << 24
"""Float32 values of rows that are gathered at once on a GPU."""


class Which(IntEnum):
    """Which pairs count, by the keys of their rows; see `loops.Rule`."""

    ALL = 0
    OTHER_KEYS = 1
    LARGER_RIGHT_KEYS = 2


@dataclass(frozen=True)
class Side:
    """Rows on one side of a comparison: n packed, (n, d) scaled, (n,) sizes and int64 keys."""

    packed: Operand
    scaled: Float32
    sizes: Float64
    keys: Int64

    @classmethod
    def of(cls, block: Block, packed: Operand, keys: Int64) -> Side:
        return cls(packed, plain(block.scaled), plain(block.sizes), plain(keys))

    def arrays(self) -> loops.Rows:
        """For compiled loops; packed as an array, or as what int8 takes."""
        whole = isinstance(self.packed, Int8Rows | Int8Columns)
        packed = self.packed.arrays() if whole else np.asarray(self.packed)
        return packed, self.scaled, self.sizes, self.keys

    def take(self, part: slice) -> Side:
        return Side(*(getattr(self, field.name)[part] for field in fields(self)))


@dataclass(frozen=True)
class Candidates:
    """Pairs that may count: (p,) positions, F (bounds.py) of the pair, a bound on its error."""

    i: Int64
    j: Int64
    value: Float64
    error: Float64


def common(left: Block, right: Block, how: Filter) -> Shared:
    """What both blocks are packed with: in int8 scales, in bfloat16 the larger residual of two."""
    if how.precision == "int8":
        return scales_for(left, right, how)
    if how.precision == "float32":  # each block is packed by itself
        return 0.0
    return max(rounding_residual(block, how.width) for block in (left, right))


def operands(
    left: Block, right: Block, how: Filter, device: str, shared: Shared | None = None
) -> tuple[Operand, Operand]:
    """Both operands of the filter product, on the device; ``shared`` is `common` of the blocks."""
    shared = common(left, right, how) if shared is None else shared
    return (
        operand(left, how, shared, device, right=False),
        operand(right, how, shared, device, right=True),
    )


def operand(block: Block, how: Filter, shared: Shared, device: str, *, right: bool) -> Operand:
    """One operand; ``shared`` is `common` of it and the other, or of larger blocks."""
    if isinstance(shared, Scales):
        return pack_int8(block, how, right=right, scales=shared)
    return to_device(pack(block, how, right=right, residual=shared), how, device)


def to_device(packed: Float32, how: Filter, device: str) -> Operand:
    """A packed block in the filter's precision: an array as it is, or a tensor of torch's."""
    if device == "cpu" and how.precision == "float32":
        return packed
    import torch

    # On a GPU int8 is not chosen: its products are float32 or bfloat16.
    dtype = torch.bfloat16 if how.precision == "bfloat16" else torch.float32
    return tensor(packed).to(device=device, dtype=dtype)


def candidates(
    left: Side, right: Side, metric: str, floor: Float64, best: Float32, *, which: Which
) -> Iterator[Candidates]:
    """The pairs that may reach their left row's floor, in portions.

    Args:
        left: a rows, at most TILE_ROWS.
        right: b rows.
        metric: cosine, inner_product or euclidean.
        which: which pairs count at all.
        floor: (a,) float64, F that pairs must reach. Raised, where ``best`` has places.
        best: (a, k) float32, lower bounds of the k best F of each left row, as heaps; changed.
            With k = 0 floors stay.
    """
    from ember.worker.vectors import loops

    # Plain numbers, as compiled loops take them.
    rule = (int(which), METRICS.index(metric), bounds.dot_slack(left.scaled.shape[1]))
    in_int8 = isinstance(left.packed, Int8Rows)
    if not in_int8 and not isinstance(left.packed, np.ndarray):  # a tensor of torch's
        # A GPU takes all columns at once, a core as many as stay in its cache.
        step = _FOUND_TILES * TILE_COLUMNS if left.packed.device.type == "cpu" else len(right.keys)
        for start in range(0, len(right.keys), max(step, 1)):
            part = right.take(slice(start, start + step))
            i, j, value, error = _passed(left, part, rule, floor, best)
            yield Candidates(i, j + start, value, error)
        return
    compare = loops.candidates_int8 if in_int8 else loops.candidates
    first = 0  # column; a call ends early when its room is full
    while first < len(right.keys) and len(left.keys):
        room = _room(len(left.keys) * TILE_COLUMNS)
        count, first = compare(left.arrays(), right.arrays(), rule, floor, best, first, room)
        if count:
            _, i, j, value, error = room
            # Copies, (count,) each: the room is used again.
            positions = i[:count].copy(), j[:count].copy()
            yield Candidates(*positions, value[:count].copy(), error[:count].copy())


def passing(left: Operand, right: Operand, floor: Float64) -> Int64:
    """(a,) how many of the products with each row on the left reach its floor; on the CPU."""
    if isinstance(left, Int8Rows):
        from ember.worker.vectors import int8_kernel

        least, rows = np.empty(len(floor), np.int32), len(right.bias)
        int8_kernel.floors(floor, left.offset, left.scales.squared, least)
        i, j = np.empty((2, len(floor) * rows), np.int64)  # room for all pairs
        count = int8_kernel.reaching(left.product(), right.arrays(), least, i, j)
        return np.bincount(i[:count], minlength=len(floor))
    products = left @ right.T  # (a, b)
    if not isinstance(products, np.ndarray):
        products = products.float().numpy()
    counts: Int64 = np.count_nonzero(products >= floor[:, None], axis=1)
    return counts


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


def _passed(
    left: Side, right: Side, rule: loops.Rule, floor: Float64, best: Float32
) -> tuple[Int64, Int64, Float64, Float64]:
    """`candidates` by torch, on the device of the packed rows."""
    from ember.worker.vectors import loops

    a: torch.Tensor = left.packed
    i, j = _survivors(a, right.packed, float32_below(floor))  # (p,) each
    counted = loops.counts_all(left.keys[i], right.keys[j], rule[0])
    i, j = i[counted], j[counted]
    # In float32, whatever the filter's precision.
    dots = dots_at(left.scaled, right.scaled, i, j, a.device)
    norms = left.sizes[i], right.sizes[j]
    value, error, kept = loops.offer(i, dots, norms, rule, floor, best)
    return i[kept], j[kept], value[kept], error[kept]


def _survivors(left: torch.Tensor, right: torch.Tensor, floor: Float32) -> tuple[Int64, Int64]:
    """Positions of the entries of ``left @ right.T`` that reach their row's floor."""
    import torch

    from ember.worker.vectors import loops

    products = left @ right.T  # (a, b) on the device, in the filter's precision
    if left.device.type != "cpu":
        # Only the positions of survivors come back to the CPU.
        mask = products >= torch.from_numpy(floor).to(left.device)[:, None]
        rows, columns = mask.nonzero().cpu().numpy().T
        return np.ascontiguousarray(rows), np.ascontiguousarray(columns)
    # Positive bfloat16 numbers order like their bits, negative ones have negative bits; integers
    # are compared several times faster than torch compares bfloat16.
    i, j = np.empty((2, products.numel()), np.int64)
    count = loops.reaching(products.view(torch.int16).numpy(), _floor_bits(floor), i, j)
    return i[:count].copy(), j[:count].copy()


def _floor_bits(floor: Float32) -> NDArray[np.int16]:
    """Bits of the next lower bfloat16; the least integer, which all reach, for floors <= 0."""
    # The upper half of the bits of a float32 is the bfloat16 next to zero.
    high = (np.ascontiguousarray(floor).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    return np.where(floor > 0, high, np.iinfo(np.int16).min).astype(np.int16)


def dots_at(left: Float32, right: Float32, i: Int64, j: Int64, device: torch.device) -> Float32:
    """(p,) float32 dot products of the rows left[i] and right[j]; i and j are (p,) int64."""
    import torch

    from ember.worker.vectors import loops

    if device.type == "cpu":
        return loops.dots(left, right, i, j)
    a, b = tensor(left).to(device), tensor(right).to(device)  # (n, d), (m, d)
    result = np.empty(len(i), np.float32)
    step = max(1, _GATHERED // left.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        rows, columns = (torch.from_numpy(places[part]).to(device) for places in (i, j))
        # (step, d) gathered rows on either side.
        result[part] = torch.linalg.vecdot(a[rows], b[columns]).cpu().numpy()
    return result
