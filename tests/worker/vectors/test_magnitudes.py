"""Vectors of any size that is stored: scores, neighbors and pairs as exact arithmetic has them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.worker.vectors import METRICS, fit_basis, join_basis, prepare, threshold_pairs, top_k
from vector_cases import PRECISIONS, brute_force, brute_pairs, brute_top_k, chosen, operands

LARGEST = {"cosine": 38, "inner_product": 18, "euclidean": 37}
"""Powers of ten up to which rows are compared; longer ones are rejected, see test_vectors."""


def sized(rng, n, d, exponents, dtype=np.float32):
    """Rows with values of about 10^e, e drawn from some exponents for each row."""
    chosen = rng.choice(exponents, (n, 1))
    rows = (rng.uniform(0.1, 1.0, (n, d)) * rng.choice([-1, 1], (n, d)) * 10.0**chosen).astype(
        dtype
    )
    rows[:, 0] = np.where(
        np.abs(rows).max(axis=1) > 0, rows[:, 0], np.finfo(dtype).smallest_subnormal
    )
    return rows


def check_all(queries, corpus, metric, *, k=4, how=None, blocks=2):
    """Search and join of the rows against brute force."""
    basis = fit_basis(corpus, metric)
    block = prepare(queries, metric, basis)
    parts = np.array_split(np.arange(len(corpus)), blocks)
    others = [prepare(corpus[part], metric, basis, ids=part) for part in parts]
    exact = brute_force(queries, corpus, metric)
    assert np.isfinite(exact).all()
    found, scores = top_k(block, others, k, threads=1, how=how)
    expected, values = brute_top_k(exact, np.arange(len(corpus)), k, metric)
    np.testing.assert_array_equal(scores, values)
    np.testing.assert_array_equal(found, expected)
    threshold = float(np.quantile(exact, 0.3, method="nearest"))
    basis = join_basis(corpus, metric, threshold)
    left, right = prepare(queries, metric, basis), prepare(corpus, metric, basis)
    pairs = [
        pair
        for chunk in threshold_pairs(left, right, threshold, threads=1, how=how)
        for pair in zip(chunk.left.tolist(), chunk.right.tolist(), strict=True)
    ]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_pairs(exact, threshold, metric)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 9999),
    d=st.sampled_from([1, 2, 5, 24, 40]),
    metric=st.sampled_from(METRICS),
    precision=st.sampled_from(PRECISIONS),
    powers=st.lists(st.integers(-44, 38), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_rows_of_any_sizes_alone_or_mixed(seed, d, metric, precision, powers, dtype):
    rng = np.random.default_rng(seed)
    powers = [min(power, LARGEST[metric]) for power in powers]
    queries, corpus = (sized(rng, n, d, powers, dtype) for n in (9, 60))
    how = chosen(None if d < 24 else 16, precision)
    check_all(queries, corpus, metric, how=how)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("power", [-44, -30, 15, 17, 30, 37])
def test_one_such_row_hides_no_other(metric, precision, power):
    rng = np.random.default_rng(1)
    queries, corpus = sized(rng, 40, 30, [0]), sized(rng, 300, 30, [0])
    odd = sized(rng, 2, 30, [min(power, LARGEST[metric])])
    corpus[7], queries[3] = odd
    for width in (None, 16):
        check_all(queries, corpus, metric, how=chosen(width, precision))


@pytest.mark.parametrize("metric", METRICS)
def test_an_outlier_that_the_sample_lacks_is_compared_too(metric):
    rng = np.random.default_rng(2)
    corpus, queries = sized(rng, 90, 20, [0]), sized(rng, 20, 20, [0])
    basis = fit_basis(corpus, metric)
    odd = [power for power in (-40, 25, 36) if power <= LARGEST[metric]]
    corpus[::11], queries[::5] = sized(rng, 9, 20, odd), sized(rng, 4, 20, odd)
    block, other = prepare(queries, metric, basis), prepare(corpus, metric, basis)
    exact = brute_force(queries, corpus, metric)
    for precision in PRECISIONS:
        found, scores = top_k(block, [other], 5, how=chosen(None, precision))
        expected, values = brute_top_k(exact, np.arange(90), 5, metric)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(scores, values)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 9999),
    d=st.sampled_from([1, 2, 3, 24]),
    away=st.floats(1e2, 1e12),
    spread=st.floats(1e-6, 1e6),
    dtype=st.sampled_from([np.float32, np.float64]),
    precision=st.sampled_from(PRECISIONS),
)
def test_distances_far_from_the_origin(seed, d, away, spread, dtype, precision):
    rng = np.random.default_rng(seed)
    center = rng.uniform(-away, away, d)
    rows = (center + spread * rng.standard_normal((80, d))).astype(dtype)
    check_all(rows[:15], rows, "euclidean", how=chosen(None, precision))


def test_float32_products_of_far_rows_still_rule_out_most_of_them():
    rng = np.random.default_rng(3)
    rows = 5_500_000 + rng.uniform(0, 100, (400, 3))
    block = prepare(rows, "euclidean")
    assert block.basis.moved
    left, right = operands(block, block, chosen(None))
    assert chosen(None).passing(left, right, np.full(400, -0.5 * 5.0**2)).mean() < 4


@settings(max_examples=30)
@given(
    rows=st.lists(
        st.lists(st.floats(-(2.0**124), 2.0**124, width=32), min_size=3, max_size=3),
        min_size=2,
        max_size=5,
    )
)
def test_scores_are_those_of_fractions(rows):
    matrix = np.array(rows, np.float32)
    exact = [[Fraction(float(value)) for value in row] for row in matrix]
    block = prepare(matrix, "euclidean")
    _, scores = top_k(block, [block], len(rows))
    for row, mine in zip(exact, scores, strict=True):
        squares = sorted(
            sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) for other in exact
        )
        for score, square in zip(mine.tolist(), squares, strict=True):
            # Between the neighbors of the rounded root, which are further away than its error.
            below, above = (np.nextafter(np.float32(score), np.float32(way)) for way in (0, np.inf))
            assert Fraction(float(below)) ** 2 <= square <= Fraction(float(above)) ** 2


def test_very_long_rows_for_inner_products_are_refused_by_name():
    rows = np.full((2, 3), 1e19, np.float32)
    with pytest.raises(ValueError, match=r"norm exceeds 1e\+19"):
        prepare(rows, "inner_product", fit_basis(rows / 10, "inner_product"))


@pytest.mark.parametrize(("n", "d"), [(6, 4000), (3, 20_000), (1, 20_000), (0, 20_000)])
@pytest.mark.parametrize("metric", METRICS)
def test_a_basis_is_no_wider_than_its_rows(n, d, metric):
    import tracemalloc

    rows = np.random.default_rng(4).standard_normal((n, d)).astype(np.float32)
    tracemalloc.start()
    basis = fit_basis(rows, metric)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert basis.directions.shape[1] <= max(n, 1024 if n == 0 else 1)
    assert peak < 400 << 20  # a square matrix takes 128 MB and 3.2 GB
    if n:
        assert peak < 16 << 20
        check_all(rows, rows, metric, blocks=1, k=2)


def test_few_rows_of_a_sample_serve_as_well_as_their_moments():
    """Directions from the products of rows are those of the second moments."""
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((30, 40)) * np.geomspace(1, 0.01, 40)).astype(np.float32)
    exact = rows.astype(np.float64)
    _, columns = np.linalg.eigh(exact.T @ exact)
    basis = fit_basis(rows, "inner_product")
    mine = basis.directions.astype(np.float64)[:, :16]
    alike = np.abs(np.einsum("ij,ij->j", mine, columns[:, ::-1][:, :16]))
    np.testing.assert_allclose(alike, 1.0, atol=1e-5)
    assert basis.orthogonality < 1e-5
