"""Sums over pairs of rows in float64, in one order on every machine: that of numpy's own sums.

Pairwise summation, with eight partial sums for up to 128 terms (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 4.1). numpy gives the same bits, but through temporary
arrays and under the interpreter's lock, for which several threads then mostly wait.
"""

from __future__ import annotations

import numpy as np

from ember.worker.compiled import compiled
from ember.worker.vectors.arrays import Float32, Float64, Int64, Stored

RUN, PARTS = 128, 8


@compiled()
def products(left: Stored, right: Stored, i: Int64, j: Int64) -> Float64:
    """(p,) dot products of the rows left[i] and right[j]; i and j are (p,)."""
    result = np.empty(len(i))
    for pair in range(len(i)):
        result[pair] = _sum(left[i[pair]], right[j[pair]], False)
    return result


@compiled()
def squared_distances(left: Stored, right: Stored, i: Int64, j: Int64) -> Float64:
    """(p,) squared Euclidean distances of the rows left[i] and right[j]."""
    result = np.empty(len(i))
    for pair in range(len(i)):
        result[pair] = _sum(left[i[pair]], right[j[pair]], True)
    return result


@compiled()
def divided(rows: Stored, norms: Float64) -> Float32:
    """(n, d) rows over their norms (n,), divided in float64.

    The inverse of a very small norm overflows float32.
    """
    result = np.empty(rows.shape, np.float32)
    for row in range(len(rows)):
        for k in range(rows.shape[1]):
            result[row, k] = np.float32(np.float64(rows[row, k]) / norms[row])
    return result


@compiled()
def _sum(left: Stored, right: Stored, squares: bool) -> float:
    """Of the terms of two rows (d,): halves of it, until they have at most RUN terms."""
    if len(left) <= RUN:
        return _run(left, right, squares)
    middle = len(left) // 2 // PARTS * PARTS
    first = _sum(left[:middle], right[:middle], squares)
    return first + _sum(left[middle:], right[middle:], squares)


@compiled()
def _run(left: Stored, right: Stored, squares: bool) -> float:
    whole = len(left) // PARTS * PARTS
    a = b = c = d = e = f = g = h = 0.0
    for k in range(0, whole, PARTS):
        a += _term(left[k], right[k], squares)
        b += _term(left[k + 1], right[k + 1], squares)
        c += _term(left[k + 2], right[k + 2], squares)
        d += _term(left[k + 3], right[k + 3], squares)
        e += _term(left[k + 4], right[k + 4], squares)
        f += _term(left[k + 5], right[k + 5], squares)
        g += _term(left[k + 6], right[k + 6], squares)
        h += _term(left[k + 7], right[k + 7], squares)
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for k in range(whole, len(left)):
        total += _term(left[k], right[k], squares)
    return total


@compiled()
def _term(a: float, b: float, squares: bool) -> float:
    if squares:
        difference = np.float64(a) - np.float64(b)
        return difference * difference
    return np.float64(a) * np.float64(b)
