"""Heads on real features: as good as scikit-learn's on the same rows."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from ember.worker.heads.fit import Recipe, fit_on_worker
from ember.worker.heads.metric import fit_metric, same_label_map
from ember.worker.heads.rows import Rows


@pytest.fixture(scope="module")
def halves(real_data):
    """Photographs of 20 kinds as 8 x 8 thumbnails: real rows that need no model."""
    import io

    from PIL import Image

    rows = pq.read_table(real_data / "caltech101-20.parquet").to_pylist()
    matrix = np.array(
        [
            np.asarray(Image.open(io.BytesIO(row["content"])).convert("RGB").resize((8, 8))).ravel()
            for row in rows
        ],
        np.float32,
    )
    targets = np.array([row["label"] for row in rows], np.int64)
    draw = np.random.default_rng(0).random(len(rows))
    everything = Rows(matrix, targets, draw, np.full(len(rows), ""))
    return everything.take(draw < 0.5), everything.take(draw >= 0.5)


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_heads_are_as_good_as_those_of_scikit_learn(halves, kind):
    train, test = halves
    recipe = Recipe(kind, tuple(map(str, range(20))), False, (192,))
    head = fit_on_worker(train, recipe)
    ours = (head.scores(test.matrix).argmax(axis=1) == test.targets).mean()
    model = (
        LogisticRegression(max_iter=1000)
        if kind == "logistic"
        else LinearSVC(max_iter=5000, intercept_scaling=30)
    )
    scaled = [(rows.matrix - head.mean) / head.scale for rows in halves]
    reference = model.fit(scaled[0], train.targets).score(scaled[1], test.targets)
    assert ours == pytest.approx(reference, abs=0.01)
    assert ours > 0.3


def test_a_learned_metric_raises_retrieval_on_rows_it_has_not_seen(halves):
    train, test = halves
    recipe = Recipe(
        "similarity", tuple(map(str, range(20))), False, (192,), iterations=20, dimension=32
    )
    head = fit_metric(train, recipe)
    plain = same_label_map(test.matrix, test.targets)
    assert same_label_map(head.project(test.matrix), test.targets) > plain + 0.05
