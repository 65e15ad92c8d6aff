"""What every kind of judgment shares, shown with a kind of a few lines."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import functions as F

from ember.errors import InvalidInput
from ember.evaluation.joining import key_of
from ember.evaluation.judgment import Findings, answers_of, judge_rows, worst_rows
from ember.evaluation.result import Figure

ROWS = [
    *((number, None, 0.1 * number, "g=x") for number in range(5)),
    (5, "bad, counted as wrong", None, "g=x"),
    (6, "no score, left out", None, "g=x"),
    (7, "no truth, left out", 0.7, "g=y"),
]


def mean(judged):
    """The kind: the mean of a column, over the judged rows."""
    n, total = judged.agg(F.count("*"), F.sum(F.coalesce("value", F.lit(0.0)))).collect()[0]
    none = F.lit(None)
    return Findings(
        [Figure("mean", "all", np.array([total / n]), n)],
        {"worst": worst_rows(judged.select("id", "value"), F.col("value"), 2)},
        answers_of(judged, none, none, F.col("value")),
    )


def judge(spark, **options):
    table = spark.createDataFrame(ROWS, "id int, reason string, value double, slice_0 string")
    rows = table.withColumn("key", key_of(table))
    return judge_rows(
        "mean", rows, ["g"], mean, wrong=["bad, counted as wrong"],
        lost=["no score, left out"], **options,
    )  # fmt: skip


def test_what_becomes_of_a_row_is_decided_by_its_reason(spark):
    made = judge(spark)
    assert made.figure("mean").value == pytest.approx(1 / 6)
    assert (made.figure("mean").n, made.total, made.failed) == (6, 7, 2)
    assert [(issue.reason, issue.ids) for issue in made.issues] == [
        ("bad, counted as wrong", ("5",)),
        ("no score, left out", ("6",)),
        ("no truth, left out", ("7",)),
    ]
    assert sorted(row["id"] for row in made.unusable.collect()) == [5, 6, 7]
    rows = {row["id"]: row for row in made.rows.collect()}
    assert sorted(rows) == list(range(6))
    assert (rows[4]["outcome"], rows[4]["slices"]) == (pytest.approx(0.4), ["g=x"])
    assert [row["id"] for row in made.tables["worst"].collect()] == [5, 0]
    made.release()


def test_rows_that_a_kind_refuses_leave_nothing_in_the_cache(spark):
    def refuse(rows):
        raise InvalidInput(f"{rows.count()} rows")

    held = spark._jsparkSession.sharedState().cacheManager()
    before = held.numCachedEntries()
    with pytest.raises(InvalidInput, match="8 rows"):
        judge(spark, check=refuse)
    assert held.numCachedEntries() == before
