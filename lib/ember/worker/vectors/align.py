"""Linear maps that bring one kind of vector to another, learned from pairs by their moments.

The moments are those of concatenated pairs (x, y), so they merge as any others (pca.py); their
blocks are the second moments of x, of y, and across. All that generalized cross-validation asks of
a ridge regression is in them too, so that the penalty is chosen without another look at the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ember.worker.vectors.arrays import Float64
from ember.worker.vectors.pca import Moments
from ember.worker.vectors.projection import Projection

METHODS = ("ridge", "procrustes", "cca")
PENALTIES: tuple[float, ...] = tuple(10.0 ** (quarter / 4) for quarter in range(-16, 13))
"""What cross-validation tries: 1e-4 to 1e3, by steps of a quarter of a decade."""

Penalty = float | Literal["cross_validation"]


@dataclass(frozen=True)
class _Parts:
    """Means and centered second moments, divided by the number of pairs."""

    pairs: int
    x: Float64
    y: Float64
    xx: Float64
    xy: Float64
    yy: Float64

    def turned(self) -> _Parts:
        """The same with x and y in each other's places."""
        return _Parts(self.pairs, self.y, self.x, self.yy, self.xy.T, self.xx)


def fit_alignment(
    pairs: Moments,
    split: int,
    method: str,
    *,
    dimension: int | None = None,
    penalty: Penalty = "cross_validation",
) -> tuple[Projection, Projection | None]:
    """Maps for x and, where y moves too, for y, after which pairs are near each other.

    Args:
        pairs: moments of (n, split + e) rows, x and y of each pair side by side.
        split: the dimension of x.
        method: ridge: x to y by least squares with a penalty (Hoerl and Kennard, 1970).
            procrustes: x to y by the best orthogonal map, scaled (Schönemann, 1966); of different
            dimensions, the map with orthonormal rows or columns. cca: both to common coordinates,
            by canonical correlations (Hotelling, 1936), each scaled by its correlation.
        dimension: of the common coordinates of cca; by default all, the smaller of the two.
        penalty: what is added to the diagonal of the second moments, for ridge and cca, as a share
            of their mean diagonal. "cross_validation" takes that of `PENALTIES` with the least
            generalized cross-validation error of the ridge regression (see `_cross_validate`); for
            cca each side has its own, with which it tells most about the other.

    Returns:
        The projection of x and that of y; None where y stays as it is. Facts: pairs; penalty (of
        cca also target_penalty); explained, the share of y's variance in these pairs that a ridge
        or procrustes map gives; of ridge also explained_unseen, what generalized cross-validation
        expects of other pairs; of cca the correlations.

    Raises:
        ValueError: fewer than two pairs, an unknown method, or a size that cannot be.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if pairs.count < 2:
        raise ValueError(f"there are {pairs.count} pairs; an alignment takes at least two")
    if not 0 < split < pairs.dimension:
        raise ValueError(f"pairs of {pairs.dimension} dimensions cannot be split at {split}")
    if penalty != "cross_validation" and (method == "procrustes" or not penalty >= 0):
        raise ValueError(f"penalty is {penalty}; give 0 or more to ridge or cca")
    second = pairs.scatter / pairs.count
    parts = _Parts(
        pairs.count,
        pairs.mean[:split],
        pairs.mean[split:],
        second[:split, :split],
        second[:split, split:],
        second[split:, split:],
    )
    most = min(parts.xy.shape)
    if dimension is not None and (method != "cca" or not 1 <= dimension <= most):
        raise ValueError(f"dimension is for cca, and 1 to {most} here, not {dimension}")
    if method == "cca":
        return _cca(parts, dimension or most, penalty)
    facts: dict[str, object] = {"pairs": pairs.count}
    if method == "ridge":
        facts["penalty"] = chosen = _penalty(parts, penalty)
        components = np.asarray(np.linalg.solve(_steadied(parts.xx, chosen), parts.xy), np.float64)
        facts["explained_unseen"] = _explained_unseen(parts, chosen)
    else:
        components = _procrustes(parts)
    facts["explained"] = _explained(parts, components)
    return Projection(method, parts.x, components, parts.y, facts), None


def _penalty(parts: _Parts, penalty: Penalty) -> float:
    if penalty != "cross_validation":
        return penalty
    errors = _cross_validate(parts, np.array(PENALTIES))
    # Of equal ones the largest: where x tells nothing about y, all of them are.
    return PENALTIES[len(errors) - 1 - int(np.argmin(errors[::-1]))]


def _cross_validate(parts: _Parts, penalties: Float64) -> Float64:
    """The generalized cross-validation error of the ridge regression of y on x, by penalty.

    n^-1 |y - y_fit|^2 / (1 - trace(H) / n)^2, where H is the matrix that makes y_fit of y, the mean
    included (Golub, Heath and Wahba, Generalized cross-validation as a method for choosing a good
    ridge parameter, Technometrics, 1979). In the eigenvectors of x's second moments both are sums.
    """
    values, vectors = np.linalg.eigh(parts.xx)
    usable = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    values, vectors = values[usable], vectors[:, usable]
    # Of y's variance: what each direction of x could explain, and what none could.
    explicable = np.square(vectors.T @ parts.xy).sum(axis=1) / values
    rest = max(float(np.trace(parts.yy)) - float(explicable.sum()), 0.0)
    added = penalties[:, None] * _diagonal(parts.xx)
    kept = values / (values + added)
    residual = rest + (explicable * np.square(1 - kept)).sum(axis=1)
    freedom = 1 - (1 + kept.sum(axis=1)) / parts.pairs
    # Without freedom left every y is met: nothing is known of others.
    return np.where(freedom > 1e-9, residual / np.square(np.maximum(freedom, 1e-9)), np.inf)


def _explained_unseen(parts: _Parts, penalty: float) -> float:
    """What share of the variance of y the regression is expected to explain in other pairs."""
    error = float(_cross_validate(parts, np.array([penalty]))[0])
    # Of the mean alone, which takes one degree of freedom.
    alone = float(np.trace(parts.yy)) / (1 - 1 / parts.pairs) ** 2
    return 1 - error / alone if alone and np.isfinite(error) else 0.0


def _explained(parts: _Parts, components: Float64) -> float:
    """The share of the variance of y that a linear map of x explains in these pairs."""
    total = float(np.trace(parts.yy))
    mapped = float(np.sum((parts.xx @ components) * components))
    return (2 * float(np.sum(components * parts.xy)) - mapped) / total if total else 0.0


def _procrustes(parts: _Parts) -> Float64:
    left, values, right = np.linalg.svd(parts.xy, full_matrices=False)
    rotation = left @ right
    spread = float(np.trace(rotation.T @ parts.xx @ rotation))
    scaled: Float64 = rotation * (values.sum() / spread if spread else 1.0)
    return scaled


def _cca(parts: _Parts, dimension: int, penalty: Penalty) -> tuple[Projection, Projection]:
    penalties = _penalty(parts, penalty), _penalty(parts.turned(), penalty)
    whiten_x = _inverse_root(_steadied(parts.xx, penalties[0]))
    whiten_y = _inverse_root(_steadied(parts.yy, penalties[1]))
    left, values, right = np.linalg.svd(whiten_x @ parts.xy @ whiten_y, full_matrices=False)
    values = values[:dimension]
    facts = {
        "pairs": parts.pairs,
        "penalty": penalties[0],
        "target_penalty": penalties[1],
        "correlations": [float(value) for value in values],
    }
    maps = (whiten_x @ left[:, :dimension], whiten_y @ right[:dimension].T)
    means = (parts.x, parts.y)
    x, y = (
        Projection("cca", mean, weights * values, np.zeros(dimension), facts)
        for mean, weights in zip(means, maps, strict=True)
    )
    return x, y


def _steadied(second: Float64, penalty: float) -> Float64:
    # The last term is for data that do not vary in some direction, without a penalty.
    added = max(penalty, 1e-12) * _diagonal(second) or 1.0
    return second + added * np.eye(len(second))


def _diagonal(second: Float64) -> float:
    """The mean of the diagonal."""
    return float(np.trace(second)) / len(second)


def _inverse_root(matrix: Float64) -> Float64:
    values, vectors = np.linalg.eigh(matrix)
    result: Float64 = (vectors / np.sqrt(values)) @ vectors.T
    return result
