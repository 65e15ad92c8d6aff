"""What a score is, to the last bit, and how scores map to the values that filters bound.

A score is computed in float64 from the rows as they are stored, float32 or float64, in an order of
summation that depends on the dimension alone (never on the tile, the neighbors or the machine's
BLAS: sums.py), and rounded once to float32:

    cosine         float32( sum a_k b_k / (|a| |b|) )
    inner_product  float32( sum a_k b_k )
    euclidean      float32( sqrt( sum (a_k - b_k)^2 ) )

Products of float32 numbers are exact in float64, others are off by 2^-53, so the error before the
last rounding is below 1e-12 of the sum of the terms' sizes. A pair is in a threshold join when its
score is >= float32(threshold), for Euclidean distance <= float32(threshold).
Neighbors are ordered by score, best first, then by id ascending; rows whose scores
round to the same float32 are ties.

Euclidean distances are compared in the basis's scale (bounds.py, "Scale"): F is that of rows times
2^-exponent, which costs no rounding; scores are of the rows themselves.

Inside the package a *similarity* is the score, or for Euclidean distance its negative: larger is
better everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.block import Block
from ember.worker.vectors.threads import plain

SUBNORMAL = 2.0**-149
"""What a float32 number next to zero is off by, at most."""


def similarities(left: Block, right: Block, i: Int64, j: Int64) -> Float32:
    """Exact similarities, (p,), of the pairs (left[i], right[j]); i and j are (p,) positions."""
    from ember.worker.vectors import sums

    rows = plain(left.rows), plain(right.rows)
    if left.metric == "euclidean":
        return -np.sqrt(sums.squared_distances(*rows, i, j)).astype(np.float32)
    dots = sums.products(*rows, i, j)
    if left.metric == "cosine":
        dots /= left.norms[i] * right.norms[j]
    return dots.astype(np.float32)


def filter_value(metric: str, similarity: ArrayLike, exponent: int = 0) -> Float64:
    """The least F (bounds.py) that a pair with at least this float32 similarity can have.

    exponent: of the basis.
    """
    s = np.asarray(similarity, np.float64)
    if metric != "euclidean":
        return s * (1.0 - np.sign(s) * 2.0 * bounds.UNIT32) - bounds.TINY
    distance = (np.maximum(-s, 0.0) * (1.0 + 2.0 * bounds.UNIT32) + SUBNORMAL) * 2.0**-exponent
    return -0.5 * distance * distance - bounds.TINY


def certain_value(metric: str, similarity: ArrayLike, exponent: int = 0) -> Float64:
    """An F from which on every pair has at least this float32 similarity."""
    s = np.asarray(similarity, np.float64)
    if metric != "euclidean":
        return s * (1.0 + np.sign(s) * 2.0 * bounds.UNIT32) + bounds.TINY
    least = np.maximum(-s, 0.0) * (1.0 - 2.0 * bounds.UNIT32) - SUBNORMAL
    distance = np.maximum(least, 0.0) * 2.0**-exponent
    return -0.5 * distance * distance + bounds.TINY


def similarity_at(metric: str, value: Float64, exponent: int = 0) -> Float32:
    """The similarity of a pair with F (bounds.py) = value, as good as the value is."""
    if metric != "euclidean":
        return value.astype(np.float32)
    return (-np.sqrt(np.maximum(-2.0 * value, 0.0)) * 2.0**exponent).astype(np.float32)


def tie_floor(value: Float64) -> Float64:
    """An F below which no pair rounds to the float32 similarity of a pair at ``value``."""
    return value - np.abs(value) * 16.0 * bounds.UNIT32 - bounds.TINY


def float32_below(values: Float64) -> Float32:
    """The largest float32 values not above the given ones."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
