"""Labeled rows as matrices: read from Arrow batches, measured, put on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ember.errors import InvalidInput
from ember.worker.heads.head import Float32
from ember.worker.vectors.vectors import read_vectors

__all__ = ["ColumnMoments", "Rows", "check_scale", "read_features", "read_rows", "scaling"]

Float64 = NDArray[np.float64]
_LEAST_SPREAD = 1e-4
_CHECKED_ROWS = 4096
_CHECKED_SHARES = (0.5, 0.75, 0.95)
_DENSE_SHARE = 0.25
# Few rows can be close by chance.
_LEAST_GROUP = 10
# Near-duplicates may differ by this share of their size: numbers of half precision do.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Rows:
    """n labeled rows.

    Attributes:
        matrix: (n, d) float32, the tables one behind the other; NaN where a row lacks a table.
        targets: of a single-label head (n,) int64, the label's position, -1 for one that the head
            does not have; of a multi-label head (n, c) bool.
        draw: (n,) float64 in [0, 1), from the id; decides the fold of a cross-validation.
        part: (n,) of train, validation, test.
    """

    matrix: Float32
    targets: NDArray[Any]
    draw: Float64
    part: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, chosen: NDArray[Any]) -> Rows:
        """The rows at positions, or where a mask is true."""
        return Rows(self.matrix[chosen], self.targets[chosen], self.draw[chosen], self.part[chosen])


def read_rows(
    batches: Iterable[pa.RecordBatch], labels: tuple[str, ...], multilabel: bool, parts: list[int]
) -> Rows:
    """Rows of batches (part, draw, labels list<string>, one column of vectors for each table)."""
    # Each begins with no rows, which is all there is without batches.
    matrices = [np.empty((0, sum(parts)), np.float32)]
    targets = [np.empty((0, len(labels)), bool) if multilabel else np.empty(0, np.int64)]
    draws, names = [np.empty(0)], [np.empty(0, np.str_)]
    for batch in batches:
        names.append(np.asarray(batch.column(0).to_pylist(), np.str_))
        draws.append(np.array(batch.column(1)))
        targets.append(_targets(batch.column(2), labels, multilabel))
        matrices.append(read_features(batch.columns[3:], parts))
    return Rows(*(np.concatenate(each) for each in (matrices, targets, draws, names)))


def read_features(columns: list[pa.Array], parts: list[int]) -> Float32:
    """Columns of vectors, nulls among them, as (n, sum(parts)) float32 with NaN for the nulls."""
    matrix = np.full((len(columns[0]), sum(parts)), np.nan, np.float32)
    start = 0
    for column, size in zip(columns, parts, strict=True):
        vectors = read_vectors(column, None, size)
        matrix[vectors.kept, start : start + size] = vectors.matrix
        start += size
    return matrix


def _targets(column: pa.ListArray, labels: tuple[str, ...], multilabel: bool) -> NDArray[Any]:
    positions = pc.index_in(column.flatten(), value_set=pa.array(labels, pa.string()))
    flat = pc.fill_null(positions, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = pc.list_parent_indices(column).to_numpy()
    if multilabel:
        present = np.zeros((len(column), len(labels)), bool)
        known = flat >= 0
        present[rows[known], flat[known]] = True
        return present
    single = np.full(len(column), -1, np.int64)
    single[rows] = flat
    return single


@dataclass(frozen=True)
class ColumnMoments:
    """Count, mean and squared deviations of each feature, over the rows that have it; mergeable.

    Merging follows Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance (1983).
    """

    count: Float64
    mean: Float64
    squares: Float64

    @classmethod
    def of(cls, matrix: Float32) -> ColumnMoments:
        """Of (n, d) rows; NaN is not counted."""
        exact = matrix.astype(np.float64)
        present = ~np.isnan(exact)
        count = present.sum(axis=0).astype(np.float64)
        mean = np.where(present, exact, 0).sum(axis=0) / np.maximum(count, 1)
        squares = (np.where(present, exact - mean, 0) ** 2).sum(axis=0)
        return cls(count, mean, squares)

    def merge(self, other: ColumnMoments) -> ColumnMoments:
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.count * share
        return ColumnMoments(count, self.mean + step * share, squares)

    @property
    def variance(self) -> Float64:
        out: Float64 = self.squares / np.maximum(self.count, 1)
        return out


def scaling(moments: ColumnMoments, parts: list[int], by: str) -> tuple[Float32, Float32]:
    """(mean, scale), (d,) float32 each, that put the tables on one scale.

    by: "feature" gives each feature unit variance; "table" gives the features of a table unit
        variance on the average and leaves their proportions as they are.
    A feature or table that does not vary has scale 1, as in scikit-learn's StandardScaler.
    """
    variance = moments.variance
    # What rounding leaves of the variance of a constant.
    noise = 10 * np.finfo(np.float32).eps * np.abs(moments.mean)
    variance = np.where(variance <= noise**2, 0, variance)
    if by == "table":
        ends = np.cumsum(parts)
        means = [variance[end - size : end].mean() for end, size in zip(ends, parts, strict=True)]
        variance = np.repeat(means, parts)
    scale = np.where(variance > 0, np.sqrt(variance), 1)
    # Half of the smallest float32 number would be rounded to zero.
    scale = np.maximum(scale, np.finfo(np.float32).smallest_subnormal)
    return moments.mean.astype(np.float32), scale.astype(np.float32)


def check_scale(matrix: Float32, parts: Sequence[int], scale: Float32) -> None:
    """Raise InvalidInput where very large rows leave nothing of many others.

    matrix: (n, d) raw rows. The rows of a table that lie closest together, from half of them to all
    but a twentieth, must vary by more than `_LEAST_SPREAD` of the scale, if at all: a head could
    not tell them apart. A group of less than nearly all rows may be near-duplicates, that differ by
    what rounding leaves. Only rows in the minority count as
    large: where less than half are small beside the others, those others set the scale, as in
    scikit-learn.
    """
    some = matrix[:: max(1, len(matrix) // _CHECKED_ROWS)].astype(np.float64)
    start = 0
    for number, size in enumerate(parts, 1):
        part = slice(start, start + size)
        start += size
        rows = some[~np.isnan(some[:, part]).any(axis=1), part]
        scaled = rows / scale[part]
        apart = np.square(scaled - _densest(scaled)).sum(axis=1)
        closest = np.argsort(apart, kind="stable")
        for share in reversed(_CHECKED_SHARES):
            count = int(len(rows) * share)
            most = share == _CHECKED_SHARES[-1]
            if count < (1 if most else _LEAST_GROUP):
                continue
            group = closest[:count]
            spread = np.sqrt(scaled[group].var(axis=0).mean())
            least = 0 if most else _ROUNDING * np.sqrt(np.square(scaled[group]).mean())
            differ = spread > least or (most and (rows[group] != rows[group[:1]]).any())
            if spread < _LEAST_SPREAD and differ:
                shown = "most rows differ" if most else f"{share:.0%} of the rows differ"
                raise InvalidInput(
                    f"features table {number}: {shown} by {spread:.1g} of the scale that very "
                    "large rows give it, so they could not be told apart; leave those out with "
                    "where"
                )


def _densest(matrix: Float64) -> Float64:
    """(d,) the middle of the shortest interval of each feature that has a quarter of the rows.

    Rousseeuw, Least Median of Squares Regression (1984), with a quarter in place of the half: large
    rows do not move it, however many there are up to three quarters.
    """
    if not len(matrix):
        return np.zeros(matrix.shape[1])
    ordered = np.sort(matrix, axis=0)
    span = max(1, int(len(matrix) * _DENSE_SHARE))
    low, high = ordered[: len(matrix) - span + 1], ordered[span - 1 :]
    first = (high - low).argmin(axis=0)[None]
    middle = (np.take_along_axis(low, first, 0) + np.take_along_axis(high, first, 0)) / 2
    out: Float64 = middle[0]
    return out
