"""Texts of megabytes in what a page shows."""

from __future__ import annotations

from pyspark.sql import functions as F

from ember.report.cells import shown, table_view
from ember.report.content import Table
from ember.report.fetching import as_text, plain


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
