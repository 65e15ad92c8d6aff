"""Principal components from mergeable moments, in float64.

Each task reduces its rows to a count, a mean and the second moments about that mean; two such
summaries merge into that of all their rows (Chan, Golub and LeVeque, Updating formulae and a
pairwise algorithm for computing sample variances, 1979, in their multivariate form). Nothing is
subtracted from large sums, so a mean far from the origin costs no digits, and the order of merging
moves the result by rounding only. As long as there are fewer rows than dimensions, a summary is the
rows themselves, so that neither its size nor the time grows with the square of the dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ember.worker.vectors.arrays import Float64, Stored
from ember.worker.vectors.bounds import UNIT32
from ember.worker.vectors.projection import Projection

CHUNK_ROWS, CHUNK_VALUES = 2048, 1 << 24
"""Rows, and values of them, that are float64 at a time, at most."""
MOST_BYTES = 512 << 20
"""Of one summary, at most: a square matrix of 8,192 dimensions, or 3,355 rows of 20,000."""
SIGN_TIE = 1e-6
"""Coordinates this near to the largest, relatively, count as equally large."""


@dataclass(frozen=True)
class Moments:
    """What n rows of d dimensions have in common; 8 d min(n, d) bytes.

    Attributes:
        count: n.
        mean: (d,) float64.
        factor: (r, d) float64, F with F^T F = scatter; None where that is held.
        square: (d, d) float64, scatter; None where a factor is held.
        unit: relative rounding of the rows' values: 2^-24 for float32, 2^-53 for float64.
    """

    count: int
    mean: Float64
    factor: Float64 | None
    square: Float64 | None
    unit: float = UNIT32

    @classmethod
    def empty(cls, dimension: int) -> Moments:
        return cls(0, np.zeros(dimension), np.zeros((0, dimension)), None, 0.0)

    @classmethod
    def of(cls, rows: Stored) -> Moments:
        """The moments of (n, d) finite rows, read in chunks.

        Raises:
            ValueError: as `merge`.
        """
        result, unit = cls.empty(rows.shape[1]), float(np.finfo(rows.dtype).eps) / 2
        step = max(1, min(CHUNK_ROWS, CHUNK_VALUES // result.dimension))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float64)
            mean = part.mean(axis=0)
            part -= mean
            result = result.merge(cls(len(part), mean, part, None, unit))
        return result

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @property
    def scatter(self) -> Float64:
        """(d, d) float64, the sum over rows of (x - mean)(x - mean)^T.

        Raises:
            ValueError: more dimensions than MOST_BYTES allow.
        """
        if self.square is not None:
            return self.square
        self._check_square()
        assert self.factor is not None
        return self.factor.T @ self.factor

    @property
    def squares(self) -> Float64:
        """(d,) the diagonal of the scatter."""
        if self.factor is None:
            return self.scatter.diagonal()
        diagonal: Float64 = np.einsum("ij,ij->j", self.factor, self.factor)
        return diagonal

    def _check_square(self) -> None:
        if 8 * self.dimension**2 > MOST_BYTES:
            most = MOST_BYTES // (8 * self.dimension)
            raise ValueError(
                f"{self.count} rows of {self.dimension} dimensions are too many for their second "
                f"moments in {MOST_BYTES >> 20} MiB: fit on fewer rows (up to {most}, chosen with "
                f"input.where) or on vectors of at most {math.isqrt(MOST_BYTES // 8)} dimensions"
            )

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both. Holds four matrices of their size for a moment.

        Raises:
            ValueError: different dimensions, or rows and dimensions that are both too many for
                MOST_BYTES.
        """
        if self.dimension != other.dimension:
            raise ValueError(
                f"cannot merge moments of {self.dimension} and {other.dimension} dimensions"
            )
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean, unit = self.mean + delta * (other.count / count), max(self.unit, other.unit)
        between = self.count * (other.count / count)
        if self.factor is not None and other.factor is not None:
            rows = len(self.factor) + len(other.factor) + 1
            if rows < self.dimension and 8 * rows * self.dimension <= MOST_BYTES:
                last = np.sqrt(between) * delta[None, :]
                factor = np.concatenate([self.factor, other.factor, last])
                return Moments(count, mean, factor, None, unit)
        scatter = self.scatter + other.scatter
        scatter += np.outer(delta * between, delta)
        return Moments(count, mean, None, scatter, unit)

    def pack(self) -> bytes:
        """The factor, or half the scatter: it is symmetric, so one triangle of it travels."""
        head = [float(self.count), self.unit, float(self.factor is None)]
        if self.factor is not None:
            return np.concatenate([head, self.mean, self.factor.ravel()]).tobytes()
        triangle = self.scatter[np.triu_indices(self.dimension)]
        return np.concatenate([head, self.mean, triangle]).tobytes()

    @classmethod
    def unpack(cls, packed: bytes, dimension: int) -> Moments:
        """What `pack` packed."""
        values = np.frombuffer(packed, np.float64)
        (count, unit, square), values = values[:3], values[3:]
        mean, values = values[:dimension].copy(), values[dimension:]
        if not square:
            return cls(int(count), mean, values.reshape(-1, dimension).copy(), None, float(unit))
        scatter = np.zeros((dimension, dimension))
        scatter[np.triu_indices(dimension)] = values
        # Mirrored, with the diagonal once.
        scatter += np.triu(scatter, 1).T
        return cls(int(count), mean, None, scatter, float(unit))


def fit_pca(
    moments: Moments,
    *,
    dimension: int | None = None,
    explained: float | None = None,
    center: bool = True,
    whiten: bool = False,
) -> Projection:
    """The principal components of the rows that `moments` summarizes.

    Args:
        moments: of n >= 1 rows of d dimensions.
        dimension: how many components, 1..d.
        explained: instead of `dimension`, the fewest that explain at least this share of the
            variance, above 0 and at most 1.
        center: subtract the mean. Without it the second moments about the origin are used, which
            keeps the inner products best.
        whiten: scale each component to variance 1 (second moment 1 without centering).

    Returns:
        A projection to (m,) float32. Components come by falling variance (divisor n - 1, as
        scikit-learn's; n without centering). In each, the first of the largest coordinates by
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
    variances, directions = _principal(moments, center)
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


def _principal(moments: Moments, center: bool) -> tuple[Float64, Float64]:
    """Variances, (d,), falling, and directions, (d, m); beyond these the variances are zero."""
    mean, divisor = moments.mean, max(moments.count - 1, 1) if center else moments.count
    if moments.factor is None:
        second = moments.scatter
        if not center:
            second = second + moments.count * np.outer(mean, mean)
        variances, directions = np.linalg.eigh(second / divisor)
        return np.maximum(variances[::-1], 0.0), directions[:, ::-1]
    factor = moments.factor
    if not center:
        factor = np.concatenate([factor, np.sqrt(moments.count) * mean[None, :]])
    # Not by way of the rows' products with each other, whose small eigenvalues are rounding.
    _, sizes, rows = np.linalg.svd(factor / np.sqrt(divisor), full_matrices=False)
    variances = np.zeros(moments.dimension)
    variances[: len(sizes)] = np.square(sizes)
    return variances, rows.T


def _noise(moments: Moments, largest: float) -> float:
    """The variance that the rounding of the rows' values, or of this sum, can make up.

    A rounded x is off by at most u |x|; the largest eigenvalue of the second moments of n such
    errors in d dimensions is about (1 + sqrt(d / n))^2 of their variance (Marchenko and Pastur,
    1967). 4 is a margin.
    """
    n, d = moments.count, moments.dimension
    squares = moments.squares / n + np.square(moments.mean)
    rounding = 4.0 * moments.unit**2 * float(squares.max()) * (1.0 + math.sqrt(d / n)) ** 2
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
