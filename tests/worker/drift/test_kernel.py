"""The kernel test and the neighbors: brute force, scikit-learn, and independence of batches."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ember.worker.drift.features import ONE, fit_features
from ember.worker.drift.kernel import KernelSums, kernel_test
from ember.worker.drift.neighbors import Nearest, Queries
from ember.worker.metrics.intervals import interval


def keys(n):
    return np.random.default_rng(n).integers(-(2**62), 2**62, n)


def sums_of(features, tables, permutations=99, batch=10**6):
    share = len(tables[0]) / sum(map(len, tables))
    sums = KernelSums.empty(share, features.count, permutations)
    for side, table in enumerate(tables):
        for start in range(0, len(table), batch):
            rows = slice(start, start + batch)
            sums.add(features, table[rows], keys(len(table))[rows], side)
    return sums


def test_products_of_features_are_the_kernel_and_their_means_the_discrepancy():
    rng = np.random.default_rng(5)
    one = rng.normal(size=(150, 6)).astype(np.float32)
    other = (rng.normal(size=(120, 6)) + 0.6).astype(np.float32)
    both = np.concatenate([one, other]).astype(float)
    features = fit_features(both)
    apart = np.square(both[:, None] - both).sum(axis=2)
    assert features.width**2 == pytest.approx(np.median(apart[np.triu_indices(270, 1)]))
    kernel = np.exp(-apart / (2 * features.width**2))
    made = features.of(both) / ONE
    assert np.abs(made @ made.T / (features.count / 2) - kernel).max() < 0.35
    # The unbiased discrepancy of the kernel that the features have, by pairs of rows.
    own = made @ made.T / (features.count / 2)
    inner = [own[:150, :150], own[150:, 150:]]
    means = [(each.sum() - np.trace(each)) / (len(each) * (len(each) - 1)) for each in inner]
    brute = means[0] + means[1] - 2 * own[:150, 150:].mean()
    found = kernel_test(sums_of(features, (one, other)))
    assert found.mmd2[0] == pytest.approx(brute, abs=1e-4)
    exact = [kernel[:150, :150], kernel[150:, 150:]]
    means = [(each.sum() - len(each)) / (len(each) * (len(each) - 1)) for each in exact]
    assert found.mmd2[0] == pytest.approx(
        means[0] + means[1] - 2 * kernel[:150, 150:].mean(), abs=0.03
    )
    low, high = interval(found.mmd2)
    assert 0 < low < brute < high
    assert found.p_value == 0.01


def test_sums_do_not_depend_on_batches_and_merge():
    rng = np.random.default_rng(5)
    tables = [rng.normal(size=(n, 40)).astype(np.float32) for n in (700, 500)]
    features = fit_features(np.concatenate(tables)[::7])
    whole = sums_of(features, tables)
    parts = sums_of(features, tables, batch=37)
    assert np.array_equal(whole.flat, parts.flat)
    assert np.array_equal(whole.filled(whole.flat).flat, whole.flat)
    # About as many rows as the reference has, other ones each time, and an id twice is two rows.
    assert np.abs(whole.drawn - 700).max() < 5 * np.sqrt(1200 * 0.25)
    assert len(np.unique(whole.drawn_sums[:, 0])) > 90
    assert kernel_test(whole).p_value > 0.05


def test_tables_without_rows_have_no_discrepancy():
    features = fit_features(np.zeros((1, 3)))
    found = kernel_test(sums_of(features, [np.zeros((5, 3)), np.zeros((0, 3))]))
    assert np.isnan([found.p_value, found.mmd2[0]]).all()
    same = kernel_test(sums_of(features, [np.zeros((5, 3)), np.zeros((5, 3))]))
    assert same.p_value == 1
    assert same.mmd2[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("batch", [5000, 61])
def test_neighbors_are_scikit_learns(batch):
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(3000, 12)).astype(np.float32) * rng.random((3000, 1)).astype(np.float32)
    names = keys(3000)
    asked = np.arange(0, 3000, 100)
    nearest = Nearest(Queries.of(names[asked], rows[asked]), 7)
    for start in range(0, 3000, batch):
        nearest.add(names[start : start + batch], rows[start : start + batch])
    _, found = NearestNeighbors(n_neighbors=8, metric="cosine").fit(rows).kneighbors(rows[asked])
    for number, row in enumerate(asked):
        mine = nearest.key[nearest.query == number]
        assert mine.tolist() == [names[n] for n in found[number] if n != row][:7]


def test_ties_go_to_the_smaller_key_in_any_order():
    rows = np.tile(np.eye(4, dtype=np.float32), (40, 1))
    names = np.arange(160)
    for order in (np.arange(160), np.arange(160)[::-1]):
        nearest = Nearest(Queries.of(names[:1], rows[:1]), 5)
        for start in range(0, 160, 16):
            part = order[start : start + 16]
            nearest.add(names[part], rows[part])
        assert nearest.key.tolist() == [4, 8, 12, 16, 20]
