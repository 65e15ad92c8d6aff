"""Texts of megabytes in what a page shows."""

from __future__ import annotations

import numpy as np
from pyspark.sql import functions as F

from ember.evaluation.result import Evaluation, Figure, Issue, table
from ember.report.collect import as_text, collect, plain
from ember.report.report import Table, to_json
from ember.report.table_view import shown, table_view


def test_a_long_text_is_cut_to_its_beginning_and_told_from_others_like_it(spark):
    frame = spark.range(4, numPartitions=1).select(
        F.when(F.col("id") == 3, "short")
        .otherwise(F.concat(F.repeat(F.lit("é"), 2_000_000), (F.col("id") % 2).cast("string")))
        .alias("text")
    )
    lists = frame.select("text", F.array("text").alias("list"))
    cut = as_text(F.col("text"), frame.schema["text"].dataType)
    rows = lists.select(cut.alias("text"), plain(lists, "list")).collect()
    texts = [row.text for row in rows]
    assert texts[3] == "short"
    assert all(len(text) < 360 for text in texts)
    assert all(text.startswith("é" * 300 + "… (2000001 characters, ") for text in texts[:3])
    assert texts[0] == texts[2] != texts[1]
    assert [row.list for row in rows] == [[text] for text in texts]
    # What is cut so far stays as it is in a cell; what comes another way is cut there.
    assert shown(texts[0]) == texts[0]
    assert shown(["x" * 500]) == "x" * 400 + "… (500 characters)"
    view = table_view("worst", "", Table(["id"], [{"id": "y" * 2_000_000}]))
    assert len(view.rows[0][0].text) < 450


def test_what_is_kept_of_an_evaluation_has_long_texts_cut_and_loses_no_curve(spark):
    labels = ["x" * 20_000 + end for end in "ab"]
    counts = [{"label": label, "support": 2 - n} for n, label in enumerate(labels)]
    points = [{"label": label, "recall": recall} for label in labels for recall in (0.0, 1.0)]
    evaluation = Evaluation(
        "multilabel",
        [Figure("f1", f"word={label}", np.ones(3), 1) for label in labels],
        {
            "per_label": table(spark, counts, label=str, support=int),
            "precision_recall": table(spark, points, label=str, recall=float),
        },
        [Issue("no truth", 2, tuple(labels))],
        spark.range(0),
        spark.range(0),
        2,
        0,
    )
    report = collect(evaluation)
    assert len(to_json(report)) < 10_000
    slices = [row["slice"] for row in report.figures]
    assert slices[0].startswith("word=xx")
    assert slices[0] != slices[1]
    assert len(set(report.issues[0]["ids"])) == 2
    names = [row["label"] for row in report.tables["per_label"].rows]
    curves = report.tables["precision_recall"].rows
    assert [(row["label"], row["recall"]) for row in curves] == [
        (name, recall) for name in names for recall in (0.0, 1.0)
    ]
