"""Of pairs without drift each test finds as many as it says, and of those with drift most.

A small version of scripts/bench/drift.py, on the same functions, with fewer rows and permutations.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from ember.worker.drift import shifts
from ember.worker.drift.features import fit_features
from ember.worker.drift.kernel import KernelSums, kernel_test
from ember.worker.drift.neighbors import overlap_test

PAIRS = 200
DRIFTED = 30


def kernel(rng, size):
    """Two directions in ten matter; drift is in one of those that hardly vary."""
    one, other = rng.normal(size=(100, 10)), rng.normal(size=(80, 10))
    other[:, 9] += size
    tables = [each * np.array([5, 5, *[1] * 8]) for each in (one, other)]
    features = fit_features(np.concatenate(tables)[::4])
    sums = KernelSums.empty(100 / 180, features.count, 199)
    for side, table in enumerate(tables):
        sums.add(features, table, rng.integers(-(2**62), 2**62, len(table)), side)
    return kernel_test(sums, 1).p_value


def scores(rng, size):
    tables = rng.normal(size=100).round(1), (rng.normal(size=80) + size).round(1)
    values = np.unique(np.concatenate(tables))
    counts = ((each[:, None] == values).sum(axis=0) for each in tables)
    return shifts.permutation_test(shifts.ks, *counts, 399)[1]


def labels(rng, size):
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    moved = shares + size * np.array([-0.25, 0.25, 0, 0])
    counts = rng.multinomial(100, shares), rng.multinomial(80, moved)
    return shifts.permutation_test(shifts.chi_square, *counts, 399)[1]


def neighbors(rng, size):
    agreed = rng.binomial(10, rng.beta(16 - 2 * size, 4 + 2 * size, 200))
    return overlap_test(200, agreed.sum(), np.square(agreed).sum(), 10, 0.8)


@pytest.mark.parametrize("test", [kernel, scores, labels, neighbors])
def test_false_alarms_are_as_many_as_stated_and_drift_is_found(test):
    p = np.array([test(np.random.default_rng([1, n]), 0.0) for n in range(PAIRS)])
    low, high = binom.interval(0.95, PAIRS, 0.05)
    assert low <= (p <= 0.05).sum() <= high
    # Not only at 5%: half of the p-values are below a half.
    assert abs((p <= 0.5).mean() - 0.5) < 0.15
    drifted = [test(np.random.default_rng([2, n]), 1.0) for n in range(DRIFTED)]
    assert np.mean(np.array(drifted) <= 0.05) > 0.7
