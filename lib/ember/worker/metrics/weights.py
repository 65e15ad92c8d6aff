"""Bootstrap weights that depend on a row's id and nothing else, and the intervals they give.

The Poisson bootstrap gives every row, in every replicate, an independent Poisson(1) number of
copies in place of a draw with replacement (Hanley & MacGibbon, "Creating non-parametric bootstrap
samples using Poisson frequencies", Computer Methods and Programs in Biomedicine 83, 2006; Chamandy,
Muralidharan, Najmi & Naidu, "Estimating uncertainty for massive data streams", Google, 2012). A row
needs to know nothing of the others, so replicates are sums that can be merged. The number of copies
comes here from a hash of the row's id and the number of the replicate: it is the same wherever the
row is processed, and the same in two runs that are compared.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ember.worker.splitmix import GAMMA, mix

__all__ = ["interval", "poisson_weights"]

_LANES = 4
# Few enough for the words of 1,000 replicates to stay in cache.
_BLOCK_ROWS = 32


def poisson_weights(keys: np.ndarray, replicates: range) -> np.ndarray:
    """How often each row occurs in each replicate: (n, len(replicates)) float32, whole numbers.

    keys: (n,) int64, a hash of each row's id. Replicate 0 is the sample itself: all ones.

    Each 64-bit word of SplitMix64, started at the key, is cut into four 16-bit numbers, whose
    Poisson(1) quantiles are the weights of four replicates. The 16 bits cap a weight at 8 and leave
    the mean at 1 within 1e-5.
    """
    drawn = range(max(replicates.start, 1), max(replicates.stop, 1))
    ones = len(replicates) - len(drawn)
    weights = np.empty((len(keys), len(replicates)), np.float32)
    weights[:, :ones] = 1
    if not drawn:
        return weights
    first, last = (drawn[0] - 1) // _LANES, (drawn[-1] - 1) // _LANES
    counters = np.arange(first + 1, last + 2, dtype=np.int64) * GAMMA
    start = (drawn[0] - 1) - first * _LANES
    for block in range(0, len(keys), _BLOCK_ROWS):
        rows = slice(block, block + _BLOCK_ROWS)
        words = mix(keys[rows][:, None] + counters)
        draws = words.astype("<i8", copy=False).view("<u2")[:, start : start + len(drawn)]
        # Every draw is in the table; "clip" spares the check.
        weights[rows, ones:] = _quantiles().take(draws, mode="clip")
    return weights


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a figure: its ends at (1 - level) / 2 and (1 + level) / 2.

    values: (1 + B,), the figure on the sample and on B replicates. Replicates in which the figure
    is undefined (NaN) are left out. Returns NaN twice where there is none, or no figure.

    It is not corrected for bias. A replicate holds fewer different rows than the sample, which
    moves figures that are far from linear in small counts (macro averages over classes of few
    rows, ECE): with very many rows and such classes the figure can lie just outside.
    """
    replicates = values[1:][~np.isnan(values[1:])]
    if not len(replicates) or np.isnan(values[0]):
        return math.nan, math.nan
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@cache
def _quantiles() -> np.ndarray:
    """The Poisson(1) quantile of (i + 1/2) / 65536 for each 16-bit i: (65536,) float32."""
    masses = [math.exp(-1) / math.factorial(count) for count in range(16)]
    middles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.searchsorted(np.cumsum(masses), middles).astype(np.float32)
