"""The threshold join equals brute force in float64, pair by pair and score by score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.worker.vectors import (
    METRICS,
    count_by_score,
    fit_basis,
    join_basis,
    prepare,
    threshold_pairs,
)
from ember.worker.vectors.filter_choice import Costs
from vector_cases import (
    KINDS,
    PRECISIONS,
    brute_force,
    brute_pairs,
    chosen,
    duplicated,
    random,
    spectrum,
)


def join(left, right, threshold, **options):
    chunks = list(threshold_pairs(left, right, threshold, threads=2, **options))
    return {
        (i, j): score
        for chunk in chunks
        for i, j, score in zip(
            chunk.left.tolist(), chunk.right.tolist(), chunk.score.tolist(), strict=True
        )
    }


def check(rows, others, metric, threshold, triangle=False, how=None):
    basis = fit_basis(others, metric)
    left = prepare(rows, metric, basis)
    right = left if triangle else prepare(others, metric, basis)
    scores = brute_force(rows, rows if triangle else others, metric)
    found = join(left, right, threshold, triangle=triangle, how=how)
    expected = brute_pairs(scores, threshold, metric, triangle)
    assert set(found) == expected
    assert all(np.float32(score) == scores[pair] for pair, score in found.items())
    options = {"triangle": triangle, "threads": 1, "how": how}
    assert sum(count_by_score(left, right, threshold, **options).values()) == len(expected)


def filters(dimension):
    widths = [None, *(w for w in (16, 32) if w <= 0.7 * dimension)]
    return [chosen(w, p) for w in widths for p in PRECISIONS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("metric", METRICS)
def test_join_equals_brute_force_for_every_filter(kind, metric):
    rng = np.random.default_rng(1)
    rows, others = kind(rng, 90, 48), kind(rng, 130, 48)
    scores = brute_force(rows, others, metric)
    threshold = float(np.quantile(scores, 0.1 if metric == "euclidean" else 0.9))
    for how in filters(48):
        check(rows, others, metric, threshold, how=how)
        check(rows, others, metric, threshold, triangle=True, how=how)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_within_a_rounding_of_the_threshold(metric, sign):
    """Every pair's score lies within 1e-6 of the threshold, and neighbors of it are thresholds."""
    rng = np.random.default_rng(2)
    base = rng.standard_normal(40)
    base /= np.linalg.norm(base)
    noise = rng.standard_normal((120, 40))
    noise -= np.outer(noise @ base, base)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    others = (sign * 0.85 * base + np.sqrt(1 - 0.85**2) * noise).astype(np.float32)
    rows = base[None].astype(np.float32)
    scores = brute_force(rows, others, metric)
    assert np.ptp(scores) < 1e-6
    for threshold in np.unique(scores)[::3]:
        for how in filters(40):
            check(rows, others, metric, float(threshold), how=how)


def test_planned_join_over_many_tiles_equals_brute_force():
    rng = np.random.default_rng(3)
    rows = spectrum(rng, 3000, 24)
    blocks = prepare(rows, "cosine")
    scores = rows.astype(np.float64)
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    expected = np.triu(scores @ scores.T >= 0.8, 1)
    found = join(blocks, blocks, 0.8, triangle=True)
    assert len(found) > 1000
    differing = set(found) ^ set(zip(*(x.tolist() for x in np.nonzero(expected)), strict=True))
    assert all(abs(scores[i] @ scores[j] - 0.8) < 1e-7 for i, j in differing)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_basis_for_a_threshold_is_no_wider_than_it_asks_for(monkeypatch, metric):
    costs = Costs({"float32": 0.4}, {"float32": 0.02}, 20.0)
    monkeypatch.setattr("ember.worker.vectors.filter_choice.measure", lambda dimension: costs)
    rows = spectrum(np.random.default_rng(7), 2200, 200)
    some = brute_force(rows[:100], rows[100:], metric)
    threshold = float(some.min() if metric == "euclidean" else some.max())
    full, narrow = fit_basis(rows, metric), join_basis(rows, metric, threshold, threads=1)
    assert len(full.pivots) > len(narrow.pivots) == 0
    assert narrow.widths == full.widths[: len(narrow.widths)]
    assert narrow.widths[-1] < full.widths[-1]
    blocks = [prepare(rows, metric, basis) for basis in (full, narrow)]
    expected, found = (join(block, block, threshold, triangle=True) for block in blocks)
    assert expected
    assert found == expected


def test_a_basis_for_a_join_of_few_rows_or_none():
    for count in (0, 1, 9):
        rows = random(np.random.default_rng(8), count, 40)
        assert join_basis(rows, "cosine", 0.5).widths == fit_basis(rows, "cosine").widths


def test_answers_do_not_depend_on_tiles_threads_or_plans(monkeypatch):
    rng = np.random.default_rng(4)
    block = prepare(duplicated(rng, 700, 20), "cosine")
    expected = join(block, block, 0.2, triangle=True)
    monkeypatch.setattr("ember.worker.vectors.threshold.TILE_ROWS", 64)
    monkeypatch.setattr("ember.worker.vectors.tiles.TILE_COLUMNS", 96)
    monkeypatch.setattr("ember.worker.vectors.threshold.SPAN_COLUMNS", 192)
    for how in filters(20):
        assert join(block, block, 0.2, triangle=True, how=how) == expected
        counts = count_by_score(block, block, 0.2, triangle=True, how=how)
        assert sum(counts.values()) == len(expected)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 9), m=st.integers(0, 9), d=st.integers(1, 5), seed=st.integers(0, 999),
    metric=st.sampled_from(METRICS), kind=st.sampled_from(KINDS), triangle=st.booleans(),
    threshold=st.floats(0, 1.5), exponent=st.integers(-12, 12),
    precision=st.sampled_from(PRECISIONS),
)  # fmt: skip
def test_join_of_any_shape_and_scale(
    n, m, d, seed, metric, kind, triangle, threshold, exponent, precision
):
    rng = np.random.default_rng(seed)
    scale = np.float32(10.0**exponent)
    rows, others = kind(rng, n, d) * scale, kind(rng, m, d) * scale
    if metric != "cosine":
        threshold *= float(scale) ** (2 if metric == "inner_product" else 1)
    check(rows, others, metric, threshold, triangle=triangle, how=chosen(None, precision))


def test_ids_are_those_of_the_blocks_and_chunks_come_in_order():
    rng = np.random.default_rng(5)
    block = prepare(random(rng, 50, 4), "cosine", ids=np.arange(50) * 10 + 7)
    chunk = next(iter(threshold_pairs(block, block, 0.0, triangle=True)))
    assert set(chunk.left.tolist()) <= set((np.arange(50) * 10 + 7).tolist())
    assert (np.lexsort((chunk.right, chunk.left)) == np.arange(len(chunk.left))).all()


@pytest.mark.parametrize("metric", METRICS)
def test_infinite_thresholds_select_nothing_or_everything(metric):
    rows = random(np.random.default_rng(6), 30, 8)
    for threshold in (np.inf, -np.inf) if metric != "euclidean" else (np.inf, 0.0):
        for how in filters(8):
            check(rows, rows[:20], metric, threshold, how=how)


def test_what_cannot_be_joined_is_said():
    rng = np.random.default_rng(6)
    cosine = prepare(random(rng, 5, 4), "cosine")
    other = prepare(random(rng, 5, 4), "cosine")
    distance = prepare(random(rng, 5, 4), "euclidean")
    with pytest.raises(ValueError, match="one basis"):
        next(threshold_pairs(cosine, other, 0.5))
    with pytest.raises(ValueError, match="same block twice"):
        next(threshold_pairs(cosine, cosine.take(slice(0, 2)), 0.5, triangle=True))
    with pytest.raises(ValueError, match="selects nothing"):
        next(threshold_pairs(distance, distance, -1.0))
    with pytest.raises(ValueError, match="selects nothing"):
        count_by_score(cosine, cosine, float("nan"))
