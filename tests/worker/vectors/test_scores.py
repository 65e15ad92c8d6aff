"""Exact sums are numpy's own, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ember.worker.vectors import sums


@pytest.mark.parametrize("d", [1, 7, 8, 9, 127, 128, 129, 137, 384, 1000, 2048])
def test_sums_have_the_bits_of_numpys(d):
    rng = np.random.default_rng(d)
    left, right = (
        (rng.standard_normal((30, d)) * 10.0 ** rng.integers(-9, 9, (30, d))).astype(np.float32)
        for _ in range(2)
    )
    i, j = rng.integers(0, 30, (2, 200))
    a, b = left[i].astype(np.float64), right[j].astype(np.float64)
    np.testing.assert_array_equal(sums.products(left, right, i, j), (a * b).sum(axis=1))
    squares = np.square(a - b).sum(axis=1)
    np.testing.assert_array_equal(sums.squared_distances(left, right, i, j), squares)
