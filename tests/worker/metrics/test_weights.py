"""Bootstrap weights and sums: their distribution, and that nothing but the id shows in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ember.worker.metrics.intervals import interval
from ember.worker.metrics.sums import ALL, Slicing, Sums, Weights, from_limbs, slicings, to_limbs
from ember.worker.metrics.weights import GROUPS, column_weights, poisson_weights

KEYS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 3000)


def test_the_weights_are_independent_poisson_draws():
    weights = poisson_weights(KEYS, range(401))
    assert (weights[:, 0] == 1).all()
    drawn = weights[:, 1:]
    seen = np.bincount(drawn.astype(int).ravel(), minlength=9)
    expected = stats.poisson(1).pmf(np.arange(9)) * drawn.size
    common = expected > 50
    assert (
        stats.chisquare(
            seen[common], expected[common] * seen[common].sum() / expected[common].sum()
        ).pvalue
        > 1e-4
    )
    across_rows = np.corrcoef(drawn[:200])[np.triu_indices(200, 1)]
    across_replicates = np.corrcoef(drawn[:, :200].T)[np.triu_indices(200, 1)]
    # As large as chance makes them: standard deviation 1 / sqrt(length).
    assert across_rows.std() == pytest.approx(1 / np.sqrt(400), rel=0.05)
    assert across_replicates.std() == pytest.approx(1 / np.sqrt(3000), rel=0.05)


def test_the_draws_are_quantiles_of_the_words_of_splitmix():
    """By Python's integers and scipy, so that runs of different versions can be compared."""
    mask = (1 << 64) - 1
    for key in (0, -1, *KEYS[:3].tolist()):
        drawn = []
        for place in range(1, 26):
            word = (key + place * 0x9E3779B97F4A7C15) & mask
            word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
            word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
            word ^= word >> 31
            drawn += [((word >> shift) % 65536 + 0.5) / 65536 for shift in (0, 16, 32, 48)]
        expected = stats.poisson(1).ppf(drawn[:99])
        np.testing.assert_array_equal(poisson_weights(np.array([key]), range(1, 100))[0], expected)


def test_every_row_is_left_out_with_one_group():
    weights = column_weights(KEYS, range(11 + GROUPS), 10)
    np.testing.assert_array_equal(weights[:, :11], poisson_weights(KEYS, range(11)))
    without = weights[:, 11:] == 0
    assert (without.sum(axis=1) == 1).all()
    assert stats.chisquare(without.sum(axis=0)).pvalue > 1e-4
    # The groups have nothing to do with the draws.
    drawn = weights[:, 1:11].sum(axis=1) > 10
    table = np.stack([without[drawn].sum(axis=0), without[~drawn].sum(axis=0)])
    assert stats.chi2_contingency(table).pvalue > 1e-4
    for some in (range(0), range(5, 30), range(20, 40), range(11)):
        part = column_weights(KEYS[:50], some, 10)
        np.testing.assert_array_equal(part, weights[:50, some.start : some.stop])


def test_neighboring_keys_have_unrelated_weights():
    weights = poisson_weights(np.arange(500), range(1, 1001))
    assert abs(np.corrcoef(weights)[np.triu_indices(500, 1)]).max() < 6 / np.sqrt(1000)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40))
def test_a_replicate_is_the_same_wherever_it_is_computed(first, count):
    whole = poisson_weights(KEYS[:7], range(100))
    part = poisson_weights(KEYS[:7], range(first, first + count))
    np.testing.assert_array_equal(part, whole[:, first : first + count])


def test_the_interval_covers_the_mean_of_a_known_distribution():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        keys = rng.integers(-(2**63), 2**63 - 1, 150)
        values = rng.exponential(size=150)
        weights = poisson_weights(keys, range(401)).astype(np.float64)
        low, high = interval((values @ weights) / weights.sum(axis=0))
        covered += low <= 1 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_an_interval_leaves_out_undefined_replicates():
    assert interval(np.array([1.0, np.nan, 2.0, 2.0])) == (2.0, 2.0)
    assert np.isnan(interval(np.array([np.nan, 1.0]))).all()
    assert np.isnan(interval(np.array([1.0]))).all()


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, (5, 3), elements=st.floats(-1, 1)))
def test_limbs_are_exact_to_their_step(values):
    np.testing.assert_allclose(from_limbs(to_limbs(values).T).T, values, rtol=0, atol=2**-60)


def add(sums, rows, keys, items, values, slices):
    batch = pa.RecordBatch.from_pydict({"slice_0": pa.array([f"g={s}" for s in slices[rows]])})
    for slicing in slicings(batch, ["slice_0"]):
        sums.add("x", slicing, items[rows], values[rows], Weights(keys[rows], sums.replicates))


@settings(max_examples=3, deadline=None)
@pytest.mark.parametrize("parts", [1, 7, 200])
@given(seed=st.integers(0, 2**32 - 1))
def test_sums_do_not_depend_on_the_partitioning(parts, seed):
    rng = np.random.default_rng(seed)
    keys, items = KEYS[:400], rng.integers(0, 7, 400)
    slices = rng.integers(0, 3, 400)
    values = np.column_stack([rng.integers(0, 2, 400), to_limbs(rng.random((400, 1)))])
    whole = Sums(12)
    add(whole, np.arange(400), keys, items, values, slices)
    merged: dict[tuple[str, str, int], np.ndarray] = {}
    where = rng.integers(0, parts, 400)
    for part in rng.permutation(parts):
        sums = Sums(12)
        add(sums, np.flatnonzero(where == part), keys, items, values, slices)
        for key, array in sums.held.items():
            merged[key] = merged.get(key, 0) + array
    assert merged.keys() == whole.held.keys()
    for key, array in merged.items():
        np.testing.assert_array_equal(array, whole.held[key])
    weights = poisson_weights(keys, range(13)).astype(np.int64)
    for item in range(7):
        of_item = items == item
        if of_item.any():
            expected = values[of_item].T @ weights[of_item]
            np.testing.assert_array_equal(whole.held["x", ALL, item], expected)


def test_bits_and_integers_add_up_to_the_same():
    bits = np.random.default_rng(3).random((400, 2)) < 0.5
    one, other = Sums(9), Sums(9)
    everything = Slicing([ALL], np.zeros(400, np.int64))
    for sums, values in ((one, bits), (other, bits.astype(np.int64))):
        sums.add("x", everything, np.zeros(400, int), values, Weights(KEYS[:400], 9))
    np.testing.assert_array_equal(one.held["x", ALL, 0], other.held["x", ALL, 0])
