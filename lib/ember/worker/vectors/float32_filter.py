"""The filter in float32: prefix, slack coordinate, and halves of squared norms, in one product.

``f = left @ right.T`` is nowhere below the exact values F of the pairs; the proof is in bounds.py.
Left and right differ for Euclidean distance only, where F = v_a.v_b - |v_a|^2/2 - |v_b|^2/2 takes
two more coordinates, (-h_a, 1) and (1, -h_b).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.block import Block
from ember.worker.vectors.filters import prefix_of, slack_of


@dataclass(frozen=True)
class Float32Rows:
    """(n, w) float32 on either side."""

    values: Float32

    def __getitem__(self, part: slice) -> Float32Rows:
        return Float32Rows(self.values[part])

    def arrays(self) -> Float32:
        return self.values


@dataclass(frozen=True)
class Float32Filter:
    """See filters.py; each block is packed by itself, so that it fits any."""

    width: int | None
    precision: ClassVar[str] = "float32"

    def __str__(self) -> str:
        return f"float32, {self.width or 'all'} dimensions"

    def fit(self, left: Block, right: Block) -> Float32Filter:
        return self

    def left(self, block: Block) -> Float32Rows:
        return self._packed(block, right=False)

    def right(self, block: Block) -> Float32Rows:
        return self._packed(block, right=True)

    def _packed(self, block: Block, *, right: bool) -> Float32Rows:
        """(n, width + 1) float32, (n, width + 3) for Euclidean distance."""
        slack = slack_of(block, self.width)
        prefix, squares = prefix_of(block, self.width)
        coordinate = np.sqrt(squares + slack * block.lengths) + bounds.SHORT
        width = self.width or block.basis.dimension
        extra = 2 if block.metric == "euclidean" else 0
        packed = np.empty((len(block), width + 1 + extra), np.float32)
        packed[:, :width] = prefix[:, :width]
        # Pairs of rows that float32 does not hold all pass.
        grown = coordinate * (1.0 + 4.0 * bounds.UNIT32)
        packed[:, width] = np.where(block.sizes == np.inf, np.inf, grown)
        if extra:
            # Rounding of the product is relative to h_a and h_b here, too: lowered by that much.
            halves = -0.5 * block.lengths * (1.0 - 4.0 * slack)
            packed[:, width + 1] = 1.0 if right else halves
            packed[:, width + 2] = halves if right else 1.0
        return Float32Rows(packed)

    @property
    def candidates(self) -> Callable[..., tuple[int, int]]:
        from ember.worker.vectors import loops

        return loops.candidates

    def passing(self, left: Float32Rows, right: Float32Rows, floor: Float64) -> Int64:
        products = left.values @ right.values.T  # (a, b)
        counts: Int64 = np.count_nonzero(products >= floor[:, None], axis=1)
        return counts
