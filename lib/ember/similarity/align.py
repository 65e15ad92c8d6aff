"""Linear maps that bring one kind of vector to another, learned from pairs by their moments.

The moments are those of concatenated pairs (x, y), so they merge as any others (pca.py); their
blocks are the second moments of x, of y, and across.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.similarity.block import Float64
from ember.similarity.linear import Projection
from ember.similarity.pca import Moments

METHODS = ("ridge", "procrustes", "cca")


@dataclass(frozen=True)
class _Parts:
    """Means and centred second moments, divided by the number of pairs."""

    x: Float64
    y: Float64
    xx: Float64
    xy: Float64
    yy: Float64


def fit_alignment(
    pairs: Moments,
    split: int,
    method: str,
    *,
    dimension: int | None = None,
    strength: float = 0.01,
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
        strength: what is added to the diagonal of the second moments, for ridge and cca, as a share
            of their mean diagonal. It steadies the fit where pairs are few.

    Returns:
        The projection of x and that of y; None where y stays as it is.

    Raises:
        ValueError: fewer than two pairs, an unknown method, or a size that cannot be.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if pairs.count < 2:
        raise ValueError(f"there are {pairs.count} pairs; an alignment takes at least two")
    if not 0 < split < pairs.dimension:
        raise ValueError(f"pairs of {pairs.dimension} dimensions cannot be split at {split}")
    if strength < 0:
        raise ValueError(f"strength is {strength}; give 0 or more")
    second = pairs.scatter / pairs.count
    parts = _Parts(
        pairs.mean[:split],
        pairs.mean[split:],
        second[:split, :split],
        second[:split, split:],
        second[split:, split:],
    )
    most = min(parts.xy.shape)
    if dimension is not None and (method != "cca" or not 1 <= dimension <= most):
        raise ValueError(f"dimension is for cca, and 1 to {most} here, not {dimension}")
    facts: dict[str, object] = {"pairs": pairs.count, "strength": strength}
    if method == "cca":
        return _cca(parts, dimension or most, strength, facts)
    components = _ridge(parts, strength) if method == "ridge" else _procrustes(parts)
    return Projection(method, parts.x, components, parts.y, facts), None


def _ridge(parts: _Parts, strength: float) -> Float64:
    return np.asarray(np.linalg.solve(_steadied(parts.xx, strength), parts.xy), np.float64)


def _procrustes(parts: _Parts) -> Float64:
    left, values, right = np.linalg.svd(parts.xy, full_matrices=False)
    rotation = left @ right
    spread = float(np.trace(rotation.T @ parts.xx @ rotation))
    scaled: Float64 = rotation * (values.sum() / spread if spread else 1.0)
    return scaled


def _cca(
    parts: _Parts, dimension: int, strength: float, facts: dict[str, object]
) -> tuple[Projection, Projection]:
    whiten_x = _inverse_root(_steadied(parts.xx, strength))
    whiten_y = _inverse_root(_steadied(parts.yy, strength))
    left, values, right = np.linalg.svd(whiten_x @ parts.xy @ whiten_y, full_matrices=False)
    values = values[:dimension]
    told = {**facts, "correlations": [float(value) for value in values]}
    maps = (whiten_x @ left[:, :dimension], whiten_y @ right[:dimension].T)
    means = (parts.x, parts.y)
    x, y = (
        Projection("cca", mean, weights * values, np.zeros(dimension), told)
        for mean, weights in zip(means, maps, strict=True)
    )
    return x, y


def _steadied(second: Float64, strength: float) -> Float64:
    # The last term is for data that do not vary in some direction, without a penalty.
    diagonal = np.trace(second) / len(second)
    added = max(strength, 1e-12) * diagonal or 1.0
    return second + added * np.eye(len(second))


def _inverse_root(matrix: Float64) -> Float64:
    values, vectors = np.linalg.eigh(matrix)
    result: Float64 = (vectors / np.sqrt(values)) @ vectors.T
    return result
