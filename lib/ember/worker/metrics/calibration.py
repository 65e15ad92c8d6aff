"""Whether the scores of the answers are the frequencies with which they are right, in numpy.

The scores of the first predictions are put into bins of equal width, ((i - 1)/m, i/m] for bin i of
m, a score of 0 into the first. With the rows, the accuracy and the mean score of each bin:

    ECE = sum over bins of rows / n * |accuracy - mean score|

(Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017, with m = 15;
Naeini, Cooper & Hauskrecht, AAAI 2015.) Empty bins add nothing.
"""

from __future__ import annotations

import numpy as np

from ember.worker.metrics.classes import ratio

__all__ = ["bin_of", "calibration_error"]


def bin_of(scores: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each score, from 0: (n,) int64; -1 for NaN and what lies outside 0 to 1."""
    inside = (scores >= 0) & (scores <= 1)
    edges = np.arange(1, bins) / bins
    return np.where(inside, np.searchsorted(edges, np.where(inside, scores, 0)), -1)


def calibration_error(rows: np.ndarray, hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """ECE from sums of each bin, (m, 1 + B) each: (1 + B,), NaN where there is no row."""
    gaps = np.abs(hits - scores).sum(axis=0)
    return ratio(gaps, rows.sum(axis=0))
