"""Slices that differ from the whole: how often one is found where none is, and where one does."""

from __future__ import annotations

import numpy as np
import pytest

from ember.evaluation.result import Figure
from ember.evaluation.slice_tests import slice_rows
from ember.worker.metrics.classes import calibration_error, ratio
from ember.worker.metrics.weights import GROUPS, column_weights

REPLICATES = 100


def weighted(rng, n):
    keys = rng.integers(-(2**62), 2**62, n)
    return column_weights(keys, range(1 + REPLICATES + GROUPS), REPLICATES).astype(float)


def judged(rng, n, slices, right):
    """Accuracy and ECE of rows whose share `right` (n,) is right, by slices of the given sizes."""
    scores = rng.beta(5, 2, n)
    hits, weights = rng.random(n) < right(scores), weighted(rng, n)
    bins = np.minimum((scores * 10).astype(int), 9)[:, None] == np.arange(10)
    parts = {"all": np.arange(n)}
    parts |= dict(zip((f"s={k}" for k in range(99)), np.split(np.arange(n), slices), strict=False))
    figures = []
    for name, rows in parts.items():
        w, inside = weights[rows], bins[rows]
        sums = [(inside * by[rows, None]).T @ w for by in (np.ones(n), hits, scores)]
        accuracy = ratio(hits[rows] @ w, w.sum(axis=0))
        for metric, values in {"accuracy": accuracy, "ece": calibration_error(*sums)}.items():
            figures.append(Figure(metric, name, values, len(rows), GROUPS))
    return figures


def test_slices_that_are_like_the_whole_are_not_said_to_differ():
    """Of 40 evaluations with 12 random slices of 3 to 200 rows each, few find any."""
    cuts = np.cumsum([3, 3, 5, 8, 10, 20, 30, 50, 80, 100, 150])
    runs = dict.fromkeys(("accuracy", "ece"), 0)
    low = dict.fromkeys(runs, 0)
    for seed in range(40):
        rows = slice_rows(
            judged(np.random.default_rng(seed), 650, cuts, lambda s: np.clip(s - 0.2, 0, 1))
        )
        for metric in runs:
            mine = [row for row in rows if row["metric"] == metric]
            assert len(mine) == 12
            runs[metric] += any(row["differs"] for row in mine)
            low[metric] += sum(row["p_value"] < 0.05 for row in mine)
    assert max(runs.values()) <= 6  # 40 x 5% = 2, with a probability of 0.3% for more than 6
    assert max(low.values()) <= 48  # 480 x 5% = 24


def test_slices_that_differ_are_found_and_their_numbers_are_right():
    rng = np.random.default_rng(7)
    figures = judged(
        rng, 2000, [1000, 1300, 1700], lambda s: np.where(np.arange(2000) < 1000, 0.9, 0.7)
    )
    rows = {(row["metric"], row["slice"]): row for row in slice_rows(figures)}
    row = rows["accuracy", "s=0"]
    values = {(each.metric, each.slice): each for each in figures}
    part, whole = values["accuracy", "s=0"], values["accuracy", "all"]
    assert row["difference"] == pytest.approx(part.value - whole.value)
    assert (row["value"], row["whole"], row["n"]) == (part.value, whole.value, 1000)
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["differs"]
    assert row["p_value"] < 1e-6
    # A slice of three rows that are all right has no error of its own.
    alone = Figure("accuracy", "s=9", np.ones_like(whole.values), 3, GROUPS)
    (row,) = slice_rows([whole, alone])
    assert not row["differs"]
    assert row["p_value"] > 0.3
    same = Figure("accuracy", "s=9", whole.values, whole.n, GROUPS)
    (row,) = slice_rows([whole, same])
    assert (row["difference"], row["q_value"], row["differs"]) == (0.0, None, None)
    assert slice_rows([whole]) == []
