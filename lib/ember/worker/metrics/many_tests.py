"""The p-values of many tests at once, adjusted so that what is found among them can be believed.

Of a hundred slices that are like the whole, five have a p-value below 0.05.

    holm   the adjusted p-value of a test is at most 0.05 for one test or more with a probability of
           at most 5% where there is nothing to find, whatever the tests have to do with each other
           (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
           Statistics 6, 1979)
    benjamini_hochberg   of the tests whose q-value is at most 0.05, on average 5% at most are false
           (Benjamini & Hochberg, "Controlling the false discovery rate", Journal of the Royal
           Statistical Society B 57, 1995), for tests that are independent or positively dependent
           (Benjamini & Yekutieli, Annals of Statistics 29, 2001)
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["benjamini_hochberg", "holm", "two_sided"]


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values of (n,) p-values."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    return _placed(np.maximum.accumulate(p[order] * factors), order)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """The q-values of (n,) p-values."""
    order = np.argsort(p, kind="stable")
    shares = len(p) / (1 + np.arange(len(p)))
    return _placed(np.minimum.accumulate((p[order] * shares)[::-1])[::-1], order)


def two_sided(z: float) -> float:
    """The probability that a standard normal number is at least as far from 0 as z."""
    return math.erfc(abs(z) / math.sqrt(2))


def _placed(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    placed = np.empty(len(order))
    placed[order] = np.minimum(values, 1)
    return placed
