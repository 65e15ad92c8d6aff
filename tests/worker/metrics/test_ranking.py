"""Figures of ranked lists and of classes: equal to trec_eval (pytrec_eval) and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from ember.worker.metrics.classes import (
    averages,
    bin_of,
    calibration_error,
    class_figures,
    contributions,
)
from ember.worker.metrics.ranking import (
    label_ranking_precision,
    precision_at,
    retrieval_figures,
    retrieval_names,
)

AT = (1, 3, 10)
THEIRS = {"recip_rank": "mrr", "map": "map"}
for depth in AT:
    THEIRS |= {f"recall_{depth}": f"recall@{depth}", f"P_{depth}": f"precision@{depth}"}
    THEIRS |= {f"success_{depth}": f"hit_rate@{depth}", f"ndcg_cut_{depth}": f"ndcg@{depth}"}


def lists(seed, queries=30, documents=25):
    """Grades of each query's documents, and the documents in order of rank; some lists empty."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (queries, documents)) * (rng.random((queries, documents)) < 0.3)
    grades[:, 0] = np.maximum(grades[:, 0], 1)  # a query without a relevant one is not judged
    ranked = [rng.permutation(documents)[: rng.integers(0, documents)] for _ in range(queries)]
    return grades, ranked


@pytest.mark.parametrize("graded", [True, False])
def test_retrieval_figures_equal_trec_eval(graded):
    grades, ranked = lists(int(graded))
    grades = grades if graded else np.minimum(grades, 1)
    gains = np.zeros((len(ranked), grades.shape[1]))
    for row, found in enumerate(ranked):
        gains[row, : len(found)] = grades[row, found]
    ideal = -np.sort(-grades, axis=1)
    ours = retrieval_figures(gains, ideal.astype(float), (grades > 0).sum(axis=1), AT)
    qrels = {
        f"q{q}": {f"d{d}": int(grade) for d, grade in enumerate(row)}
        for q, row in enumerate(grades)
    }
    run = {
        f"q{q}": {f"d{d}": float(100 - rank) for rank, d in enumerate(found)}
        for q, found in enumerate(ranked)
        if len(found)
    }
    wanted = {"recip_rank", "map", "recall", "P", "success", "ndcg_cut"}
    cuts = {f"{name}.{','.join(map(str, AT))}" for name in wanted - {"recip_rank", "map"}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "map", *cuts}).evaluate(run)
    names = retrieval_names(AT)
    for q in range(len(ranked)):
        for measure, name in THEIRS.items():
            expected = theirs.get(f"q{q}", {}).get(measure, 0.0)  # no result: 0
            assert ours[q, names.index(name)] == pytest.approx(expected, abs=1e-12), (q, name)


def test_ndcg_equals_scikit_learn():
    grades = np.random.default_rng(2).integers(0, 5, (20, 12)).astype(float)
    grades[:, 0] = 1
    scores = np.tile(np.arange(12.0, 0, -1), (20, 1))
    ideal, relevant = -np.sort(-grades, axis=1), (grades > 0).sum(axis=1)
    ours = retrieval_figures(grades, ideal, relevant, AT)
    for k in AT:
        place = retrieval_names(AT).index(f"ndcg@{k}")
        assert ours[:, place].mean() == pytest.approx(metrics.ndcg_score(grades, scores, k=k))


def test_lists_that_are_all_empty_score_0():
    ours = retrieval_figures(np.zeros((2, 0)), np.ones((2, 1)), np.array([1, 4]), AT)
    np.testing.assert_array_equal(ours, 0)


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float64, (6, 5), elements=st.sampled_from([0.1, 0.2, 0.5, 0.9])),
    arrays(bool, (6, 5)),
)
def test_lrap_equals_scikit_learn(scores, truth):
    ours = label_ranking_precision(scores, truth)
    for row in range(6):
        expected = metrics.label_ranking_average_precision_score(truth[[row]], scores[[row]])
        assert ours[row] == pytest.approx(expected, abs=1e-12)


def test_precision_at_k_divides_by_k():
    truth = np.array([[True, False, True], [True, True, True], [False] * 3])
    order = np.array([[2, 1, 0], [0, -1, -1], [0, 1, 2]])
    np.testing.assert_array_equal(precision_at(order, truth, 2), [0.5, 0.5, 0])
    np.testing.assert_array_equal(precision_at(order, truth, 5), [0.4, 0.2, 0])


@pytest.mark.parametrize("kinds", [1, 2, 9])
@pytest.mark.parametrize("rows", [1, 5, 400])
def test_class_figures_and_averages_equal_scikit_learn(kinds, rows):
    rng = np.random.default_rng(rows * kinds)
    truth = rng.integers(0, kinds, rows)
    answer = np.where(rng.random(rows) < 0.5, truth, rng.integers(0, kinds + 2, rows))
    occurring = sorted({*truth, *answer})
    counts = np.array(
        [
            [((truth == c) & (answer == c)).sum(), (truth == c).sum(), (answer == c).sum()]
            for c in range(kinds + 2)
        ]
    )
    total = sum(contributions(each[:, None]) for each in counts)
    ours = averages(total)
    each = metrics.precision_recall_fscore_support(
        truth, answer, labels=range(kinds + 2), zero_division=0
    )
    for c in range(kinds + 2):
        np.testing.assert_allclose(class_figures(counts[c]), [part[c] for part in each[:3]])
    for mean in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(
            truth, answer, labels=occurring, average=mean, zero_division=0
        )
        found = [ours[f"{mean}_{name}"][0] for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose(found, expected[:3], atol=1e-14)


def test_averages_over_no_class_are_undefined():
    assert all(np.isnan(value).all() for value in averages(np.zeros((14, 3), np.int64)).values())


def test_calibration_by_hand():
    scores = np.array([0.0, 0.1, 0.1000001, 0.95, 1.0, np.nan, 1.5, -0.1])
    np.testing.assert_array_equal(bin_of(scores, 10), [0, 0, 1, 9, 9, -1, -1, -1])
    # Two bins: 4 rows with mean score 0.2 and one right; 6 rows with mean 0.9 and all right.
    rows, hits = np.array([[4.0], [6.0]]), np.array([[1.0], [6.0]])
    error = calibration_error(rows, hits, np.array([[0.8], [5.4]]))
    assert error[0] == pytest.approx(0.4 * 0.05 + 0.6 * 0.1)
    assert np.isnan(calibration_error(rows * 0, hits * 0, hits * 0))
