"""Scores against a truth: equal to scikit-learn and scipy, on the sample and on each replicate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics

from ember.worker.metrics import curves
from ember.worker.metrics.curves import correlations, curve_rows, precision_recall, rank_against
from ember.worker.metrics.weights import poisson_weights

RNG = np.random.default_rng(5)
KEYS = RNG.integers(-(2**63), 2**63 - 1, 5000)


def draw(kind, count):
    rng = np.random.default_rng(len(kind) + count)
    scores = rng.normal(size=count)
    if kind == "ties":
        scores = rng.integers(0, 4, count) / 4
    if kind == "constant":
        scores = np.full(count, 0.3)
    truth = rng.random(count) < (0.3 + 0.4 * (scores > 0))
    return scores, truth


def resampled(keys, replicate):
    """The rows of a replicate, each as often as it was drawn."""
    weights = poisson_weights(keys, range(replicate, replicate + 1))[:, 0].astype(int)
    return np.repeat(np.arange(len(keys)), weights)


def best_by_hand(scores, truth):
    found = [(metrics.f1_score(truth, scores >= at), at) for at in np.unique(scores)]
    best = max(value for value, _ in found)
    return best, max(at for value, at in found if value >= best - 1e-12)


@pytest.mark.parametrize("kind", ["plain", "ties", "constant"])
@pytest.mark.parametrize("count", [2, 37, 5000])
def test_a_ranking_equals_scikit_learn(kind, count):
    scores, truth = draw(kind, count)
    truth[0], truth[1] = True, False
    replicates = 4 if count < 100 else 1
    ours = rank_against(scores, truth, KEYS[:count], replicates)
    for replicate in range(replicates + 1):
        rows = resampled(KEYS[:count], replicate)
        if len(set(truth[rows])) < 2:
            continue
        auc = metrics.roc_auc_score(truth[rows], scores[rows])
        assert ours.roc_auc[replicate] == pytest.approx(auc, abs=1e-12)
        ap = metrics.average_precision_score(truth[rows], scores[rows])
        assert ours.average_precision[replicate] == pytest.approx(ap, abs=1e-12)
        if count < 100:
            f1, threshold = best_by_hand(scores[rows], truth[rows])
            assert ours.best_f1[replicate] == pytest.approx(f1, abs=1e-12)
            assert ours.best_threshold[replicate] == threshold


def test_a_ranking_of_one_class_or_of_nothing_is_undefined():
    scores = np.arange(3.0)
    none = rank_against(scores, np.zeros(3, bool), KEYS[:3], 5)
    every = rank_against(scores, np.ones(3, bool), KEYS[:3], 5)
    empty = rank_against(scores[:0], np.zeros(0, bool), KEYS[:0], 5)
    for figures in (none, empty):
        assert np.isnan([figures.roc_auc, figures.average_precision, figures.best_f1]).all()
    assert np.isnan(every.roc_auc).all()
    assert every.average_precision[0] == every.best_f1[0] == 1


def test_rows_without_a_score_may_be_left_out_when_their_number_is_known():
    scores, truth = draw("ties", 300)
    scores[150:] = -np.inf
    whole = rank_against(scores, truth, KEYS[:300], 6)
    kept = (scores > -np.inf) | truth
    everything = poisson_weights(KEYS[:300], range(7)).sum(axis=0, dtype=np.float64)
    part = rank_against(scores[kept], truth[kept], KEYS[:300][kept], 6, everything)
    for name in ("roc_auc", "average_precision", "best_f1", "best_threshold"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name), atol=1e-12)
    finite = np.where(np.isinf(scores), scores[~np.isinf(scores)].min() - 1, scores)
    expected = metrics.average_precision_score(truth, finite)
    assert part.average_precision[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_correlations_equal_scipy(kind, monkeypatch):
    monkeypatch.setattr(curves, "_CELLS", 3 * 400)  # several blocks of replicates
    scores, _ = draw(kind, 400)
    truth = np.round(scores + RNG.normal(size=400), 1) * 1e6 + 1e9
    ours = correlations(scores, truth, KEYS[:400], 7)
    for replicate in range(8):
        rows = resampled(KEYS[:400], replicate)
        expected = pearsonr(scores[rows], truth[rows]).statistic
        assert ours["pearson"][replicate] == pytest.approx(expected, abs=1e-12)
        expected = spearmanr(scores[rows], truth[rows]).statistic
        assert ours["spearman"][replicate] == pytest.approx(expected, abs=1e-12)


def test_correlations_of_a_constant_of_one_row_and_of_none_are_undefined():
    constant = np.full(9, 0.1)
    for x, y in ((constant, np.arange(9.0)), (np.arange(9.0), constant)):
        assert np.isnan(correlations(x, y, KEYS[:9], 3)["pearson"]).all()
        assert np.isnan(correlations(x, y, KEYS[:9], 3)["spearman"]).all()
    for count in (0, 1):
        found = correlations(np.arange(count) * 1.0, np.arange(count) * 1.0, KEYS[:count], 3)
        assert np.isnan(found["pearson"][0])
        assert np.isnan(found["spearman"][0])


def test_the_order_of_the_rows_does_not_show():
    scores, truth = draw("ties", 2500)
    order = RNG.permutation(2500)
    one = rank_against(scores, truth, KEYS[:2500], 5)
    other = rank_against(scores[order], truth[order], KEYS[:2500][order], 5)
    for name in ("roc_auc", "average_precision", "best_f1", "best_threshold"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    one_way = correlations(scores, truth * 1.0, KEYS[:2500], 5)
    other_way = correlations(scores[order], truth[order] * 1.0, KEYS[:2500][order], 5)
    for name, values in one_way.items():
        np.testing.assert_array_equal(values, other_way[name])


@pytest.mark.parametrize("kind", ["ties", "constant", "plain"])
@pytest.mark.parametrize("count", [1, 7, 400])
def test_points_of_the_curve_are_those_of_scikit_learn(kind, count):
    scores, truth = draw(kind, count)[:2]
    truth[0] = True
    points = precision_recall(scores, truth, points=10)
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    theirs = {
        (t, round(r, 12), round(p, 12))
        for p, r, t in zip(precision[:-1], recall[:-1], thresholds, strict=True)
    }
    assert {(t, round(r, 12), round(p, 12)) for t, r, p in points.tolist()} <= theirs
    assert np.array_equal(points[0, 0], scores.max())
    assert points[-1, 0] == scores.min()
    assert points[-1, 1] == 1
    # The first to reach each step: no threshold between two points reaches a further one.
    for level in np.arange(1, 11) / 10:
        first = max(t for t, r, _ in theirs if r >= level - 1e-12)
        assert first in points[:, 0]
    assert len(points) <= 13


def test_the_curve_leaves_out_rows_without_a_score_and_needs_a_positive():
    scores, truth = np.array([0.5, -np.inf, 0.2]), np.array([True, True, False])
    assert precision_recall(scores, truth).tolist() == [[0.5, 0.5, 1.0], [0.2, 0.5, 0.5]]
    assert precision_recall(scores, np.zeros(3, bool)).shape == (0, 3)
    assert precision_recall(scores[:0], truth[:0]).shape == (0, 3)
    assert curve_rows(np.array([[0.5, 1, 0.25]]), label="a") == [
        {"label": "a", "threshold": 0.5, "recall": 1.0, "precision": 0.25}
    ]
