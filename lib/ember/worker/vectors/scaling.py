"""Rows as float32 products take them: in a range where nothing overflows (bounds.py, "Scale")."""

from __future__ import annotations

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Stored
from ember.worker.vectors.basis import Basis

__all__ = ["moved", "scaled"]


def scaled(rows: Stored, norms: Float64, basis: Basis) -> tuple[Float32, Float64]:
    """Rows as float32 products take them.

    Args:
        rows: (n, d) as stored.
        norms: (n,) of the rows.
        basis: of the block.

    Returns:
        (n, d) float32, the rows themselves where these serve; and (n,) float64, norms before the
        rounding to float32. Rows beyond float32 are zeros with an infinite norm.
    """
    if basis.metric == "cosine":
        return _of_usual_length(rows, norms)
    if basis.moved:
        exact = moved(rows, basis)
        return _held(exact, np.sqrt(np.square(exact).sum(axis=1)))
    return _held(rows, norms)


def moved(rows: Stored, basis: Basis) -> Float64:
    """(n, d) float64, (a - c) 2^-e."""
    result: Float64 = rows.astype(np.float64) - basis.center
    if basis.exponent:
        result *= 2.0**-basis.exponent
    return result


def _of_usual_length(rows: Stored, norms: Float64) -> tuple[Float32, Float64]:
    unusual = (norms < bounds.MIN_NORM) | (norms > 1.0 / bounds.MIN_NORM)
    if not unusual.any():
        return _as_float32(rows), norms
    sizes, result = norms.copy(), np.empty(rows.shape, np.float32)
    result[~unusual] = rows[~unusual]
    sizes[unusual], exponents = np.frexp(norms[unusual])
    result[unusual] = np.ldexp(rows[unusual].astype(np.float64), -exponents[:, None])
    return result, sizes


def _held(rows: Stored, norms: Float64) -> tuple[Float32, Float64]:
    shortest = bounds.SHORTEST * np.sqrt(rows.shape[1])
    sizes = np.maximum(norms, shortest)
    beyond = norms > bounds.MAX_NORM
    if not beyond.any():
        return _as_float32(rows), sizes
    sizes[beyond] = np.inf
    return np.where(beyond[:, None], 0.0, rows).astype(np.float32), sizes


def _as_float32(rows: Stored) -> Float32:
    return rows.astype(np.float32, copy=False)
