"""What each table counts for, and the stretch of multi-label heads, against scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from labeled_rows import labeled, recipe
from sklearn.linear_model import LogisticRegression

from ember.worker.heads.fit import STRETCHES, fit_on_worker, fold_of


def with_noise(seed=0, n=160, width=40, **kind):
    """A table of 6 features that tell, and one of as much noise as signal."""
    rows = labeled(n=n, seed=seed, **kind)
    noise = np.random.default_rng(seed + 1).normal(size=(n, width)).astype(np.float32)
    return replace(rows, matrix=np.hstack([rows.matrix, 7 * noise]))


def standardized(matrix, weights=(1.0, 1.0)):
    """By table, on its own, not by the head's arrays."""
    out = []
    for table, weight in zip(
        np.split(matrix.astype(np.float64), [6], axis=1), weights, strict=True
    ):
        out.append(weight * (table - table.mean(axis=0)) / np.sqrt(table.var(axis=0).mean()))
    return np.hstack(out)


def test_weights_multiply_the_standardized_features_of_a_table():
    rows = with_noise()
    it = recipe(rows, parts=(6, 40), scaling="table", penalty=3.0)
    head = fit_on_worker(rows, replace(it, weights=(1.0, 0.25)))
    weighted = standardized(rows.matrix, (1.0, 0.25))
    theirs = LogisticRegression(C=1 / 3, max_iter=5000).fit(weighted, rows.targets)
    np.testing.assert_allclose(head.scores(rows.matrix), theirs.predict_proba(weighted), atol=2e-3)
    assert head.about["table_weights"] == [1.0, 0.25]
    plain = fit_on_worker(rows, it)
    np.testing.assert_allclose(head.scale[6:], 4 * plain.scale[6:], rtol=1e-6)
    assert plain.about["table_weights"] == [1.0, 1.0]


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_table_of_noise_comes_to_count_for_less(multilabel):
    rows = with_noise(multilabel=multilabel)
    it = recipe(
        rows, parts=(6, 40), scaling="table", penalty=None, penalties=(1.0, 10.0, 100.0), folds=3
    )
    chosen = fit_on_worker(rows, replace(it, weights=None))
    first, second = chosen.about["table_weights"]
    assert (first, second <= 0.5) == (1.0, True)
    tried = chosen.about["cross_validation"]["loss_by_weights"]
    assert min(tried, key=tried.get) == f"1 : {second:g}"
    assert {"1 : 1", "1 : 0.5", "0.5 : 1"} <= tried.keys()
    # The same as if the weights and the penalties next to the best had been given.
    penalties = tuple(p for p in it.penalties if f"{p:g}" in loss_table(chosen))
    again = fit_on_worker(rows, replace(it, weights=(first, second), penalties=penalties))
    assert again.fingerprint() == chosen.fingerprint()


def loss_table(head):
    return head.about["cross_validation"]["loss"]


def test_the_stretch_and_the_penalty_have_the_least_loss_of_all_that_were_tried():
    rows = with_noise(n=80, width=60, multilabel=True)
    it = recipe(
        rows, parts=(6, 60), scaling="table", penalty=None, penalties=(100.0, 1000.0), folds=2
    )
    head = fit_on_worker(rows, it)
    matrix, folds = standardized(rows.matrix), fold_of(rows.draw, 2)
    losses = {}
    for penalty in loss_table(head):
        for stretch in STRETCHES:
            total = 0.0
            for fold in range(2):
                there = folds != fold
                for wanted in rows.targets.T:
                    model = LogisticRegression(C=1 / float(penalty), max_iter=5000)
                    model.fit(matrix[there], wanted[there])
                    logits = stretch * (matrix[~there] @ model.coef_[0]) + model.intercept_
                    total += (np.logaddexp(0, logits) - logits * wanted[~there]).sum()
            losses[penalty, stretch] = total / len(matrix)
    for penalty, loss in loss_table(head).items():
        assert loss == pytest.approx(min(losses[penalty, s] for s in STRETCHES), rel=1e-3)
    penalty, stretch = min(losses, key=losses.get)
    assert (head.about["penalty"], head.about["stretch"]) == (
        pytest.approx(float(penalty), rel=1e-4),
        stretch,
    )
    assert stretch > 1
    model = LogisticRegression(C=1 / float(penalty), max_iter=5000).fit(matrix, rows.targets[:, 0])
    logits = stretch * (matrix @ model.coef_[0]) + model.intercept_
    np.testing.assert_allclose(head.scores(rows.matrix)[:, 0], 1 / (1 + np.exp(-logits)), atol=2e-3)
