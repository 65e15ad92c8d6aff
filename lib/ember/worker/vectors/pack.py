"""Operands of the filter product: prefix, slack coordinate, and halves of squared norms.

``f = left @ right.T`` of two packed blocks is nowhere below the exact values F of the pairs; the
proof is in bounds.py. Left and right differ for Euclidean distance only, where
F = v_a.v_b - |v_a|^2/2 - |v_b|^2/2 takes two more coordinates, (-h_a, 1) and (1, -h_b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64
from ember.worker.vectors.block import Block, vectors


@dataclass(frozen=True)
class Filter:
    """How pairs are filtered: a prefix width, or None for all d coordinates, and a precision."""

    width: int | None
    precision: str = "float32"  # float32 | int8 | bfloat16

    def __str__(self) -> str:
        return f"{self.precision}, {self.width or 'all'} dimensions"


def pack(block: Block, how: Filter, *, right: bool, residual: float = 0.0) -> Float32:
    """Pack a block for a filter.

    Args:
        block: n rows.
        how: the filter; its width must be one of the basis's, or None.
        right: for Euclidean distance, which side of the product this is.
        residual: for bfloat16, the larger `rounding_residual` of the two blocks.

    Returns:
        (n, width + 1) float32, (n, width + 3) for Euclidean distance.
    """
    slack = slack_of(block, how.width)
    if how.precision == "bfloat16":
        slack += bounds.bfloat16_slack(residual)
    prefix, squares = prefix_of(block, how.width)
    coordinate = np.sqrt(squares + slack * block.lengths) + bounds.SHORT
    width = how.width or block.basis.dimension
    extra = 2 if block.metric == "euclidean" else 0
    packed = np.empty((len(block), width + 1 + extra), np.float32)
    packed[:, :width] = prefix[:, :width]
    grow = 1.0 + 4.0 * (bounds.UNIT16 if how.precision == "bfloat16" else bounds.UNIT32)
    # Pairs of rows that float32 does not hold all pass.
    packed[:, width] = np.where(block.sizes == np.inf, np.inf, coordinate * grow)
    if extra:
        # Rounding of the product is relative to h_a and h_b here, too: lowered by that much.
        halves = -0.5 * block.lengths * (1.0 - 4.0 * slack)
        packed[:, width + 1] = 1.0 if right else halves
        packed[:, width + 2] = halves if right else 1.0
    return packed


def rounding_residual(block: Block, width: int | None) -> float:
    """Largest |p - bfloat16(p)| / |v| of the rows, from the actual residuals."""
    import torch

    prefix = np.ascontiguousarray(prefix_of(block, width)[0][:, :width])
    rounded = torch.from_numpy(prefix).bfloat16().float().numpy()
    residuals = np.sqrt(np.square(prefix - rounded, dtype=np.float64).sum(axis=1))
    lengths = np.sqrt(block.lengths)
    ratios = np.divide(residuals, lengths, out=np.zeros_like(residuals), where=lengths > 0)
    return float(ratios.max(initial=0.0))


def prefix_of(block: Block, width: int | None) -> tuple[Float32, Float64]:
    """(n, width or more) coordinates, and (n,) the squared norms of what they leave out."""
    if width is None:
        return np.ascontiguousarray(vectors(block)), np.zeros(len(block))
    column = block.basis.widths.index(width)
    return block.prefix, np.square(block.tails[:, column], dtype=np.float64)


def slack_of(block: Block, width: int | None) -> float:
    """Bound on the error of a packed float32 product, relative to |v_a| |v_b|."""
    if width is None:
        # No rotation: v is off by 2 u, and nothing is left out.
        return bounds.product_slack(block.basis.dimension) + 8.0 * bounds.UNIT32
    return bounds.rotation_slack(block.basis.dimension, width, block.basis.orthogonality)
