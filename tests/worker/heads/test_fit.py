"""Fitting on one worker, against scikit-learn and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeled_rows import labeled, recipe
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from ember.errors import InvalidInput
from ember.worker.heads.fit import fit, fit_on_worker, problem_of, targets_of
from ember.worker.heads.metric import fit_metric
from ember.worker.heads.objective import INTERCEPT_SCALING, Problem, minimize
from ember.worker.heads.rows import ColumnMoments, Rows, check_scale, scaling


def accuracy(head, rows):
    return (head.scores(rows.matrix).argmax(axis=1) == rows.targets).mean()


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("c", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(c, balanced):
    rows = labeled(c=c)
    head = fit_on_worker(rows, recipe(rows, penalty=2.0, balanced=balanced))
    weights = "balanced" if balanced else None
    model = LogisticRegression(C=0.5, class_weight=weights, max_iter=1000, tol=1e-6)
    reference = make_pipeline(StandardScaler(), model).fit(rows.matrix, rows.targets)
    np.testing.assert_allclose(
        head.scores(rows.matrix), reference.predict_proba(rows.matrix), atol=2e-3
    )


@pytest.mark.parametrize("c", [2, 3])
def test_the_svm_is_that_of_scikit_learn(c):
    rows = labeled(c=c)
    head = fit_on_worker(rows, recipe(rows, kind="svm"))
    model = LinearSVC(intercept_scaling=INTERCEPT_SCALING, max_iter=10_000, tol=1e-6)
    reference = make_pipeline(StandardScaler(), model).fit(rows.matrix, rows.targets)
    logits = head.logits(rows.matrix)
    ours = logits[:, 1] - logits[:, 0] if c == 2 else logits
    np.testing.assert_allclose(ours, reference.decision_function(rows.matrix), atol=5e-3)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("kind", "c"), [("logistic", 2), ("logistic", 3), ("svm", 3)])
@pytest.mark.parametrize("multilabel", [False, True])
def test_the_sum_over_rows_has_the_same_minimum_as_scikit_learn(kind, c, multilabel, balanced):
    """What the cluster minimizes is what one worker does."""
    rows = labeled(c=c, multilabel=multilabel)
    it = recipe(rows, kind=kind, balanced=balanced)
    head = fit_on_worker(rows, it)
    counts = rows.targets.sum(axis=0) if multilabel else np.bincount(rows.targets)
    problem = problem_of(it, counts.astype(float), len(rows))
    matrix, targets = head.standardize(rows.matrix), targets_of(rows, it)
    flat = minimize(
        problem,
        lambda now: problem.value(now, matrix, targets),
        rows=len(rows),
        penalty=1.0,
        start=problem.start(0),
        iterations=1000,
    )
    logits = head.logits(rows.matrix)
    ours = logits[:, 1:] - logits[:, :1] if it.one_output else logits
    theirs = problem.logits(flat, matrix)
    if it.loss == "softmax":  # determined but for a constant
        ours, theirs = (each - each.mean(axis=1, keepdims=True) for each in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "squared_hinge"])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_gradients_are_those_of_finite_differences(loss, hidden):
    rng = np.random.default_rng(0)
    weights = rng.random(3) if loss == "softmax" else rng.random((2, 3))
    problem = Problem((5, *hidden, 3), loss, weights)
    matrix = rng.normal(size=(20, 5)).astype(np.float32)
    targets = rng.integers(0, 3, 20) if loss == "softmax" else rng.random((20, 3)) < 0.4
    point = problem.start(1) + 0.1 * rng.normal(size=len(problem.start(1)))
    error = check_grad(
        lambda flat: problem.value(flat, matrix, targets)[0],
        lambda flat: problem.value(flat, matrix, targets)[1:],
        point,
    )
    assert error < 1e-4


def test_a_network_learns_what_a_line_cannot():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(300, 2)).astype(np.float32)
    rows = Rows(
        matrix, (matrix[:, 0] * matrix[:, 1] > 0).astype(int), rng.random(300), np.empty(300)
    )
    assert accuracy(fit_on_worker(rows, recipe(rows)), rows) < 0.75
    network = recipe(rows, kind="mlp", hidden=(16,), penalty=0.01)
    assert accuracy(fit_on_worker(rows, network), rows) > 0.97
    assert (
        fit_on_worker(rows, network).fingerprint()
        == fit_on_worker(rows, network).fingerprint()
        != fit_on_worker(rows, replace(network, seed=1)).fingerprint()
    )


def test_balanced_weights_find_the_rare_label():
    rows = labeled(n=400)
    rare = rows.targets == 2

    def recall(balanced):
        head = fit_on_worker(rows, recipe(rows, balanced=balanced))
        return (head.scores(rows.matrix)[rare].argmax(axis=1) == 2).mean()

    assert recall(True) > recall(False)


@pytest.mark.parametrize("kind", ["logistic", "svm", "mlp"])
def test_a_chosen_penalty_is_the_largest_within_an_error_of_the_best(kind):
    """Forty noise features and few rows: the best penalty is well above the least."""
    rng = np.random.default_rng(0)
    few = labeled(n=60, c=2)
    noise = 20 * rng.normal(size=(60, 40)).astype(np.float32)
    rows = replace(few, matrix=np.hstack([few.matrix, noise]))
    it = recipe(rows, kind=kind, penalty=None, folds=3, hidden=(4,), iterations=20)
    head = fit_on_worker(rows, it)
    told = head.about["cross_validation"]
    table = {float(key): loss for key, loss in told["loss"].items()}
    near = [key for key, loss in table.items() if loss <= min(table.values()) + told["error"]]
    assert head.about["penalty"] == pytest.approx(max(near), rel=1e-2)
    assert head.about["penalty"] > 0.001
    assert len(table) == 10
    again = fit_on_worker(rows, replace(it, penalty=head.about["penalty"]))
    assert again.fingerprint() == head.fingerprint()


def test_the_error_of_a_loss_is_that_of_its_mean_over_folds():
    """Losses that are given, of three folds of two rows: 10 is best, 31.6 within an error of it."""

    class Given:
        def fit(self, penalty, without):
            return [(np.array(penalty), np.zeros(1))]

        def loss(self, layers, fold):
            middle = abs(np.log10(layers[0][0]) - 1)
            return 2 * (1 + middle + [-0.9, 0.0, 0.9][fold]), 2

    rows = labeled(n=12)
    _, notes = fit(recipe(rows, penalty=None, folds=3), Given())
    assert notes["cross_validation"]["error"] == pytest.approx(0.9 / np.sqrt(3), abs=1e-5)
    assert notes["penalty"] == pytest.approx(10**1.5)


@pytest.mark.parametrize("kind", ["logistic", "svm", "mlp"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_constant_features_and_folds_without_a_label_do_no_harm(kind, multilabel):
    rows = labeled(n=30, multilabel=multilabel)
    rows.matrix[:, 0] = 7.3
    if multilabel:
        rows.targets[:, 2] = True  # a label that every row has
    else:
        rows.targets[rows.targets == 2] = 1
        rows.targets[4] = 2  # one row alone
    head = fit_on_worker(rows, recipe(rows, kind=kind, penalty=None, folds=2, iterations=20))
    scores = head.scores(rows.matrix)
    assert np.isfinite(scores).all()
    assert head.scale[0] == 1
    if multilabel:
        assert (scores[:, 2] > 0.9).all()


def test_rows_that_lack_a_table_still_learn_from_the_other():
    rows = labeled(n=300)
    lacking = np.random.default_rng(1).random(300) < 0.3
    second = rows.matrix[:, :2] + 100
    second[lacking] = np.nan
    both = replace(rows, matrix=np.hstack([rows.matrix, second]))
    head = fit_on_worker(both, recipe(both, parts=(6, 2), indicators=(1,)))
    present = both.matrix[~lacking].astype(np.float64)
    np.testing.assert_allclose(head.mean[6:], present[:, 6:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(head.scale[6:], present[:, 6:].std(axis=0), rtol=1e-4)
    assert accuracy(head, both) > accuracy(fit_on_worker(rows, recipe(rows)), rows) - 0.03
    assert head.layers[0][0].shape == (9, 3)


def test_moments_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    matrix = (1000 + rng.normal(size=(90, 3))).astype(np.float32)
    matrix[:50, 2] = np.nan
    merged = (
        ColumnMoments.of(matrix[:40])
        .merge(ColumnMoments.of(matrix[40:41]))
        .merge(ColumnMoments.of(matrix[41:]))
    )
    exact = matrix.astype(np.float64)
    np.testing.assert_allclose(merged.mean, np.nanmean(exact, axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.variance, np.nanvar(exact, axis=0), rtol=1e-9)
    _, scale = scaling(merged, [2, 1], "table")
    assert scale[0] == scale[1] == pytest.approx(np.sqrt(np.var(exact[:, :2], axis=0).mean()))


@pytest.mark.parametrize("scaling", ["table", "feature"])
@pytest.mark.parametrize("power", [-43, -38, -20, 15, 25, 37])
def test_features_of_any_size_are_learned_as_others(power, scaling):
    rows = labeled(n=200, c=2)
    plain = fit_on_worker(rows, recipe(rows, scaling=scaling))
    # By a power of two, which costs digits only where the numbers become subnormal.
    factor = 2.0 ** round(power * np.log2(10))
    sized = replace(rows, matrix=(rows.matrix * factor).astype(np.float32))
    head = fit_on_worker(sized, recipe(sized, scaling=scaling))
    expected, found = plain.scores(rows.matrix), head.scores(sized.matrix)
    tolerance = {-43: 0.05, -38: 1e-4}.get(power, 1e-5)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert accuracy(head, sized) == pytest.approx(accuracy(plain, rows), abs=tolerance)


@pytest.mark.parametrize("fitter", [fit_on_worker, fit_metric])
@pytest.mark.parametrize("size", [1e9, 1e38])
def test_a_few_very_large_rows_that_hide_all_others_are_refused(fitter, size):
    rows = labeled(n=200, c=2)
    rows.matrix[5] *= np.float32(size / 100)
    with pytest.raises(InvalidInput, match="features table 1: most rows differ by"):
        fitter(rows, recipe(rows, iterations=1))


def test_features_that_few_rows_have_are_no_reason_to_refuse():
    rows = labeled(n=200, c=2)
    rows.matrix[:195] = 0
    fit_on_worker(rows, recipe(rows))


@given(
    share=st.floats(0.01, 0.5),
    power=st.floats(7, 36),
    d=st.integers(1, 8),
    positive=st.booleans(),
    offset=st.sampled_from([0, 100]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_very_large_rows_of_any_share_are_refused(share, power, d, positive, offset, seed):
    rows = labeled(n=400, d=d, c=2, seed=seed)
    matrix = (abs(rows.matrix) if positive else rows.matrix) + offset
    large = np.random.default_rng(seed).permutation(400) < share * 400
    matrix = np.where(large[:, None], matrix * 10.0**power, matrix).astype(np.float32)
    for by in ("feature", "table"):
        _, scale = scaling(ColumnMoments.of(matrix), [d], by)
        with pytest.raises(InvalidInput, match=r"features table 1: .* rows differ by"):
            check_scale(matrix, [d], scale)


@pytest.mark.parametrize("by", ["feature", "table"])
@pytest.mark.parametrize("d", [1, 2])
def test_a_quarter_of_rows_that_are_small_beside_the_others_is_learned_from(by, d):
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 2, 400)
    matrix = np.zeros((400, d))
    matrix[:, 0] = rng.normal(size=400) + 3 * targets
    matrix[:100, 0] = 0
    matrix[:100, d - 1] = 1e-6 * rng.normal(size=100)
    rows = Rows(matrix.astype(np.float32), targets, rng.random(400), np.array(["train"] * 400))
    head = fit_on_worker(rows, recipe(rows, scaling=by))
    scaled = matrix / np.sqrt(matrix.var(axis=0).mean() if by == "table" else matrix.var(axis=0))
    expected = LogisticRegression(max_iter=1000).fit(scaled, targets).score(scaled, targets)
    assert accuracy(head, rows) == pytest.approx(expected, abs=0.01)


@given(
    kind=st.sampled_from(["lengths", "cauchy", "lognormal", "sparse", "counts", "duplicates"]),
    n=st.sampled_from([20, 400, 5000]),
    d=st.sampled_from([1, 8, 40]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_heavy_tails_sparse_features_and_near_duplicates_are_no_reason_to_refuse(kind, n, d, seed):
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(n, d))
    matrix = {
        "lengths": lambda: plain * np.exp(1.5 * rng.normal(size=(n, 1))),
        "cauchy": lambda: rng.standard_t(1.5, size=(n, d)),
        "lognormal": lambda: np.exp(2 * plain),
        "sparse": lambda: plain * (rng.random((n, d)) < 0.05),
        "counts": lambda: rng.poisson(0.3, size=(n, d)),
        "duplicates": lambda: np.where(rng.random((n, 1)) < 0.6, 0.3 + 1e-6 * plain, plain),
    }[kind]().astype(np.float32)
    for by in ("feature", "table"):
        _, scale = scaling(ColumnMoments.of(matrix), [d], by)
        check_scale(matrix, [d], scale)
