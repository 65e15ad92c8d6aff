"""Sums over pairs of rows in float64, in one order on every machine: that of numpy's own sums.

Pairwise summation, with eight partial sums for up to 128 terms (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 4.1). numpy gives the same bits, by way of temporary arrays,
and with the interpreter's lock, which several threads then spend most of their time on.
"""

from __future__ import annotations

import numpy as np

from ember.worker.vectors.arrays import Float32, Float64, Int64, Stored
from ember.worker.vectors.compiled import compiled

RUN, PARTS = 128, 8


def products(left: Stored, right: Stored, i: Int64, j: Int64) -> Float64:
    """(p,) dot products of the rows left[i] and right[j]; i and j are (p,)."""
    return _sums(left, right, (i, j), _runs(left.shape[1]), False)


def squared_distances(left: Stored, right: Stored, i: Int64, j: Int64) -> Float64:
    """(p,) squared Euclidean distances of the rows left[i] and right[j]."""
    return _sums(left, right, (i, j), _runs(left.shape[1]), True)


@compiled()
def divided(rows: Stored, norms: Float64) -> Float32:
    """(n, d) rows over their norms (n,), divided in float64: the inverse of a very small norm is no
    float32 number.
    """
    result = np.empty(rows.shape, np.float32)
    for row in range(len(rows)):
        for k in range(rows.shape[1]):
            result[row, k] = np.float32(np.float64(rows[row, k]) / norms[row])
    return result


def _runs(terms: int) -> tuple[Int64, Int64]:
    """Where runs of at most 128 terms end, and how many sums of two to make after each."""

    def halved(first: int, stop: int, closing: int) -> list[tuple[int, int]]:
        if stop - first <= RUN:
            return [(stop, closing)]
        middle = first + (stop - first) // 2 // PARTS * PARTS
        return [*halved(first, middle, 0), *halved(middle, stop, closing + 1)]

    ends, closing = zip(*halved(0, terms, 0), strict=True)
    return np.array(ends), np.array(closing)


@compiled()
def _sums(
    left: Stored, right: Stored, pairs: tuple[Int64, Int64], runs: tuple[Int64, Int64],
    squares: bool,
) -> Float64:  # fmt: skip
    i, j = pairs
    ends, closing = runs
    result, waiting = np.empty(len(i)), np.empty(len(ends))
    for pair in range(len(i)):
        a, b = left[i[pair]], right[j[pair]]
        first, held = 0, 0
        for run in range(len(ends)):
            waiting[held] = _run(a[first : ends[run]], b[first : ends[run]], squares)
            first, held = ends[run], held + 1
            for _ in range(closing[run]):
                held -= 1
                waiting[held - 1] += waiting[held]
        result[pair] = waiting[0]
    return result


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
