"""Intervals: by hand, and that they hold the truth of populations whose figures are known."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from ember.worker.metrics.intervals import interval, smallest_difference

BENCH = Path(__file__).parents[3] / "scripts" / "bench"


def test_the_bias_of_the_replicates_is_taken_off_twice():
    """The replicates lie 0.1 above the figure, so that it may lie 0.1 above the truth."""
    replicates = np.linspace(0.4, 0.6, 2001)
    values = np.concatenate([[0.4], replicates, np.full(4, 0.4)])
    assert interval(values, 4) == pytest.approx((0.205, 0.395))
    assert interval(values[:-4]) == pytest.approx((0.405, 0.595))


def test_percentiles_are_widened_to_the_error_of_the_jackknife():
    replicates = np.linspace(-0.1, 0.1, 2001) + 0.5
    error = replicates.std()
    for wanted, expected in ((0.5, 1.0), (1.2, 1.2), (9.0, 1.5)):
        # Of two groups the error is half of what lies between them.
        left = 0.5 + wanted * error * np.array([-1, 1])
        low, high = interval(np.concatenate([[0.5], replicates, left]), 2)
        assert (low, high) == pytest.approx((0.5 - 0.095 * expected, 0.5 + 0.095 * expected))


def test_so_many_rows_cannot_show_less():
    """An effect of that size is found at the 5% level in 80% of samples, by arithmetic."""
    replicates = np.concatenate([[0.5], np.linspace(0.4, 0.6, 2001)])
    error = replicates[1:].std()
    smallest = smallest_difference(replicates)
    found = norm.sf(1.959964 - smallest / error) + norm.cdf(-1.959964 - smallest / error)
    assert found == pytest.approx(0.8, abs=1e-4)
    assert smallest_difference(np.append(replicates, [0.0, 1.0]), 2) == pytest.approx(
        1.5 * smallest
    )
    assert np.isnan(smallest_difference(np.ones(100)))
    assert np.isnan(smallest_difference(np.array([np.nan, 1.0, 2.0])))


def test_ends_are_values_that_the_figure_can_have():
    values = np.concatenate([[0.02], np.linspace(0, 0.2, 101), np.full(5, 0.02)])
    low, high = interval(values, 5, within=(0.0, 1.0))
    assert (low, high > 0) == (0.0, True)
    assert interval(values, 5)[0] < 0


def test_what_is_undefined_is_left_out():
    nan = np.nan
    assert np.isnan(interval(np.array([nan, 1.0, 1.0, 1.0]), 1)).all()
    assert np.isnan(interval(np.array([1.0, nan, 1.0]), 1)).all()
    assert interval(np.array([1.0, 1.0, nan, 1.0, nan, nan]), 2) == (1.0, 1.0)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("interval_coverage")
    monkeypatch.setattr(module, "POPULATION", 200_000)
    return module


def six_labels(rng, n):
    """Scores of six labels that 5% of the rows have."""
    positive = rng.random((n, 6)) < 0.05
    return rng.normal(size=positive.shape) + positive, positive


@pytest.mark.parametrize("name", ["accuracy", "macro F1", "Spearman", "ECE, nearly calibrated", ""])
def test_intervals_hold_the_truth(bench, name):
    """As scripts/bench/interval_coverage.py shows it on more samples: 95% are to hold it."""
    named = {each.name: each for each in bench.CASES}
    case = named.get(name) or bench.Case("", 300, six_labels, bench.mean_average_precision)
    found = bench.coverage(case, 80, 150)
    # Of 80 samples two standard deviations are 5%; of 150 replicates the ends are less sure.
    assert found["ember"]["holds"] >= 0.85
    if name in {"", "ECE, nearly calibrated"}:
        assert found["percentiles"]["holds"] <= 0.7
