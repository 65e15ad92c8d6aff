"""An Arrow column of embeddings as one float32 matrix, and the rows that cannot be compared.

The usual column (float32, no nulls, one length) becomes a matrix without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ember.similarity.arrays import Float32, Int64
from ember.similarity.projection import check_metric

NULL = "null embedding"
NOT_FINITE = "not finite"
ZERO_NORM = "zero norm"


@dataclass(frozen=True)
class Vectors:
    """The usable rows of a column of n embeddings.

    Attributes:
        matrix: (m, d) float32, C-contiguous; shares Arrow's memory where no row was left out.
        kept: (n,) bool, m of them true.
        reasons: position to reason, for every row that is not kept.
    """

    matrix: Float32
    kept: NDArray[np.bool_]
    reasons: dict[int, str]


def read_vectors(
    column: pa.Array | pa.ChunkedArray, metric: str, dimension: int | None = None
) -> Vectors:
    """Split a column into a matrix and rejected rows.

    Args:
        column: list, large_list or fixed_size_list of floating-point numbers, n rows.
        metric: cosine, inner_product or euclidean; only cosine rejects zero rows.
        dimension: the length that rows must have; by default the first usable row's.

    Returns:
        The matrix and, for each row left out, one of "null embedding" (also where a value inside is
        null), "wrong length: 3 instead of 384", "not finite", "zero norm".

    Raises:
        ValueError: the column does not hold lists of floating-point numbers, or the metric is
            unknown.
    """
    check_metric(metric)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values, starts, lengths, present = _layout(column)
    if dimension is None:
        usable = np.flatnonzero(present & (lengths > 0))
        dimension = int(lengths[usable[0]]) if len(usable) else 0
    fits = present & (lengths == dimension)
    reasons = {int(row): NULL for row in np.flatnonzero(~present)}
    for row in np.flatnonzero(present & ~fits):
        reasons[int(row)] = wrong_length(lengths[row], dimension)
    rows = np.flatnonzero(fits)
    matrix = _matrix(values, starts[rows], dimension)
    bad = _unusable(matrix, metric)
    for position, reason in bad.items():
        reasons[int(rows[position])] = reason
    if bad:
        good = np.ones(len(rows), np.bool_)
        good[list(bad)] = False
        matrix, rows = matrix[good], rows[good]
    kept = np.zeros(len(column), np.bool_)
    kept[rows] = True
    return Vectors(matrix, kept, dict(sorted(reasons.items())))


def wrong_length(length: int, dimension: int) -> str:
    """The reason to leave out a row of another length."""
    return f"wrong length: {length} instead of {dimension}"


def _layout(column: pa.Array) -> tuple[Float32, Int64, Int64, NDArray[np.bool_]]:
    """Flat float32 values, first position and length of each row, and whether it has no null."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists or pa.types.is_fixed_size_list(kind)) or not pa.types.is_floating(
        kind.value_type
    ):
        raise ValueError(f"embeddings must be lists of floating-point numbers, got {kind}")
    n = len(column)
    flat = column.values
    if lists:
        offsets = column.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    else:
        starts = (np.arange(n, dtype=np.int64) + column.offset) * kind.list_size
        lengths = np.full(n, kind.list_size, np.int64)
    present = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    if flat.null_count:
        holes = np.concatenate([[0], np.cumsum(flat.is_null().to_numpy(zero_copy_only=False))])
        present &= holes[starts + lengths] == holes[starts]
    values = flat.cast(pa.float32(), safe=False)
    return _values(values), starts, lengths, present


def _values(flat: pa.FloatArray) -> Float32:
    """Values as they lie in the buffer, whatever stands in the place of nulls."""
    data = flat.buffers()[1]
    if data is None:
        return np.empty(0, np.float32)
    values: Float32 = np.frombuffer(data, np.float32)[flat.offset : flat.offset + len(flat)]
    return values


def _matrix(values: Float32, starts: Int64, dimension: int) -> Float32:
    """(n, dimension): a view where the rows lie one behind the other, else a copy."""
    n = len(starts)
    if n == 0 or dimension == 0:
        return np.empty((n, dimension), np.float32)
    if np.array_equal(starts, starts[0] + dimension * np.arange(n, dtype=np.int64)):
        return values[starts[0] : starts[0] + n * dimension].reshape(n, dimension)
    windows = np.lib.stride_tricks.sliding_window_view(values, dimension)
    return np.ascontiguousarray(windows[starts])


def _unusable(matrix: Float32, metric: str) -> dict[int, str]:
    """Position to reason for rows with NaN or infinity and, for cosine, without length."""
    # A float64 sum of squares is finite for all finite float32 rows, and zero for zero rows only.
    squares = np.zeros(len(matrix), np.float64)
    for start in range(0, len(matrix), 4096):
        part = matrix[start : start + 4096].astype(np.float64)
        squares[start : start + 4096] = np.einsum("ij,ij->i", part, part)
    reasons = {int(row): NOT_FINITE for row in np.flatnonzero(~np.isfinite(squares))}
    if metric == "cosine":
        reasons |= {int(row): ZERO_NORM for row in np.flatnonzero(squares == 0)}
    return reasons
