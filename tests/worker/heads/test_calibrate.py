"""Calibration against brute force, thresholds and figures against scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from labeled_rows import labeled, recipe
from scipy.special import expit, log_softmax
from sklearn.metrics import average_precision_score, f1_score

from ember.worker.heads.calibrate import calibrate, common_threshold, figures, platt, temperature
from ember.worker.heads.fit import fit_on_worker


def sharpened(multilabel, factor=5.0):
    """A head that is too sure of itself, and rows that it has not seen."""
    train, rest = (labeled(n=400, seed=0, multilabel=multilabel).take(s) for s in (_HALF, ~_HALF))
    head = fit_on_worker(train, recipe(train))
    ((weights, bias),) = head.layers
    return replace(head, layers=((factor * weights, factor * bias),)), rest


_HALF = np.arange(400) < 200


def test_a_temperature_lowers_the_loss_and_changes_no_first_label():
    head, rows = sharpened(multilabel=False)
    fitted = calibrate(head, rows, 0.5)
    before, after = head.scores(rows.matrix), fitted.scores(rows.matrix)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    notes = fitted.about["calibration"]
    assert notes["nll"] < notes["nll_before"] - 0.1
    logits = head.logits(rows.matrix).astype(float)
    row = np.arange(len(rows))

    def loss(degrees):
        return -log_softmax(logits / degrees, axis=1)[row, rows.targets].mean()

    assert (notes["nll_before"], notes["nll"]) == pytest.approx(
        (loss(1), loss(notes["temperature"])), abs=1e-4
    )

    least = min(loss(degrees) for degrees in np.geomspace(0.1, 50, 2000))
    assert loss(temperature(logits, rows.targets)) == pytest.approx(least, abs=1e-6)


def test_platt_scaling_is_the_best_sigmoid_for_smoothed_targets():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=300)
    targets = rng.random(300) < expit(3 * logits - 1)
    slope, offset = platt(logits, targets)
    present = targets.sum()
    smooth = np.where(targets, (present + 1) / (present + 2), 1 / (300 - present + 2))

    def loss(a, b):
        z = a * logits + b
        return (np.logaddexp(0, z) - smooth * z).mean()

    least = min(loss(a, b) for a in np.linspace(1, 5, 80) for b in np.linspace(-3, 1, 80))
    assert loss(slope, offset) <= least + 1e-9
    assert platt(-logits, targets)[0] > 0  # never turns an order round


def test_many_labels_are_calibrated_each_by_itself_where_rows_allow():
    head, rows = sharpened(multilabel=True)
    rows.targets[:, 2] = False
    rows.targets[:3, 2] = True
    fitted = calibrate(head, rows, None)
    notes = fitted.about["calibration"]
    assert notes["labels_by_themselves"] == 2
    assert notes["nll"] < notes["nll_before"] - 0.1
    assert len(set(fitted.slope.tolist())) == 3
    assert len(set(fitted.thresholds.tolist())) == 1


def test_without_validation_rows_scores_stay_as_they_are():
    head, rows = sharpened(multilabel=True)
    fitted = calibrate(head, rows.take(np.zeros(len(rows), bool)), None)
    np.testing.assert_array_equal(fitted.scores(rows.matrix), head.scores(rows.matrix))
    assert fitted.about["calibration"] == {"method": "none", "rows": 0}
    assert fitted.thresholds.tolist() == [0.5] * 3


@pytest.mark.parametrize("seed", range(5))
def test_the_common_threshold_has_the_highest_micro_f1(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 20, (12, 3)).astype(np.float32) / 20  # ties
    targets = rng.random((12, 3)) < 0.3

    def micro(threshold):
        return f1_score(targets, scores >= threshold, average="micro", zero_division=0)

    best = max(micro(threshold) for threshold in np.unique(scores))
    assert micro(common_threshold(scores, targets)) == pytest.approx(best)
    assert common_threshold(scores, targets & False) == 0.5


def test_figures_are_those_of_scikit_learn():
    head, rows = sharpened(multilabel=True)
    rows.targets[:, 1] = False  # a label that does not occur
    told = figures(head, rows)
    scores = head.scores(rows.matrix)
    assert told["micro_f1"] == pytest.approx(
        f1_score(rows.targets, scores >= 0.5, average="micro"), abs=1e-6
    )
    each = [average_precision_score(rows.targets[:, k], scores[:, k]) for k in (0, 2)]
    assert told["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-6)

    head, rows = sharpened(multilabel=False)
    rows.targets[:10] = -1  # a label that the head does not know
    right = head.scores(rows.matrix).argmax(axis=1) == rows.targets
    assert figures(head, rows)["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures(head, rows.take(np.zeros(len(rows), bool))) == {}
