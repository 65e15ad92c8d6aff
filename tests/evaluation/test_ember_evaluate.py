"""The library's `evaluate`: what the job would say of the same tables."""

from __future__ import annotations

import pytest

import ember
from evaluate_tables import figures

PREDICTIONS = "id int, predictions array<struct<index int, label string, score float>>"


def classified(spark, labels, seed=0):
    """Predictions and truth, every third of them wrong; a column to slice by."""
    names = ("ant", "bee", "cow")
    rows, truth = [], []
    for n in range(labels):
        said = (n + (n % 3 == seed)) % 3
        rows.append((n, [(said, names[said], 0.5 + n / 1000)]))
        truth.append((n, names[n % 3], f"s{n % 2}"))
    return (
        spark.createDataFrame(rows, PREDICTIONS),
        spark.createDataFrame(truth, "key int, kind string, shelf string"),
    )


def test_figures_are_those_of_the_job(spark, run_job, tmp_path):
    predictions, truth = classified(spark, 60)
    predictions.write.parquet(str(tmp_path / "p"))
    truth.write.parquet(str(tmp_path / "t"))
    settings = {
        "kind": "classification",
        "predictions": f"{{path: {tmp_path / 'p'}, id: id}}",
        "truth": f"{{path: {tmp_path / 't'}, id: key, label: kind}}",
        "slices": "[shelf]",
        "bootstrap": 50,
        "report": "false",
        "output__path": tmp_path / "out",
    }
    assert run_job("evaluate", **settings) == (0, "")
    report = ember.evaluate(
        "classification",
        predictions,
        truth,
        truth_id="key",
        label="kind",
        slices=["shelf"],
        bootstrap=50,
    )
    theirs = figures(tmp_path / "out")
    assert {(each.metric, each.slice): each.as_row() for each in report.figures} == theirs
    assert report.figure("accuracy").value == pytest.approx(2 / 3)
    assert report.unmet({"accuracy": 0.9})[0].startswith("accuracy is 0.666667")
    report.release()


def test_a_baseline_makes_it_a_comparison(spark):
    predictions, truth = classified(spark, 60)
    before, _ = classified(spark, 60, seed=1)
    report = ember.evaluate(
        "classification",
        predictions,
        truth,
        baseline=before,
        truth_id="key",
        label="kind",
        bootstrap=20,
    )
    assert report.kind == "compare"
    names = {each.metric for each in report.figures}
    assert any("accuracy" in name and name != "accuracy" for name in names), names
    report.release()


def test_neighbors_that_search_found_are_judged_by_the_labels_of_their_rows(spark):
    rows = [(n, [float(n % 2), 1.0 + n / 1000]) for n in range(12)]
    table = spark.createDataFrame(rows, "id int, embedding array<float>")
    truth = table.selectExpr("id", "cast(id % 2 as string) as label")
    found = ember.search(table, k=3, exclude_self=True)
    report = ember.evaluate(
        "retrieval", found.table, truth, at=[1, 3], exclude_self=True, bootstrap=0
    )
    assert report.figure("precision@3").value == 1.0
    assert report.figure("recall@3").value == pytest.approx(3 / 5)
    report.release()


def test_scores_of_pairs_are_judged_by_several_ids(spark):
    pairs = spark.createDataFrame(
        [(1, 2, 0.9), (1, 3, 0.1), (2, 3, 0.4)], "left_id int, right_id int, score float"
    )
    truth = spark.createDataFrame(
        [(1, 2, True), (1, 3, False), (2, 3, False)], "left_id int, right_id int, label boolean"
    )
    report = ember.evaluate("similarity", pairs, truth, id=["left_id", "right_id"], bootstrap=0)
    assert report.figure("roc_auc").value == 1.0
    report.release()


def test_what_does_not_go_together_and_too_many_unusable_rows_are_refused(spark):
    predictions, truth = classified(spark, 30)
    known = {"truth_id": "key", "label": "kind", "bootstrap": 0}
    with pytest.raises(ember.InvalidInput, match="unknown kind 'classes'"):
        ember.evaluate("classes", predictions, truth, **known)
    with pytest.raises(ember.InvalidConfig, match="truth is missing"):
        ember.evaluate("classification", predictions, bootstrap=0)
    with pytest.raises(ember.InvalidConfig, match="queries does not go with"):
        ember.evaluate("classification", predictions, truth, queries=truth, **known)
    with pytest.raises(ember.InvalidConfig, match="reference does not go with"):
        ember.evaluate("classification", predictions, truth, reference=truth, **known)
    with pytest.raises(ember.InvalidInput, match="no column sort"):
        ember.evaluate("classification", predictions, truth, truth_id="key", label="sort")
    with pytest.raises(ember.InvalidConfig, match="evaluate: bins"):
        ember.evaluate("classification", predictions, truth, bins=0, **known)
    few = predictions.filter("id > 2")
    with pytest.raises(ember.TooManyFailures, match=r"3 of 30 rows .*, more than max_failed_fr"):
        ember.evaluate("classification", few, truth, **known)
    report = ember.evaluate("classification", few, truth, max_failed_fraction=0.1, **known)
    assert (report.failed, report.total) == (3, 30)
    report.release()
