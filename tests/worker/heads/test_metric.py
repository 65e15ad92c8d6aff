"""The learned metric: its gradient, its figures, what it does to retrieval."""

from __future__ import annotations

import numpy as np
import pytest
from labeled_rows import labeled, recipe
from scipy.optimize import check_grad
from sklearn.metrics import average_precision_score

from ember.errors import InvalidInput
from ember.worker.heads.metric import contrastive_loss, fit_metric, same_label_map


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    matrix, targets = rng.normal(size=(12, 5)), rng.integers(0, 4, 12)
    targets[0] = 9  # alone

    def loss(flat):
        return contrastive_loss(flat.reshape(5, 3), matrix, targets)

    point = rng.normal(size=15)
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1].ravel(), point) < 1e-5
    assert contrastive_loss(point.reshape(5, 3), matrix, np.arange(12))[0] == 0


def test_the_loss_is_what_its_definition_says():
    rng = np.random.default_rng(1)
    matrix, weights, targets = rng.normal(size=(8, 4)), rng.normal(size=(4, 2)), np.arange(8) % 3
    unit = matrix @ weights
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    losses = []
    for i in range(8):
        others = [a for a in range(8) if a != i]
        below = sum(np.exp(unit[i] @ unit[a] / 0.1) for a in others)
        alike = [p for p in others if targets[p] == targets[i]]
        losses.append(np.mean([-np.log(np.exp(unit[i] @ unit[p] / 0.1) / below) for p in alike]))
    assert contrastive_loss(weights, matrix, targets)[0] == pytest.approx(np.mean(losses))


def test_map_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    vectors, targets = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 5, 30)
    targets[0] = 9  # no other row has it
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    expected = [
        average_precision_score(np.delete(targets == targets[i], i), np.delete(scores[i], i))
        for i in range(1, 30)
    ]
    assert same_label_map(vectors, targets) == pytest.approx(np.mean(expected), abs=1e-6)
    assert same_label_map(vectors[:3], np.arange(3)) is None


def test_a_metric_is_repeatable_and_takes_one_label_a_row():
    rows = labeled(n=90)
    it = recipe(rows, kind="similarity", dimension=2, iterations=5)
    assert fit_metric(rows, it).fingerprint() == fit_metric(rows, it).fingerprint()
    metric = fit_metric(rows, it)
    assert metric.project(rows.matrix).shape == (90, 2)
    mapped = metric.as_projection().apply(rows.matrix)
    np.testing.assert_allclose(mapped, metric.project(rows.matrix), rtol=1e-3, atol=1e-4)
    many = labeled(n=90, multilabel=True)
    with pytest.raises(InvalidInput, match="one label a row"):
        fit_metric(many, recipe(many, kind="similarity"))
