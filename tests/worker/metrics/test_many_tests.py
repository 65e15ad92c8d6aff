"""Corrections for many tests: scipy's, and Holm's by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm

from ember.worker.metrics.many_tests import benjamini_hochberg, holm, two_sided


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_adjusted_p_values(count):
    p = np.random.default_rng(count).random(count).round(2) ** 2
    found = benjamini_hochberg(p)
    assert np.allclose(found, false_discovery_control(p) if count else p)
    for level in (0.01, 0.05, 0.3):
        # Holm rejects the smallest, one after the other, while p <= level / those that are left.
        rejected, order = set(), np.argsort(p, kind="stable")
        for place, test in enumerate(order):
            if p[test] > level / (count - place):
                break
            rejected.add(int(test))
        assert set(np.flatnonzero(holm(p) <= level).tolist()) == rejected


def test_p_values_are_those_of_the_normal_distribution():
    assert two_sided(-1.959964) == pytest.approx(0.05, abs=1e-6)
    assert two_sided(2.5) == pytest.approx(2 * norm.sf(2.5))
