"""Principal components from mergeable moments, in float64.

Each task reduces its rows to a count, a mean and the second moments about that mean; two such
summaries merge into that of all their rows (Chan, Golub and LeVeque, Updating formulae and a
pairwise algorithm for computing sample variances, 1979, in their multivariate form). Nothing is
subtracted from large sums, so a mean far from the origin costs no digits, and the order of merging
moves the result by rounding only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ember.similarity.arrays import Float32, Float64
from ember.similarity.bounds import UNIT32
from ember.similarity.linear import Projection

CHUNK_ROWS = 2048
"""Rows that are float64 at a time."""
SIGN_TIE = 1e-6
"""Coordinates this near to the largest, relatively, count as equally large."""


@dataclass(frozen=True)
class Moments:
    """What n rows of d dimensions have in common; 8 d^2 bytes.

    Attributes:
        count: n.
        mean: (d,) float64.
        scatter: (d, d) float64, the sum over rows of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def empty(cls, dimension: int) -> Moments:
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @classmethod
    def of(cls, rows: Float32) -> Moments:
        """The moments of (n, d) finite rows, read in chunks."""
        result = cls.empty(rows.shape[1])
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS].astype(np.float64)
            mean = part.mean(axis=0)
            part -= mean
            result = result.merge(cls(len(part), mean, part.T @ part))
        return result

    @property
    def dimension(self) -> int:
        return len(self.mean)

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both. Holds four d by d matrices for a moment.

        Raises:
            ValueError: different dimensions.
        """
        if self.dimension != other.dimension:
            raise ValueError(
                f"cannot merge moments of {self.dimension} and {other.dimension} dimensions"
            )
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(delta * (self.count * (other.count / count)), delta)
        return Moments(count, self.mean + delta * (other.count / count), scatter)

    def pack(self) -> bytes:
        """Half the size: the matrix is symmetric, so one triangle of it travels."""
        triangle = self.scatter[np.triu_indices(self.dimension)]
        return np.concatenate([[float(self.count)], self.mean, triangle]).tobytes()

    @classmethod
    def unpack(cls, packed: bytes, dimension: int) -> Moments:
        """What `pack` packed."""
        values = np.frombuffer(packed, np.float64)
        scatter = np.zeros((dimension, dimension))
        scatter[np.triu_indices(dimension)] = values[1 + dimension :]
        # Mirrored, with the diagonal once.
        scatter += np.triu(scatter, 1).T
        return cls(int(values[0]), values[1 : 1 + dimension].copy(), scatter)


def fit_pca(
    moments: Moments,
    *,
    dimension: int | None = None,
    explained: float | None = None,
    center: bool = True,
    whiten: bool = False,
) -> Projection:
    """The principal components of the rows that `moments` summarises.

    Args:
        moments: of n >= 1 rows of d dimensions.
        dimension: how many components, 1..d.
        explained: instead of `dimension`, the fewest that explain at least this share of the
            variance, above 0 and at most 1.
        center: subtract the mean. Without it the second moments about the origin are used, which
            keeps the inner products best.
        whiten: scale each component to variance 1 (second moment 1 without centring).

    Returns:
        A projection to (m,) float32. Components come by falling variance (divisor n - 1, as
        scikit-learn's; n without centring). In each, the first of the largest coordinates by
        absolute value is positive. Directions in which the rows vary by no more than
        the rounding of float32, beyond the rank of the data, are zero columns: no direction would
        be better than another.

    Raises:
        ValueError: no rows, a dimension or share out of range, or a share of no variance.
    """
    d = moments.dimension
    if not moments.count:
        raise ValueError("there are no rows to fit principal components on")
    if dimension is not None and not 1 <= dimension <= d:
        raise ValueError(f"cannot project {d} dimensions to {dimension}; give 1 to {d}")
    second, divisor = moments.scatter, max(moments.count - 1, 1)
    if not center:
        second = second + moments.count * np.outer(moments.mean, moments.mean)
        divisor = moments.count
    variances, directions = np.linalg.eigh(second / divisor)
    variances, directions = np.maximum(variances[::-1], 0.0), directions[:, ::-1]
    total = float(variances.sum())
    rank = int(np.count_nonzero(variances > _noise(moments, variances[0])))
    if dimension is None:
        dimension = _enough(variances, total, rank, explained)
    kept = min(dimension, rank)
    components = np.zeros((d, dimension))
    components[:, :kept] = _signed(directions[:, :kept])
    if whiten:
        components[:, :kept] /= np.sqrt(variances[:kept])
    return Projection(
        kind="pca",
        mean=moments.mean if center else np.zeros(d),
        components=components,
        offset=np.zeros(dimension),
        facts={
            "rows": moments.count,
            "rank": rank,
            "centered": center,
            "whitened": whiten,
            "explained_variance": [float(value) for value in variances[:dimension]],
            "explained_ratio": [float(value) for value in variances[:dimension] / (total or 1.0)],
        },
    )


def _noise(moments: Moments, largest: float) -> float:
    """The variance that the rounding of the rows to float32, or of this sum, can make up.

    A rounded x is off by at most u |x|; the largest eigenvalue of the second moments of n such
    errors in d dimensions is about (1 + sqrt(d / n))^2 of their variance (Marchenko and Pastur,
    1967). 4 is a margin.
    """
    n, d = moments.count, moments.dimension
    squares = np.diag(moments.scatter) / n + np.square(moments.mean)
    rounding = 4.0 * UNIT32**2 * float(squares.max()) * (1.0 + math.sqrt(d / n)) ** 2
    return max(rounding, largest * d * float(np.finfo(np.float64).eps))


def _enough(variances: Float64, total: float, rank: int, explained: float | None) -> int:
    if explained is None or not 0 < explained <= 1:
        raise ValueError(f"explained is {explained}; give a share above 0 and at most 1")
    if not total:
        raise ValueError("all rows are equal, so there is no variance to explain")
    reached = np.cumsum(variances[:rank]) / total
    # Less a rounding error: all of the variance is the rank of the data, not one more.
    return min(int(np.searchsorted(reached, explained - 1e-12)) + 1, rank)


def _signed(directions: Float64) -> Float64:
    """Columns turned so that the first of their largest coordinates is positive."""
    sizes = np.abs(directions)
    largest = np.argmax(sizes >= (1.0 - SIGN_TIE) * sizes.max(axis=0, initial=0.0), axis=0)
    signs: Float64 = np.sign(directions[largest, np.arange(directions.shape[1])])
    return signs * directions
