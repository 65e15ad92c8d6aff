"""Bootstrap weights that depend on a row's id and nothing else.

The Poisson bootstrap gives every row, in every replicate, an independent Poisson(1) number of
copies in place of a draw with replacement (Hanley & MacGibbon, "Creating non-parametric bootstrap
samples using Poisson frequencies", Computer Methods and Programs in Biomedicine 83, 2006; Chamandy,
Muralidharan, Najmi & Naidu, "Estimating uncertainty for massive data streams", Google, 2012). A row
needs to know nothing of the others, so replicates are sums that can be merged. The number of copies
comes here from a hash of the row's id and the number of the replicate: it is the same wherever the
row is processed, and the same in two runs that are compared.

The grouped jackknife divides the rows into groups and leaves out one at a time (Miller, "The
jackknife: a review", Biometrika 61, 1974). A row's group comes from the same hash. That is one more
column of weights for each group, 0 for its rows and 1 for all others, and needs no other sums.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ember.worker.splitmix import mix

__all__ = ["GROUPS", "column_weights", "poisson_weights"]

GROUPS = 200
"""Groups of the jackknife."""


def column_weights(keys: np.ndarray, columns: range, replicates: int) -> np.ndarray:
    """The weights of rows in the sample, in replicates and without a group: (n, c) uint8.

    keys: (n,) int64, a hash of each row's id. columns: which ones: 0 the sample, all ones; then
    `replicates` bootstrap replicates, see `poisson_weights`; then `GROUPS` samples without a group.
    """
    weights = np.ones((len(keys), len(columns)), np.uint8)
    end = replicates + 1
    drawn = range(min(columns.start, end), min(columns.stop, end))
    _draw(keys, drawn, weights[:, : len(drawn)])
    if columns.stop > end:
        left_out = end - columns.start + _groups(keys)
        rows = np.flatnonzero((left_out >= len(drawn)) & (left_out < len(columns)))
        weights[rows, left_out[rows]] = 0
    return weights


def poisson_weights(keys: np.ndarray, replicates: range) -> np.ndarray:
    """How often each row occurs in each replicate: (n, len(replicates)) uint8.

    keys: (n,) int64, a hash of each row's id. Replicate 0 is the sample itself: all ones.

    Each 64-bit word of SplitMix64, started at the key, is cut into four 16-bit numbers, whose
    Poisson(1) quantiles are the weights of four replicates. The 16 bits cap a weight at 8 and leave
    the mean at 1 within 1e-5.
    """
    weights = np.ones((len(keys), len(replicates)), np.uint8)
    _draw(keys, replicates, weights)
    return weights


def _draw(keys: np.ndarray, replicates: range, weights: np.ndarray) -> None:
    """Write `poisson_weights` over ones, (n, len(replicates))."""
    from ember.worker.metrics.loops import draw  # numba, which the driver does not need

    drawn = range(max(replicates.start, 1) - 1, max(replicates.stop, 1) - 1)
    if drawn:
        words = keys.astype(np.int64).view(np.uint64)
        draw(words, drawn.start, _thresholds(), weights[:, len(replicates) - len(drawn) :])


def _groups(keys: np.ndarray) -> np.ndarray:
    """The jackknife group of each row, from the word of SplitMix64 before the first draw: (n,)."""
    words: np.ndarray = mix(keys.astype(np.int64)).view(np.uint64)
    groups: np.ndarray = ((words >> np.uint64(32)) % np.uint64(GROUPS)).astype(np.int64)
    return groups


@cache
def _thresholds() -> np.ndarray:
    """The smallest 16-bit i for which the Poisson(1) quantile of (i + 1/2) / 65536 is 1, …, 8."""
    masses = [math.exp(-1) / math.factorial(count) for count in range(16)]
    middles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    quantiles = np.searchsorted(np.cumsum(masses), middles)
    return np.searchsorted(quantiles, np.arange(1, 9)).astype(np.int32)
