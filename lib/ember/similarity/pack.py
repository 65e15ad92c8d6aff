"""Operands of the filter product: prefix, slack coordinate, and halves of squared norms.

``f = left @ right.T`` of two packed blocks is nowhere below the exact values F of the pairs; the
proof is in bounds.py. Left and right differ for Euclidean distance only, where
F = v_a.v_b - |v_a|^2/2 - |v_b|^2/2 takes two more coordinates, (-h_a, 1) and (1, -h_b).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ember.similarity import bounds
from ember.similarity.block import Block, Float32, Float64, vectors
from ember.similarity.threads import plain

Int32 = NDArray[np.int32]

PANEL_COLUMNS = 16
"""Rows of the right side whose int16 values lie side by side."""
NO_ROW = -(2**31)
"""The bias of a column that is none."""
_LIMIT = 32_000.0
"""Norm of the longest row in int16."""


@dataclass(frozen=True)
class Filter:
    """How pairs are filtered: a prefix width, or None for all d coordinates, and a precision."""

    width: int | None
    precision: str = "float32"  # float32 | int16 | bfloat16

    def __str__(self) -> str:
        return f"{self.precision}, {self.width or 'all'} dimensions"


@dataclass(frozen=True)
class Int16Rows:
    """n rows on the left of an int16 product; which pairs pass it: bounds.py.

    values: (n, w / 2), two int16 in each. offset: (n,). squared: the scale's square.
    """

    values: Int32
    offset: Float64
    squared: float

    def __getitem__(self, part: slice) -> Int16Rows:
        return Int16Rows(self.values[part], self.offset[part], self.squared)

    def arrays(self) -> tuple[Int32, Float64, float]:
        return self.values, self.offset, self.squared


@dataclass(frozen=True)
class Int16Columns:
    """n rows on the right of an int16 product, in panels of 16.

    panels: (ceil(n / 16), w / 2, 16), two int16 in each. bias: (16 ceil(n / 16),), the least int32
    where there is no row: no floor is as low.
    """

    panels: Int32
    bias: Int32

    def __getitem__(self, part: slice) -> Int16Columns:
        """Raises ValueError for a part that begins or ends within a panel."""
        start, stop, _ = part.indices(len(self.bias))
        if start % PANEL_COLUMNS or stop % PANEL_COLUMNS:
            raise ValueError(f"rows {start} to {stop} are no panels of {PANEL_COLUMNS}")
        panels = self.panels[start // PANEL_COLUMNS : stop // PANEL_COLUMNS]
        return Int16Columns(panels, self.bias[start:stop])

    def arrays(self) -> tuple[Int32, Int32]:
        return self.panels, self.bias


def pack(block: Block, how: Filter, *, right: bool, residual: float = 0.0) -> Float32:
    """Pack a block for a filter.

    Args:
        block: n rows.
        how: the filter; its width must be one of the basis's, or None.
        right: for Euclidean distance, which side of the product this is.
        residual: for bfloat16, `common` of the two blocks.

    Returns:
        (n, width + 1) float32, (n, width + 3) for Euclidean distance.
    """
    slack = _slack(block, how.width)
    if how.precision == "bfloat16":
        slack += bounds.bfloat16_slack(residual)
    prefix, squares = _prefix(block, how.width)
    coordinate = np.sqrt(squares + slack * block.lengths) + bounds.SHORT
    width = how.width or block.basis.dimension
    extra = 2 if block.metric == "euclidean" else 0
    packed = np.empty((len(block), width + 1 + extra), np.float32)
    packed[:, :width] = prefix[:, :width]
    grow = 1.0 + 4.0 * (bounds.UNIT16 if how.precision == "bfloat16" else bounds.UNIT32)
    packed[:, width] = coordinate * grow
    if extra:
        # Rounding of the product is relative to h_a and h_b here, too: lowered by that much.
        halves = -0.5 * block.lengths * (1.0 - 4.0 * slack)
        packed[:, width + 1] = 1.0 if right else halves
        packed[:, width + 2] = halves if right else 1.0
    return packed


def common(left: Block, right: Block, how: Filter) -> float:
    """For what to pack both blocks: the scale in int16; in bfloat16 the larger residual of them."""
    if how.precision == "int16":
        return _scale(left, right, how)
    if how.precision == "float32":
        return 0.0
    return max(_rounding_residual(left, how.width), _rounding_residual(right, how.width))


def _rounding_residual(block: Block, width: int | None) -> float:
    """Largest |p - bfloat16(p)| / |v| of the rows, from the actual residuals."""
    import torch

    prefix = np.ascontiguousarray(_prefix(block, width)[0][:, :width])
    rounded = torch.from_numpy(prefix).bfloat16().float().numpy()
    residuals = np.sqrt(np.square(prefix - rounded, dtype=np.float64).sum(axis=1))
    lengths = np.sqrt(block.lengths)
    ratios = np.divide(residuals, lengths, out=np.zeros_like(residuals), where=lengths > 0)
    return float(ratios.max(initial=0.0))


def _scale(left: Block, right: Block, how: Filter) -> float:
    """What makes the norm of the longest row `_LIMIT`."""
    slack = _slack(left, how.width)
    longest = max(block.lengths.max(initial=0.0) for block in (left, right))
    return _LIMIT / math.sqrt(longest * (1.0 + 2.0 * slack)) if longest > 0 else 1.0


def pack_int16(block: Block, how: Filter, *, right: bool, scale: float) -> Int16Rows | Int16Columns:
    """Pack a block for an int16 filter; arguments as for `pack`, ``scale`` is `common`.

    Raises ValueError where int16 is not available.
    """
    from ember.similarity import int16

    if not int16.available():
        raise ValueError("compiled code may not use AVX2 here, which int16 needs; take float32")
    slack = _slack(block, how.width)
    values, squares = _prefix(block, how.width)
    width = how.width or block.basis.dimension
    packed = (plain(values), width, np.sqrt(squares + slack * block.lengths), scale)
    error = bounds.int16_error(width, scale)
    allowance = error * (1.0 + slack) * np.sqrt(block.lengths)
    if block.metric == "euclidean":
        allowance -= 0.5 * block.lengths
    if not right:
        return Int16Rows(int16.pack_rows(*packed), scale * scale * allowance, scale * scale)
    panels = int16.pack_panels(*packed)
    bias = np.full(len(panels) * PANEL_COLUMNS, NO_ROW, np.int32)
    bias[: len(block)] = np.ceil(scale * scale * (allowance + error * error)) + 1.0
    return Int16Columns(panels, bias)


def _prefix(block: Block, width: int | None) -> tuple[Float32, Float64]:
    """(n, width or more) coordinates, and (n,) the squared norms of what they leave out."""
    if width is None:
        return np.ascontiguousarray(vectors(block)), np.zeros(len(block))
    column = block.basis.widths.index(width)
    return block.prefix, np.square(block.tails[:, column], dtype=np.float64)


def _slack(block: Block, width: int | None) -> float:
    if width is None:
        # No rotation: v is off by 2 u, and nothing is left out.
        return bounds.product_slack(block.basis.dimension) + 8.0 * bounds.UNIT32
    return bounds.rotation_slack(block.basis.dimension, width, block.basis.orthogonality)
