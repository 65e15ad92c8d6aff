"""Shifts of scores and labels: scipy's distances and tests, and permutations by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ember.worker.drift import shifts


def counted(one, other):
    values = np.unique(np.concatenate([one, other]))
    return values, *((each[:, None] == values).sum(axis=0)[:, None] for each in (one, other))


@pytest.fixture(params=["ties", "none"])
def samples(request):
    rng = np.random.default_rng(3)
    if request.param == "ties":
        return rng.integers(0, 9, 200).astype(float), rng.integers(1, 12, 130).astype(float)
    return rng.normal(size=90), rng.normal(0.3, 1.2, size=70)


def test_distances_are_scipys(samples):
    values, one, other = counted(*samples)
    assert shifts.ks(one, other)[0] == pytest.approx(stats.ks_2samp(*samples).statistic)
    distance = shifts.wasserstein(values, one, other)[0]
    assert distance == pytest.approx(stats.wasserstein_distance(*samples))
    p, q = one[:, 0] / one.sum(), other[:, 0] / other.sum()
    assert shifts.total_variation(one, other)[0] == pytest.approx(np.abs(p - q).sum() / 2)
    divergence = shifts.jensen_shannon(one, other)[0]
    assert divergence == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    both = np.concatenate([one, other], axis=1)
    expected = stats.chi2_contingency(both, correction=False).statistic
    assert shifts.chi_square(one, other)[0] == pytest.approx(expected)


def test_the_stability_index_is_that_of_tenths_of_the_reference():
    reference = np.arange(1000) / 1000
    current = np.concatenate([np.arange(0, 1000, 2), np.full(100, 999)]) / 1000
    _, one, other = counted(reference, current)
    edges = np.arange(1, 10) / 10
    p, q = (
        np.bincount(np.searchsorted(edges, each, side="right"), minlength=10) + 0.5
        for each in (reference, current)
    )
    p, q = p / p.sum(), q / q.sum()
    assert shifts.psi(one, other)[0] == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=0.02)
    assert shifts.psi(one, one)[0] == 0


def test_replicates_are_columns_and_tables_without_rows_have_no_figure():
    one, other = np.random.default_rng(4).integers(0, 5, (2, 30, 4))
    for figure in (shifts.ks, shifts.total_variation, shifts.jensen_shannon, shifts.chi_square):
        alone = [figure(one[:, [n]], other[:, [n]])[0] for n in range(4)]
        assert figure(one, other) == pytest.approx(alone)
    none = np.zeros((30, 1), int)
    for figure in (shifts.ks, shifts.total_variation, shifts.jensen_shannon, shifts.psi):
        assert np.isnan(figure(none, other[:, :1])).all()
    assert np.isnan(shifts.permutation_test(shifts.ks, none[:, 0], other[:, 0])).all()


def test_p_values_are_those_of_permuted_rows(samples):
    _, one, other = counted(*samples)
    found, p_value = shifts.permutation_test(shifts.ks, one[:, 0], other[:, 0])
    every = np.concatenate(samples)
    rng, drawn = np.random.default_rng(5), []
    for _ in range(500):
        each = rng.permutation(every)
        drawn.append(stats.ks_2samp(each[: len(samples[0])], each[len(samples[0]) :]).statistic)
    by_hand = np.mean(np.array(drawn) >= found - 1e-9)
    assert p_value == pytest.approx(by_hand, abs=4 * np.sqrt(0.25 / 500) + 1e-3)


def test_above_a_billion_rows_draws_are_normal():
    counts = np.array([4 * 10**8, 10**8, 6 * 10**8])
    _, alike = shifts.permutation_test(shifts.chi_square, counts, counts)
    moved = counts + np.array([10**6, -(10**6), 0])
    statistic, apart = shifts.permutation_test(shifts.chi_square, counts, moved)
    assert (alike, apart) == (1.0, 1 / 2000)
    slight = counts + np.array([30_000, -30_000, 0])
    statistic, p_value = shifts.permutation_test(shifts.chi_square, counts, slight)
    assert p_value == pytest.approx(stats.chi2.sf(statistic, 2), abs=0.05)
