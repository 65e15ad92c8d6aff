"""What a filter is: a product of short rows that is nowhere below F (bounds.py) of the pair.

A search asks four things of one, whatever numbers it computes in:

    fit          what the rows of both sides are packed with, of the blocks that meet
    left, right  a block's rows as they stand on that side of the product
    candidates   which pairs may reach their floor, which rises meanwhile
    passing      how many do, by which filter_choice.py chooses; what a product costs it measures

float32_filter.py and int8_filter.py are the two there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.block import Block, vectors

PANEL_COLUMNS = 16
"""Rows of the right side whose values may lie side by side: no part of them is cut."""


class Packed(Protocol):
    """Rows on one side of a product."""

    def __getitem__(self, part: slice, /) -> Self:
        """Some of the rows; on the right a part begins and ends at multiples of PANEL_COLUMNS."""

    def arrays(self) -> Any:
        """What the compiled loops of the filter take."""


class Fitted(Protocol):
    """A filter that knows the blocks it is for: any parts of those that it was fitted to."""

    def left(self, block: Block) -> Packed: ...

    def right(self, block: Block) -> Packed: ...

    @property
    def candidates(self) -> Callable[..., tuple[int, int]]:
        """The compiled loop: see `loops.candidates`."""

    def passing(self, left: Any, right: Any, floor: Float64) -> Int64:
        """(a,) how many of the products with each row on the left reach its floor, (a,)."""


class Filter(Protocol):
    """Filters with equal fields are equal, and can be keys."""

    @property
    def precision(self) -> str: ...

    @property
    def width(self) -> int | None:
        """Of the rotated prefix, one of the basis's; None for all d coordinates as they are."""

    def fit(self, left: Block, right: Block) -> Fitted: ...


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
