"""Rows rounded to integers, as products of int8 and int16 take them; why: bounds.py, "Integers"."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ember.worker.compiled import ANY_ORDER, compiled
from ember.worker.vectors.arrays import Float32, Float64, Int32
from ember.worker.vectors.bounds import LEADING
from ember.worker.vectors.filters import PANEL_COLUMNS

Layout = tuple[int, int, bool]
"""How many coordinates a row has, how many words of four int8, and whether it is on the right."""
Parts = tuple[NDArray[np.int8], NDArray[np.int16]]
"""Words of rows as all that they could be made of."""

SHIFT = 64
"""What is added to int8 values on the left, to make them positive."""
_LEFT_LIMIT, _RIGHT_LIMIT = 63, 127
_HALF = 181.0
"""Norm of the half of a row's int8 values that one sum is made of: 181^2 < 2^15."""


def pack_rows(
    values: Float32, last: Float64, layout: Layout, scales: tuple[float, float], rows: int = 0
) -> Int32:
    """Rows in words.

    Args:
        values: (n, m), of which the layout says how many count.
        last: (n,) slack coordinates.
        layout: of each row.
        scales: coarse and fine.
        rows: of the result, where these are more than n; the others are zeros.

    Returns:
        (n or rows, w): for each row two int16 with which the right side's sums of products of int8
        begin; the words of four int8; and words of two int16: leading coordinates, the slack
        coordinate, and two that pay for what int8 loses.
    """
    words = np.zeros((max(rows, len(values)), _words(layout)), np.int32)
    _pack_rows(values, last, layout, scales, _as_parts(words))
    return words


def pack_panels(
    values: Float32, last: Float64, layout: Layout, scales: tuple[float, float]
) -> Int32:
    """The same, (ceil(n / 16), w, 16): 16 rows side by side."""
    rows = -(-len(values) // PANEL_COLUMNS) * PANEL_COLUMNS
    words = pack_rows(values, last, layout, scales, rows)
    panels = words.reshape(-1, PANEL_COLUMNS, words.shape[1])
    return np.ascontiguousarray(panels.transpose(0, 2, 1))


def _words(layout: Layout) -> int:
    width, low, _ = layout
    return 1 + low + (min(width, LEADING) + 3 + 1) // 2


def _as_parts(words: Int32) -> Parts:
    return words.view(np.int8), words.view(np.int16)


@compiled()
def _pack_rows(
    values: Float32, last: Float64, layout: Layout, scales: tuple[float, float], words: Parts
) -> None:
    room = np.zeros(4 * layout[1], np.float32)
    for row in range(len(values)):
        parts = words[0][row], words[1][row]
        _pack(values[row], last[row], layout, scales, (room, *parts))


@compiled()
def _pack(
    values: Float32, last: float, layout: Layout, scales: tuple[float, float],
    place: tuple[Float32, NDArray[np.int8], NDArray[np.int16]],
) -> None:  # fmt: skip
    """One row; ``place`` is room for all values in int8, zeros beyond them, and its words."""
    (coarse, fine), (width, low, right) = scales, layout
    rounded, eights, sixteens = place
    leading = min(LEADING, width)
    rest = values[leading:width]
    squares, first, second = _to_few_bits(rest, coarse, right, rounded)
    sixteens[0], sixteens[1] = np.int16(-SHIFT * first), np.int16(-SHIFT * second)
    shift = np.float32(0 if right else SHIFT)
    for k in range(len(rounded)):
        eights[4 + k] = np.int8(rounded[k] + shift)
    near, off = math.sqrt(squares) / coarse, _lost(rest, rounded, 1.0 / coarse)
    start = 2 * (1 + low)
    for k in range(leading):
        sixteens[start + k] = np.int16(np.rint(np.float64(values[k]) * fine))
    start += leading
    sixteens[start] = np.int16(np.ceil(last * fine))
    sixteens[start + 1] = np.int16(np.ceil((off if right else near) * fine))
    sixteens[start + 2] = np.int16(np.ceil((near + off if right else off) * fine))


@compiled()
def _to_few_bits(
    values: Float32, coarse: float, right: bool, rounded: Float32
) -> tuple[int, int, int]:
    """Write values as integers of few bits into ``rounded``.

    Those of a row that is too long for the scale become smaller than they should be. Returns their
    sum of squares, and the sums of both halves (bounds.py).
    """
    scale, most = coarse, np.float32(_RIGHT_LIMIT if right else _LEFT_LIMIT)
    while True:
        multiplier = np.float32(scale)
        for k in range(len(values)):
            rounded[k] = min(max(np.rint(values[k] * multiplier), -most), most)
        first = second = np.float32(0.0)
        squares = squares_of_second = np.float32(0.0)
        for k in range(0, len(rounded), 4):
            a, b, c, d = rounded[k], rounded[k + 1], rounded[k + 2], rounded[k + 3]
            first, second = first + (a + b), second + (c + d)
            squares += a * a + b * b
            squares_of_second += c * c + d * d
        larger = max(squares, squares_of_second)
        # Sums that are accepted are exact: integers far below 2^24.
        if larger <= _HALF * _HALF:
            return int(squares + squares_of_second), int(first), int(second)
        scale *= 0.98 * _HALF / math.sqrt(larger)


@compiled(fastmath=ANY_ORDER)
def _lost(values: Float32, rounded: Float32, inverse: float) -> float:
    """The norm of what values lose when they are rounded."""
    total = 0.0
    for k in range(len(values)):
        difference = np.float64(values[k]) - np.float64(rounded[k]) * inverse
        total += difference * difference
    return math.sqrt(total)
