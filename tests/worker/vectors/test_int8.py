"""Products of integers find what numpy finds, in shapes that fill no tile, and at their limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.vectors import METRICS, fit_basis, int8_kernel, prepare
from ember.worker.vectors.bounds import LEADING
from ember.worker.vectors.filter_choice import Costs, choose
from ember.worker.vectors.filters import prefix_of, slack_of
from ember.worker.vectors.int8_filter import Int8Columns, Int8Filter, Int8Rows
from vector_cases import (
    brute_force,
    few_bits,
    integer_sums,
    many_bits,
    operands,
    random,
    rows_of,
    spectrum,
)
from worker.vectors.test_threshold import check as check_join
from worker.vectors.test_topk import check as check_top_k

pytestmark = pytest.mark.skipif(not int8_kernel.available(), reason="this processor has no AVX2")


def pairs_of(left, right, least):
    """Positions that `reaching` finds, of operands that `operands` made."""
    row, column = np.empty((2, len(left.values) * len(right.bias)), np.int64)
    count = int8_kernel.reaching(left.product(), right.arrays(), least, row, column)
    return set(zip(row[:count].tolist(), column[:count].tolist(), strict=True))


def spikes(rng, n, d):
    """All that a row has is in few coordinates: more than int8 holds where that is a late one."""
    there = rng.random((n, d)) < 1.5 / d
    there[np.arange(n), rng.integers(0, d, n)] = True
    return random(rng, n, d) * there.astype(np.float32)


def outliers(rng, n, d):
    """One row in fifty is thousands of times as long as others."""
    return random(rng, n, d) * np.where(rng.random((n, 1)) < 0.02, 3000, 1).astype(np.float32)


def longer(rng, n, d):
    """One row in two hundred is somewhat longer than the others, in one direction."""
    rows = random(rng, n, d)
    rows[::200] = 1.7 * np.sqrt(d) * rows[0] / np.linalg.norm(rows[0])
    return rows


@given(
    a=st.integers(1, 20), b=st.integers(1, 40), width=st.integers(1, 70),
    metric=st.sampled_from(METRICS), kind=st.sampled_from([random, spikes, outliers]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_pairs_that_reach_their_floor_are_found_in_any_shape(a, b, width, metric, kind, seed):
    rng = np.random.default_rng(seed)
    rows, others = kind(rng, a, width), kind(rng, b, width)
    basis = fit_basis(others, metric)
    left, right = operands(
        prepare(rows, metric, basis), prepare(others, metric, basis), Int8Filter(None)
    )
    values = integer_sums(left, right)[:, :b]
    assert np.abs(values).max() < 2**31
    least = np.quantile(values, rng.random(a), method="nearest").astype(np.int32)
    expected = np.argwhere(values >= least[:, None])
    assert pairs_of(left, right, least) == set(map(tuple, expected.tolist()))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [spikes, outliers, longer])
def test_rows_that_int8_cannot_hold_are_lost_no_more_than_others(metric, kind):
    rows = kind(np.random.default_rng(5), 600, 130)
    for width in (None, 24):
        check_top_k(rows[:50], rows, metric, 9, blocks=2, how=Int8Filter(width))


@pytest.mark.parametrize("kind", [random, spikes, outliers, longer])
def test_what_a_row_loses_is_rounded_up(kind):
    block = prepare(kind(np.random.default_rng(6), 220, 60), "inner_product")
    left, right = operands(block, block, Int8Filter(40))
    columns = rows_of(right)
    coarse, fine = left.scales.coarse, left.scales.fine
    slack = np.sqrt(prefix_of(block, 40)[1] + slack_of(block, 40) * block.lengths)
    rest = block.prefix[:, LEADING:40].astype(np.float64)
    for words, shift in ((left.values, 64), (columns[:220], 0)):
        values = few_bits(words, left.low) - shift
        assert np.abs(values).max() <= 127
        kept = np.linalg.norm(values, axis=1) / coarse
        lost = np.linalg.norm(rest - values / coarse, axis=1)
        told = many_bits(words, left.low)[:, LEADING : LEADING + 3]
        exact = (slack, kept, lost) if shift else (slack, lost, kept + lost)
        up = fine * np.stack(exact, axis=1)
        assert (told >= up * (1 - 1e-12)).all()
        assert (told < up + 1.001).all()


def test_the_least_floor_lets_all_columns_through_but_those_that_are_none():
    block = prepare(random(np.random.default_rng(1), 21, 5), "cosine")
    left, right = operands(block, block, Int8Filter(None))
    least = np.empty(21, np.int32)
    int8_kernel.floors(np.full(21, -np.inf), left.offset, left.scales.squared, least)
    assert len(pairs_of(left, right, least)) == 21 * 21
    int8_kernel.floors(np.full(21, np.inf), left.offset, left.scales.squared, least)
    assert not pairs_of(left, right, least)


def test_parts_of_operands_are_operands():
    block = prepare(random(np.random.default_rng(2), 50, 9), "euclidean")
    left, right = operands(block, block, Int8Filter(None))
    rows, columns = left[7:19], right[16:48]
    assert isinstance(rows, Int8Rows)
    assert isinstance(columns, Int8Columns)
    whole = integer_sums(left, right)[7:19, 16:48]
    np.testing.assert_array_equal(integer_sums(rows, columns), whole)
    assert len(right[32:].bias) == 32
    for part in (slice(8, 48), slice(0, 40)):
        with pytest.raises(ValueError, match="no panels of 16"):
            right[part]


def test_int8_is_refused_where_it_is_not_available(monkeypatch):
    monkeypatch.setattr(int8_kernel, "available", lambda: False)
    block = prepare(random(np.random.default_rng(2), 5, 9), "cosine")
    with pytest.raises(ValueError, match="AVX2"):
        operands(block, block, Int8Filter(None))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scales", [(1e-3, 1e3), (1e-30, 1.0), (1.0, 1e14), (1e-38, 1e-36)])
def test_rows_of_very_different_lengths(metric, scales):
    """What is short beside the longest row is rounded to little, and lost nevertheless never."""
    rng = np.random.default_rng(3)
    rows = random(rng, 80, 40)
    rows *= np.exp(rng.uniform(*np.log(scales), (80, 1))).astype(np.float32)
    for width in (None, 16):
        how = Int8Filter(width)
        check_top_k(rows[:30], rows, metric, 7, blocks=2, how=how)
        exact = np.sqrt(np.square(rows[:1].astype(float) - rows).sum(axis=1))
        threshold = float(np.median(exact)) if metric == "euclidean" else 0.1
        check_join(rows[:30], rows, metric, threshold, how=how)


def test_beside_one_very_long_row_another_precision_is_chosen(monkeypatch):
    costs = Costs({"float32": 0.4, "int8": 0.2}, {"float32": 0.02, "int8": 0.006}, 20.0)
    monkeypatch.setattr("ember.worker.vectors.filter_choice.measure", lambda dimension: costs)
    rows = spectrum(np.random.default_rng(4), 2100, 24)
    rows[7] *= np.float32(1e6)
    block = prepare(rows, "inner_product")
    tenth = np.sort(brute_force(rows, rows, "inner_product"), axis=1)[:, -10].astype(np.float64)
    everything = [np.arange(len(rows))]
    (how,) = choose(block, block, tenth, everything, threads=1)
    assert how.precision == "float32"
