"""Top-k equals brute force in float64: ids, scores and order of ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.worker.vectors import METRICS, Neighbors, fit_basis, prepare, search, top_k
from vector_cases import (
    KINDS,
    PRECISIONS,
    brute_force,
    brute_top_k,
    chosen,
    integers,
    random,
    spectrum,
)


def check(queries, corpus, metric, k, *, blocks=1, own=False, how=None, seed=0):
    basis = fit_basis(corpus, metric)
    ids = np.random.default_rng(seed).permutation(len(corpus)).astype(np.int64)
    parts = [
        prepare(corpus[part], metric, basis, ids=ids[part])
        for part in np.array_split(np.arange(len(corpus)), blocks)
    ]
    block = prepare(queries, metric, basis)
    found, scores = top_k(block, parts, k, exclude_self=own, threads=2, how=how)
    expected, values = brute_top_k(
        brute_force(queries, corpus, metric), ids, k, metric, block.ids if own else None
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("metric", METRICS)
def test_top_k_equals_brute_force_for_every_filter(kind, metric):
    rng = np.random.default_rng(1)
    queries, corpus = kind(rng, 70, 48), kind(rng, 300, 48)
    for width in (None, 16, 32):
        for precision in PRECISIONS:
            how = chosen(width, precision)
            check(queries, corpus, metric, 10, blocks=3, own=True, how=how)


@pytest.mark.parametrize("metric", METRICS)
def test_thousands_of_ties_at_place_k_go_to_the_lowest_ids(metric):
    corpus = np.repeat(integers(np.random.default_rng(2), 3, 6), 1500, axis=0)
    check(corpus[::500], corpus, metric, 10, blocks=2)


@pytest.mark.parametrize("scale", [1e-20, 1e-40])
def test_rows_next_to_nothing_hide_no_others(scale):
    rng = np.random.default_rng(6)
    corpus = random(rng, 900, 20)
    corpus[::7] *= np.float32(scale)
    check(corpus[:120], corpus, "cosine", 8, blocks=2)


@pytest.mark.parametrize("scales", [(1e-38, 1e-10), (1e-30, 1e-14), (1e-41, 1.0), (1e-8, 1e-8)])
def test_queries_next_to_nothing_find_their_neighbors(scales):
    rng = np.random.default_rng(7)
    base = rng.standard_normal(32)
    queries = ((-base + 0.3 * rng.standard_normal((20, 32))) * scales[0]).astype(np.float32)
    corpus = ((base + 0.8 * rng.standard_normal((2000, 32))) * scales[1]).astype(np.float32)
    check(queries, corpus, "cosine", 3, blocks=2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scales", [(1e-24, 1.0), (1e-44, 1e14), (1e-38, 1e13), (1e-30, 1e-3)])
def test_prefixes_of_very_short_rows_hide_no_neighbors(scales, precision):
    rng = np.random.default_rng(8)
    queries, corpus = (
        (rng.standard_normal((n, 40)) * scale).astype(np.float32)
        for n, scale in zip((60, 800), scales, strict=True)
    )
    how = chosen(16, precision)
    check(queries, corpus, "inner_product", 5, how=how)
    check(corpus[:60], queries, "inner_product", 5, how=how)


def test_many_candidates_are_scored_in_bounded_portions(monkeypatch):
    monkeypatch.setattr("ember.worker.vectors.topk.MAX_PENDING", 100)
    monkeypatch.setattr("ember.worker.vectors.tiles.TILE_COLUMNS", 64)
    corpus = integers(np.random.default_rng(3), 900, 4)
    check(corpus[:90], corpus, "cosine", 7)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6), m=st.integers(0, 12), d=st.integers(1, 5), k=st.integers(1, 15),
    seed=st.integers(0, 999), metric=st.sampled_from(METRICS), kind=st.sampled_from(KINDS),
    own=st.booleans(), blocks=st.integers(1, 3), exponent=st.integers(-12, 12),
    precision=st.sampled_from(PRECISIONS),
)  # fmt: skip
def test_top_k_of_any_shape_and_scale(
    n, m, d, k, seed, metric, kind, own, blocks, exponent, precision
):
    rng = np.random.default_rng(seed)
    scale = np.float32(10.0**exponent)
    queries, corpus = kind(rng, n, d) * scale, kind(rng, m, d) * scale
    how = chosen(None, precision)
    check(queries, corpus, metric, k, blocks=blocks, own=own, seed=seed, how=how)


def test_a_query_equal_to_a_corpus_row_finds_it_unless_it_is_itself():
    rows = random(np.random.default_rng(4), 30, 8)
    block = prepare(rows, "cosine")
    with_self, scores = top_k(block, [block], 1)
    assert (with_self[:, 0] == np.arange(30)).all()
    assert (scores == 1.0).all()
    without, _ = top_k(block, [block], 1, exclude_self=True)
    assert (without[:, 0] != np.arange(30)).all()


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 99))
def test_partial_results_merge_to_the_same_answer_in_any_order(order, seed):
    rows = integers(np.random.default_rng(seed), 60, 4)
    basis = fit_basis(rows, "cosine")
    queries = prepare(rows[:7], "cosine", basis)
    blocks = [
        prepare(rows[at : at + 12], "cosine", basis, ids=np.arange(at, at + 12))
        for at in range(0, 60, 12)
    ]
    expected = top_k(queries, blocks, 9)
    partial = [search(queries, [blocks[at]], Neighbors.empty(7, 9)) for at in order]
    merged = partial[0].merge(partial[1]).merge(partial[2].merge(partial[3])).merge(partial[4])
    np.testing.assert_array_equal(merged.result("cosine"), expected)
    np.testing.assert_array_equal(top_k(queries, [blocks[at] for at in order], 9), expected)


def test_planned_search_over_many_tiles_equals_brute_force():
    rng = np.random.default_rng(5)
    corpus = spectrum(rng, 9000, 24)
    queries = spectrum(rng, 600, 24)
    basis = fit_basis(corpus, "euclidean")
    found, _ = top_k(prepare(queries, "euclidean", basis), [prepare(corpus, "euclidean", basis)], 5)
    a, b = queries.astype(np.float64), corpus.astype(np.float64)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    np.testing.assert_array_equal(found, np.argsort(square, axis=1)[:, :5])


def test_what_cannot_be_searched_is_said():
    rows = random(np.random.default_rng(6), 5, 4)
    block = prepare(rows, "cosine")
    with pytest.raises(ValueError, match="at least one"):
        top_k(block, [block], 0)
    with pytest.raises(ValueError, match="one basis"):
        top_k(block, [prepare(rows, "inner_product")], 1)
    with pytest.raises(ValueError, match="one basis"):
        top_k(block, [prepare(rows, "cosine", fit_basis(rows, "cosine", pivots=0))], 1)
    with pytest.raises(ValueError, match="same queries"):
        Neighbors.empty(2, 3).merge(Neighbors.empty(2, 4))
