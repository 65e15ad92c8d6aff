"""An Arrow column of embeddings as one matrix, and the rows that cannot be compared.

The usual column (float32, no nulls, one length) becomes a matrix without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ember.worker.vectors.arrays import Int64, Stored
from ember.worker.vectors.basis import check_metric
from ember.worker.vectors.bounds import MAX_NORM

NULL = "null embedding"
NO_LENGTH = -1
"""In the place of the length of a vector that is not there."""
NOT_FINITE = "not finite"
ZERO_NORM = "zero norm"
BEYOND_FLOAT32 = "beyond float32"
_LARGEST = float(np.finfo(np.float32).max)
LONGEST = {"cosine": np.inf, "inner_product": MAX_NORM, "euclidean": 1.7e38}
"""Norms up to which no score of a metric overflows float32, which 2 x 1.7e38 does not."""
_SHORTEST = 1e-140
"""Squares of shorter rows of float64 lose digits."""


@dataclass(frozen=True)
class Vectors:
    """The usable rows of a column of n embeddings.

    Attributes:
        matrix: (m, d) float32 or float64, C-contiguous; shares Arrow's memory where no row was
            left out.
        kept: (n,) bool, m of them true.
        reasons: position to reason, for every row that is not kept.
    """

    matrix: Stored
    kept: NDArray[np.bool_]
    reasons: dict[int, str]


def by_length(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a batch by the length of their `embedding`, `NO_LENGTH` of those without one."""
    found = pc.fill_null(pc.list_value_length(batch.column("embedding")), NO_LENGTH)
    each = pc.unique(found).to_pylist()
    for length in each:
        yield length, batch if len(each) == 1 else batch.filter(pc.equal(found, length))


def read_vectors(
    column: pa.Array | pa.ChunkedArray,
    metric: str | None,
    dimension: int | None = None,
    *,
    exact: bool = False,
) -> Vectors:
    """Split a column into a matrix and rejected rows.

    Args:
        column: list, large_list or fixed_size_list of floating-point numbers, n rows.
        metric: cosine, inner_product or euclidean; None where rows are not compared. Only cosine
            rejects zero rows, the others rows whose scores could overflow float32.
        dimension: the length that rows must have; by default the first usable row's.
        exact: float64 stays float64; else it is rounded.

    Returns:
        The matrix and, for each row left out, one of "null embedding" (also where a value inside is
        null), "wrong length: 3 instead of 384", "not finite", "beyond float32" (a double), "zero
        norm", "norm above 1e+19: …", "norm below 1e-140: …".

    Raises:
        ValueError: the column does not hold lists of floating-point numbers, or the metric is
            unknown.
    """
    if metric is not None:
        check_metric(metric)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values, starts, lengths, present = _layout(column, exact)
    if dimension is None:
        usable = np.flatnonzero(present & (lengths > 0))
        dimension = int(lengths[usable[0]]) if len(usable) else 0
    fits = present & (lengths == dimension)
    reasons = {int(row): NULL for row in np.flatnonzero(~present)}
    for row in np.flatnonzero(present & ~fits):
        reasons[int(row)] = wrong_length(lengths[row], dimension)
    rows = np.flatnonzero(fits)
    matrix = _matrix(values, starts[rows], dimension)
    bad = unusable(matrix, metric)
    if column.type.value_type == pa.float64():
        infinite = [row for row, why in bad.items() if why == NOT_FINITE]
        bad |= {row: BEYOND_FLOAT32 for row in infinite if _is_finite(column[int(rows[row])])}
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


def _is_finite(row: pa.Scalar) -> bool:
    return bool(np.isfinite(row.values.to_numpy()).all())


def _layout(column: pa.Array, exact: bool) -> tuple[Stored, Int64, Int64, NDArray[np.bool_]]:
    """Flat values, float32 if not exact; first position and length of each row, whether it has no
    null.
    """
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
    if not (exact and flat.type == pa.float64()):
        flat = flat.cast(pa.float32(), safe=False)
    return _values(flat), starts, lengths, present


def _values(flat: pa.Array) -> Stored:
    """Values as they lie in the buffer, whatever stands in the place of nulls."""
    data, kind = flat.buffers()[1], flat.type.to_pandas_dtype()
    if data is None:
        return np.empty(0, kind)
    values: Stored = np.frombuffer(data, kind)[flat.offset : flat.offset + len(flat)]
    return values


def _matrix(values: Stored, starts: Int64, dimension: int) -> Stored:
    """(n, dimension): a view where the rows lie one behind the other, else a copy."""
    n = len(starts)
    if n == 0 or dimension == 0:
        return np.empty((n, dimension), values.dtype)
    if np.array_equal(starts, starts[0] + dimension * np.arange(n, dtype=np.int64)):
        return values[starts[0] : starts[0] + n * dimension].reshape(n, dimension)
    windows = np.lib.stride_tricks.sliding_window_view(values, dimension)
    return np.ascontiguousarray(windows[starts])


def unusable(matrix: Stored, metric: str | None) -> dict[int, str]:
    """Position to reason for rows that are not finite or not within what the metric compares."""
    # A float64 sum of squares is finite for all finite float32 rows, and zero for zero rows only.
    squares = np.zeros(len(matrix), np.float64)
    with np.errstate(over="ignore"):
        for start in range(0, len(matrix), 4096):
            part = matrix[start : start + 4096].astype(np.float64)
            squares[start : start + 4096] = np.einsum("ij,ij->i", part, part)
    most = LONGEST[metric] if metric else np.inf
    reasons = {}
    if matrix.dtype == np.float64:
        large = np.flatnonzero(~(squares <= _LARGEST**2))
        beyond = large[~(np.abs(matrix[large]) <= _LARGEST).all(axis=1)]
        reasons = dict.fromkeys(beyond.tolist(), NOT_FINITE)
    else:
        reasons = dict.fromkeys(np.flatnonzero(~np.isfinite(squares)).tolist(), NOT_FINITE)
    for row in np.flatnonzero(squares > most * most):
        reasons.setdefault(int(row), f"norm above {most:g}: {metric} scores may exceed float32")
    if metric == "cosine":
        for row in np.flatnonzero(squares < _SHORTEST**2):
            zero = not matrix[row].any()
            reasons[int(row)] = ZERO_NORM if zero else f"norm below {_SHORTEST:g}: too short"
    return reasons
