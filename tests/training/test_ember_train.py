"""The library's `train` against scikit-learn, on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from sklearn.linear_model import LogisticRegression

import ember


def tables(spark: SparkSession, count: int = 240) -> tuple[DataFrame, DataFrame, np.ndarray, list]:
    """Features and labels in overlapping clouds; a column of the labels says which rows train."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 3, count)
    matrix = (1.5 * rng.normal(size=(3, 4))[kinds] + rng.normal(size=(count, 4))).astype(np.float32)
    names = [("ant", "bee", "cow")[kind] for kind in kinds]
    parts = ["train" if n < 160 else "validation" if n < 200 else "test" for n in range(count)]
    vectors = [(n, row.tolist()) for n, row in enumerate(matrix)]
    features = spark.createDataFrame(vectors, "id int, embedding array<float>")
    rows = list(zip(range(count), names, parts, strict=True))
    return features, spark.createDataFrame(rows, "id int, label string, part string"), matrix, names


def test_a_head_is_scikit_learn_s_logistic_regression_on_the_training_rows(spark):
    features, labels, matrix, names = tables(spark)
    head = ember.train(features, labels, scaling="feature", penalty=0.5, split="part")
    train = matrix[:160].astype(np.float64)
    scaled = (matrix - train.mean(axis=0)) / train.std(axis=0)
    theirs = LogisticRegression(C=1 / 0.5, tol=1e-10, max_iter=10_000).fit(
        scaled[:160], names[:160]
    )
    assert head.labels == tuple(theirs.classes_)
    np.testing.assert_allclose(head.mean, train.mean(axis=0), atol=1e-5)
    # Uncalibrated, up to what is added to all logits of a row.
    ours, expected = head.logits(matrix), theirs.decision_function(scaled)
    ours, expected = (each - each.mean(axis=1, keepdims=True) for each in (ours, expected))
    np.testing.assert_allclose(ours, expected, atol=5e-3)
    right = [head.labels[n] == name for n, name in zip(ours[200:].argmax(axis=1), names[200:],
                                                       strict=True)]  # fmt: skip
    told = head.about["metrics"]["test"]
    assert (told["rows"], told["accuracy"]) == (40, pytest.approx(np.mean(right)))
    assert head.about["counts"]["rows"] == {"train": 160, "validation": 40, "test": 40}


def test_options_and_rows_that_cannot_be_used_are_refused(spark):
    features, labels, _, _ = tables(spark, 60)
    with pytest.raises(ember.InvalidConfig, match="split has 2 shares"):
        ember.train(features, labels, split=(0.5, 0.5))
    with pytest.raises(ember.InvalidConfig, match=r"train: penalty"):
        ember.train(features, labels, penalty=-1)
    bad = labels.selectExpr("id", "if(id < 5, null, label) as label")
    with pytest.raises(ember.TooManyFailures, match=r"5 of 60 labeled rows .* \(5 null label\)"):
        ember.train(features, bad)
    assert ember.train(features, bad, max_failed_fraction=0.1).about["counts"]["failed"] == {
        "null label": 5
    }
