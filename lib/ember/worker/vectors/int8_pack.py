"""Operands of filter products in integers: leading coordinates in int16, the others in int8.

Most of the length of a rotated vector lies in its first coordinates; what is lost by rounding the
many small ones to a few bits is small, and known for each row. Which pairs pass: bounds.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float64, Int32
from ember.worker.vectors.block import Block
from ember.worker.vectors.int8_layout import LEADING, PANEL_COLUMNS
from ember.worker.vectors.pack import Filter, prefix_of, slack_of
from ember.worker.vectors.threads import plain

NO_ROW = -(2**31)
"""Bias of a padding column."""
EVERY = 2**31 - 2
"""Bias of a column of zeros whose pairs must all pass: floors of distances, the only metric with
such columns, are below it. One less than int8_kernel.NEVER, which no sum may reach."""
_LIMIT = 32_000.0
"""Most that a value in int16 may be before it is rounded up."""
_NORM, _SPREAD = 240.0, 32.0
"""Norm of the int8 values of a usual row, which keeps either half below 181. Of few values: so
many times the square root of their number, since larger ones would be clipped."""
_USUAL = 0.99
"""The quantile of norms that counts as usual."""
_SOME = 2048
"""Rows, at most, on which it is measured."""
_LARGEST = 1e38
"""The largest scale: still a float32 number."""


@dataclass(frozen=True)
class Scales:
    """What coordinates are multiplied by: ``coarse`` for int8, ``fine`` for int16.

    ``ratio`` is (fine / coarse)^2, an integer below 2^15.
    """

    coarse: float
    ratio: int

    @property
    def fine(self) -> float:
        return self.coarse * math.sqrt(self.ratio)

    @property
    def squared(self) -> float:
        return self.ratio * self.coarse * self.coarse


@dataclass(frozen=True)
class Int8Rows:
    """n rows on the left. values: (n, w), see int8_rounding.py. offset: (n,)."""

    values: Int32
    offset: Float64
    scales: Scales
    low: int

    def __getitem__(self, part: slice) -> Int8Rows:
        return Int8Rows(self.values[part], self.offset[part], self.scales, self.low)

    def product(self) -> tuple[Int32, int, int]:
        """The values, how many words of a row are int8, and the scales' ratio."""
        return self.values, self.low, self.scales.ratio

    def arrays(self) -> tuple[tuple[Int32, int, int], Float64, float]:
        """What a product takes, and what its floors take: offsets and the squared scale."""
        return self.product(), self.offset, self.scales.squared


@dataclass(frozen=True)
class Int8Columns:
    """n rows on the right, in panels of 16.

    Attributes:
        panels: (ceil(n / 16), w, 16), see int8_rounding.py.
        bias: (16 ceil(n / 16),), NO_ROW for padding: no floor is as low.
    """

    panels: Int32
    bias: Int32

    def __getitem__(self, part: slice) -> Int8Columns:
        """Raises ValueError for a part that begins or ends within a panel."""
        start, stop, _ = part.indices(len(self.bias))
        if start % PANEL_COLUMNS or stop % PANEL_COLUMNS:
            raise ValueError(f"rows {start} to {stop} are no panels of {PANEL_COLUMNS}")
        panels = self.panels[start // PANEL_COLUMNS : stop // PANEL_COLUMNS]
        return Int8Columns(panels, self.bias[start:stop])

    def arrays(self) -> tuple[Int32, Int32]:
        return self.panels, self.bias


def scales_for(left: Block, right: Block, how: Filter) -> Scales:
    """Scales for both blocks and parts of them: as bounds.py demands, and most rows fill int8."""
    longest, usual, width = 0.0, 0.0, how.width or left.basis.dimension
    for block in (left, right):
        if len(block):
            grown = block.lengths.max() * (1.0 + 2.0 * slack_of(block, how.width))
            longest = max(longest, math.sqrt(grown))
            some = _low_norms(block.take(slice(None, None, -(-len(block) // _SOME))), how.width)
            usual = max(usual, float(np.quantile(some, _USUAL)))
    if not longest:
        return Scales(1.0, 1)
    # Halves of the room each for a row's own norm and for what rounding adds to it.
    coarse = min(0.5 * _LIMIT / (math.sqrt(2.0) * longest), _LARGEST)
    if usual:
        norm = min(_NORM, _SPREAD * math.sqrt(max(width - LEADING, 1)))
        coarse = min(coarse, norm / usual)
    fine = _LIMIT / (math.sqrt(2.0) * longest + math.sqrt(width) / coarse)
    return Scales(coarse, min(max(1, math.floor((fine / coarse) ** 2)), 2**15 - 1))


def _low_norms(block: Block, width: int | None) -> Float64:
    """(n,) norms of the coordinates that become int8; of all where the basis has no width 16."""
    widths = block.basis.widths
    if width is None or LEADING not in widths:
        return np.sqrt(block.lengths)
    first, last = (
        block.tails[:, widths.index(some)].astype(np.float64) for some in (LEADING, width)
    )
    return np.sqrt(np.maximum(first**2 - last**2, 0.0))


def pack_int8(block: Block, how: Filter, *, right: bool, scales: Scales) -> Int8Rows | Int8Columns:
    """Pack a block for a filter in integers.

    Arguments are as for `pack.pack`, and ``scales`` those for this and the other block, or for
    larger ones. Raises ValueError where it is not available.
    """
    from ember.worker.vectors import int8_kernel, int8_rounding

    if not int8_kernel.available():
        raise ValueError("compiled code may not use AVX2 here, which int8 needs; take float32")
    slack = slack_of(block, how.width)
    values, squares = prefix_of(block, how.width)
    width = how.width or block.basis.dimension
    last = np.sqrt(squares + slack * block.lengths)
    error = bounds.int16_error(min(width, LEADING), scales.fine)
    allowance = error * (1.0 + slack) * np.sqrt(block.lengths)
    if block.metric == "euclidean":
        allowance -= 0.5 * block.lengths
    low = max(1, -(-(width - LEADING) // 4))
    row = (plain(values), last, (width, low, right), (scales.coarse, scales.fine))
    beyond = block.sizes == np.inf  # rows whose pairs all pass
    if not right:
        offset = np.where(beyond, np.inf, scales.squared * allowance)
        return Int8Rows(int8_rounding.pack_rows(*row), offset, scales, low)
    panels = int8_rounding.pack_panels(*row)
    bias = np.full(len(panels) * PANEL_COLUMNS, NO_ROW, np.int32)
    bias[: len(block)] = np.where(
        beyond, EVERY, np.ceil(scales.squared * (allowance + error * error)) + 1.0
    )
    return Int8Columns(panels, bias)
