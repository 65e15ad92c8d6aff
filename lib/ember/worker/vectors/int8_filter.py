"""The filter in integers: leading coordinates in int16, the others in int8.

Most of the length of a rotated vector lies in its first coordinates; what is lost by rounding the
many small ones to a few bits is small, and known for each row. Which pairs pass: bounds.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float64, Int32, Int64
from ember.worker.vectors.block import Block
from ember.worker.vectors.bounds import LEADING
from ember.worker.vectors.filters import PANEL_COLUMNS, prefix_of, slack_of
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


@dataclass(frozen=True)
class Int8Filter:
    """See filters.py. Raises ValueError when it is fitted where it is not available."""

    width: int | None
    precision: ClassVar[str] = "int8"

    def __str__(self) -> str:
        return f"int8, {self.width or 'all'} dimensions"

    @staticmethod
    def available() -> bool:
        """Whether compiled code may use AVX2 here."""
        from ember.worker.vectors import int8_kernel

        return int8_kernel.available()

    def fit(self, left: Block, right: Block) -> FittedInt8:
        if not self.available():
            raise ValueError("compiled code may not use AVX2 here, which int8 needs; take float32")
        return FittedInt8(self.width, _scales(left, right, self.width))


@dataclass(frozen=True)
class FittedInt8:
    """The filter with the scales of the longest rows on both sides."""

    width: int | None
    scales: Scales

    def left(self, block: Block) -> Int8Rows:
        from ember.worker.vectors import int8_rounding

        allowance, _ = self._allowance(block)
        offset = np.where(block.sizes == np.inf, np.inf, self.scales.squared * allowance)
        row = self._rounding(block, right=False)
        return Int8Rows(int8_rounding.pack_rows(*row), offset, self.scales, self._low(block))

    def right(self, block: Block) -> Int8Columns:
        from ember.worker.vectors import int8_rounding

        allowance, error = self._allowance(block)
        panels = int8_rounding.pack_panels(*self._rounding(block, right=True))
        bias = np.full(len(panels) * PANEL_COLUMNS, NO_ROW, np.int32)
        begin = np.ceil(self.scales.squared * (allowance + error * error)) + 1.0
        bias[: len(block)] = np.where(block.sizes == np.inf, EVERY, begin)
        return Int8Columns(panels, bias)

    @property
    def candidates(self) -> Callable[..., tuple[int, int]]:
        from ember.worker.vectors import loops

        return loops.candidates_int8

    def passing(self, left: Int8Rows, right: Int8Columns, floor: Float64) -> Int64:
        from ember.worker.vectors import int8_kernel

        least, rows = np.empty(len(floor), np.int32), len(right.bias)
        int8_kernel.floors(floor, left.offset, left.scales.squared, least)
        i, j = np.empty((2, len(floor) * rows), np.int64)  # room for all pairs
        count = int8_kernel.reaching(left.product(), right.arrays(), least, i, j)
        return np.bincount(i[:count], minlength=len(floor))

    def _rounding(self, block: Block, *, right: bool) -> tuple[Any, ...]:
        """Arguments of `int8_rounding.pack_rows`."""
        values, squares = prefix_of(block, self.width)
        last = np.sqrt(squares + slack_of(block, self.width) * block.lengths)
        layout = (self.width or block.basis.dimension, self._low(block), right)
        return plain(values), last, layout, (self.scales.coarse, self.scales.fine)

    def _allowance(self, block: Block) -> tuple[Float64, float]:
        """(n,) what rounding to int16 may add to F, less the halves; the bound that it is from."""
        width = self.width or block.basis.dimension
        error = bounds.int16_error(min(width, LEADING), self.scales.fine)
        allowance = error * (1.0 + slack_of(block, self.width)) * np.sqrt(block.lengths)
        if block.metric == "euclidean":
            allowance -= 0.5 * block.lengths
        return allowance, error

    def _low(self, block: Block) -> int:
        """How many words of a row are four int8."""
        return max(1, -(-((self.width or block.basis.dimension) - LEADING) // 4))


def _scales(left: Block, right: Block, width: int | None) -> Scales:
    """Scales for both blocks and parts of them: as bounds.py demands, and most rows fill int8."""
    longest, usual, count = 0.0, 0.0, width or left.basis.dimension
    for block in (left, right):
        if len(block):
            grown = block.lengths.max() * (1.0 + 2.0 * slack_of(block, width))
            longest = max(longest, math.sqrt(grown))
            some = _low_norms(block.take(slice(None, None, -(-len(block) // _SOME))), width)
            usual = max(usual, float(np.quantile(some, _USUAL)))
    if not longest:
        return Scales(1.0, 1)
    # Halves of the room each for a row's own norm and for what rounding adds to it.
    coarse = min(0.5 * _LIMIT / (math.sqrt(2.0) * longest), _LARGEST)
    if usual:
        norm = min(_NORM, _SPREAD * math.sqrt(max(count - LEADING, 1)))
        coarse = min(coarse, norm / usual)
    fine = _LIMIT / (math.sqrt(2.0) * longest + math.sqrt(count) / coarse)
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
