"""How far the values of a column in two tables are apart, from counts of each value.

With the shares p and q of K values, in order, in the reference and in the current table, and their
cumulated shares P and Q:

    ks            max |P - Q| (Kolmogorov & Smirnov; scipy.stats.ks_2samp)
    wasserstein   sum of |P - Q| times the distance to the next value, in the unit of the values
                  (scipy.stats.wasserstein_distance)
    psi           sum of (p - q) ln(p / q) over ten groups that hold a tenth of the reference each,
                  half a row added to each (the population stability index; Siddiqi, Credit Risk
                  Scorecards, 2006)
    total_variation   sum of |p - q| / 2
    jensen_shannon    the mean divergence of p and q from their mean, in bits, 0 to 1 (Lin,
                      "Divergence measures based on the Shannon entropy", IEEE Transactions on
                      Information Theory 37, 1991)
    chi_square    of the table of both counts (Pearson; scipy.stats.chi2_contingency)

A permutation of the rows over the tables leaves the counts of both together, of which the
reference's rows are then a draw without replacement. So the permutation test needs nothing but the
counts, and is exact for ties and for rare values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ember.worker.metrics.classes import ratio

__all__ = [
    "chi_square",
    "jensen_shannon",
    "ks",
    "permutation_test",
    "psi",
    "total_variation",
    "wasserstein",
]

# A multiple of 20 with the sample itself, so that p <= 0.05 has a probability of 5%.
_PERMUTATIONS = 1999
# Above so many rows numpy has no draws without replacement, and they are normal in any case.
_MOST_DRAWN = 10**9
_GROUPS = 10


def ks(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(K, …) counts each: (…)."""
    largest: np.ndarray = np.abs(_cumulated(reference) - _cumulated(current)).max(axis=0)
    return largest


def wasserstein(values: np.ndarray, reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """values: (K,), in order. (K, …) counts each: (…)."""
    apart = np.abs(_cumulated(reference) - _cumulated(current))[:-1]
    distance: np.ndarray = np.tensordot(np.diff(values), apart, axes=1)
    return distance


def psi(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(K, 1 + …) counts each, of the sample first, which makes the groups: (1 + …)."""
    first = reference[:, 0]
    middles = (np.cumsum(first) - first / 2) / max(first.sum(), 1)
    group = np.minimum((_GROUPS * middles).astype(np.int64), _GROUPS - 1)
    inside = (np.unique(group)[:, None] == group).astype(np.float64)
    p, q = (_shares(inside @ counts + 0.5) for counts in (reference, current))
    index = np.asarray(((p - q) * np.log(p / q)).sum(axis=0))
    index[(reference.sum(axis=0) == 0) | (current.sum(axis=0) == 0)] = np.nan
    return index


def total_variation(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(K, …) counts each: (…)."""
    distance: np.ndarray = np.abs(_shares(reference) - _shares(current)).sum(axis=0) / 2
    return distance


def jensen_shannon(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(K, …) counts each: (…)."""
    p, q = _shares(reference), _shares(current)
    divergence: np.ndarray = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return np.asarray(np.maximum(divergence, 0))


def chi_square(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(K, …) counts each: (…)."""
    m, n = reference.sum(axis=0), current.sum(axis=0)
    both = reference + current
    expected = both * (m / (m + n))
    # Of a value, both cells lie equally far from what is expected of them.
    each = ratio(np.square(reference - expected), expected, 0) * ((m + n) / n)
    statistic: np.ndarray = each.sum(axis=0)
    return statistic


def permutation_test(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    reference: np.ndarray,
    current: np.ndarray,
    permutations: int = _PERMUTATIONS,
) -> tuple[float, float]:
    """The statistic of (K,) counts, large for a drift, and its p-value; NaN without rows of one.

    The p-value is the share of permutations, the sample among them, whose statistic is as large.
    """
    reference, current = (counts.astype(np.int64) for counts in (reference, current))
    m, n = int(reference.sum()), int(current.sum())
    if not m or not n:
        return np.nan, np.nan
    drawn = np.concatenate([reference[None], _drawn(reference + current, m, permutations)]).T
    left = (reference + current)[:, None] - drawn
    values = statistic(drawn, left)
    # Sums in another order differ in their last digits.
    alike = values >= values[0] - 1e-9 * max(abs(float(values[0])), 1e-9)
    return float(values[0]), float(alike.mean())


def _drawn(counts: np.ndarray, m: int, permutations: int) -> np.ndarray:
    """Counts of m rows drawn without replacement: (permutations, K), from a fixed seed."""
    rng = np.random.default_rng(0)
    total = int(counts.sum())
    if total < _MOST_DRAWN:
        drawn: np.ndarray = rng.multivariate_hypergeometric(
            counts, m, permutations, method="marginals"
        )
        return drawn
    shares = counts / total
    normal = rng.normal(size=(permutations, len(counts)))
    noise = normal * np.sqrt(shares) - np.outer(normal @ np.sqrt(shares), shares)
    normal_drawn: np.ndarray = m * shares + noise * np.sqrt(m * (1 - m / total))
    return normal_drawn


def _shares(counts: np.ndarray) -> np.ndarray:
    return ratio(counts, counts.sum(axis=0))


def _cumulated(counts: np.ndarray) -> np.ndarray:
    sums = np.cumsum(counts, axis=0)
    return ratio(sums, sums[-1])


def _entropy(shares: np.ndarray) -> np.ndarray:
    logarithms = np.log2(shares, out=np.zeros(shares.shape), where=shares > 0)
    entropy: np.ndarray = -(shares * logarithms).sum(axis=0)
    return entropy
