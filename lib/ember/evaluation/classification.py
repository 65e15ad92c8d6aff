"""Judging predictions of one label a row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.evaluation.figure_tables import class_table
from ember.evaluation.joining import WRONG, class_list, join_predictions
from ember.evaluation.judgment import (
    Findings,
    Totals,
    answers_of,
    judge_rows,
    sum_rows,
    worst_rows,
)
from ember.evaluation.matching import Match, classes_listed, doubts
from ember.evaluation.result import Evaluation, Figure, Issue, none_for_nan, table
from ember.evaluation.slices import slices_of
from ember.worker.metrics import classes as averaging
from ember.worker.metrics.classes import ClassSums, calibration_error, ratio
from ember.worker.metrics.intervals import interval
from ember.worker.metrics.sums import ALL, from_limbs

__all__ = ["classification_figures", "judge_classification"]

_log = logging.getLogger(__name__)

_MOST_CONFUSED = 100


def classification_figures(top_k: Sequence[int]) -> list[str]:
    """The figures of a classification report."""
    return [
        "accuracy",
        *(f"top_{k}_accuracy" for k in top_k),
        *(
            f"{mean}_{name}"
            for mean in ("macro", "weighted", "micro")
            for name in averaging.FIGURES
        ),
        "ece",
    ]


def judge_classification(
    predictions: DataFrame,
    truth: DataFrame,
    *,
    id: str,
    label: str = "label",
    truth_id: str | None = None,
    predicted: str = "predictions",
    slices: Sequence[str] = (),
    classes: Sequence[str] | Sequence[int] | None = None,
    match: Match = "auto",
    top_k: Sequence[int] = (5,),
    bins: int = 15,
    bootstrap: int = 1000,
    worst: int = 100,
    compared: Sequence[DataFrame] = (),
) -> Evaluation:
    """Judge the first of each row's predictions, and the first k.

    Every row with a truth counts. One without a prediction, with a failed one, or with a score
    that is null or NaN counts as wrong: it lowers accuracy and its class's recall. A prediction
    without a truth is left out. Both are counted and named in `issues`.

    Figures, over the n rows with a truth:
        accuracy           rows whose first label is the truth / n
        top_k_accuracy     rows with the truth among the first k labels / n; null where no list is
                           as long, and all were cut: more classes are listed than in any row
        macro_, weighted_, micro_ precision, recall, f1: see ember.worker.metrics.classes
        ece                see ember.worker.metrics.classes; over the rows with a prediction
    All are null without a row.

    Tables: per_class (class, tp, support, predicted; precision, recall, f1 with intervals),
    confusion (truth, predicted, count; only pairs that occur; predicted null for no usable
    prediction), most_confused (its largest entries off the diagonal), reliability (slice, bin,
    lower, upper, count, confidence, accuracy with interval), worst (wrong rows, most confident
    first).

    Args:
        predictions: an id and, in the column `predicted`, array<struct<index, label, score>> best
            first, null where the row failed; as `classify` writes it.
        truth: an id and a label: a string, a boolean or a date, compared with the predictions'
            label, or an integer, see `match`.
        id: column that names a row in the predictions.
        label: column of the truth's label.
        truth_id: column that names a row in the truth. None: that of the predictions.
        predicted: column of the predictions.
        slices: columns of the truth, or else of the predictions; every figure is given for each of
            their values as well.
        classes: the class list; rows whose truth is another are left out and counted. None: every
            label is good.
        match: what a truth of integers is compared with: "label" or "index" of a prediction;
            "auto": the label where the predictions' labels are integers, the index where they are
            names.
        top_k: for which k to give top_k_accuracy.
        bins: how many bins of equal width the scores are put in, for calibration.
        bootstrap: replicates for the 95% intervals; 0 gives none.
        worst: rows of the table of that name.
        compared: the predictions of all runs that are to be compared, these among them, in the same
            order for each: slices are then columns of the truth or else of the first of them, and
            `match` is decided once, by what all of them name.

    Raises:
        InvalidInput: tables that do not fit each other, or ids that occur twice.
    """
    joined = join_predictions(
        predictions,
        truth,
        id=id,
        predicted=predicted,
        truth_id=truth_id or id,
        label=label,
        slices=slices,
        classes=classes,
        match=match,
        many=False,
        first=max([1, *top_k]),
        compared=compared,
    )

    def find(judged: DataFrame) -> Findings:
        names = class_list(judged.select("truth").union(judged.select("answer")))
        rule = ClassSums(pa.array(names), tuple(top_k), bins)
        totals = sum_rows(judged.drop("id", "reason", "length"), rule.add, bootstrap)
        outside = int(totals.of("total", ALL, rule.counts)[2, 0])
        reason = "with a score outside 0 to 1, so that there is no calibration"
        right = F.col("answer").eqNullSafe(F.col("truth"))
        return Findings(
            _figures(totals, rule, _cut(judged, predictions, predicted, top_k)),
            _tables(judged, totals, rule, names, worst),
            answers_of(judged, F.col("truth"), F.col("answer"), right),
            [*([Issue(reason, outside)] if outside else []), *doubts(names, totals.classes)],
        )

    rows, matching = _rows(joined.rows), joined.matching
    return judge_rows("classification", rows, slices, find, wrong=WRONG, match=matching.field)


def _rows(joined: DataFrame) -> DataFrame:
    """What the report needs of each row; `place` is where the truth is listed, from 1, or 0."""
    place = F.coalesce(F.expr("array_position(labels, truth)"), F.lit(0)).cast("int")
    return joined.select(
        "id",
        "key",
        "truth",
        F.col("labels")[0].alias("answer"),
        "score",
        "length",
        place.alias("place"),
        "reason",
        *slices_of(joined),
    )


def _cut(
    judged: DataFrame, predictions: DataFrame, predicted: str, top_k: Sequence[int]
) -> list[int]:
    """The k whose top-k accuracy is unknown, because the lists of labels are shorter.

    Whole lists are as long as there are labels, and have the same ones each.
    """
    longest = int(judged.agg(F.max("length")).collect()[0][0] or 0)
    cut = [k for k in top_k if longest < k]
    if cut and len(classes_listed(predictions, predicted)) <= longest:
        return []
    if cut and longest:
        named = ", ".join(f"top_{k}_accuracy" for k in cut)
        _log.info("the predictions list %d labels a row: there is no %s", longest, named)
    return cut


def _figures(totals: Totals, rule: ClassSums, cut: Sequence[int]) -> list[Figure]:
    """Every figure of every slice. cut: the k whose top-k accuracy is unknown."""
    figures = []
    unknown = np.full(totals.columns, np.nan)
    for name in totals.slices():
        n, answered, improper, hits, *firsts = totals.of("total", name, rule.counts)
        every = {"accuracy": ratio(hits, n)}
        every |= {f"top_{k}_accuracy": ratio(f, n) for k, f in zip(rule.top_k, firsts, strict=True)}
        every |= {f"top_{k}_accuracy": unknown for k in cut}
        every |= averaging.averages(totals.of("macro", name, 14))
        small = averaging.micro({"tp": hits, "support": n, "predicted": answered})
        every |= {key: np.where(n > 0, value, np.nan) for key, value in small.items()}
        every["ece"] = unknown if improper[0] else calibration_error(*_bins(totals, rule, name))
        rows = {"ece": int(answered[0])}
        figures += [
            Figure(key, name, values, rows.get(key, int(n[0])), totals.groups)
            for key, values in every.items()
        ]
    return figures


def _bins(totals: Totals, rule: ClassSums, name: str) -> np.ndarray:
    """Rows, hits and sum of the scores of each bin: (3, bins, 1 + B) float64."""
    parts = [totals.of("bin", name, 4, item) for item in range(rule.bins)]
    every = [np.concatenate([part[:2], from_limbs(part[2:])]) for part in parts]
    return np.stack(every, axis=1)


def _tables(
    judged: DataFrame, totals: Totals, rule: ClassSums, names: Sequence[Any], worst: int
) -> dict[str, DataFrame]:
    spark = judged.sparkSession
    confusion = (
        judged.groupBy(F.col("truth").cast("string"), F.col("answer").cast("string"))
        .count()
        .toDF("truth", "predicted", "count")
    )
    off = confusion.filter("truth != predicted").orderBy(F.desc("count"), "truth", "predicted")
    wrong = judged.filter("NOT (answer <=> truth)").select(
        "id", "truth", F.col("answer").alias("predicted"), "score", "reason"
    )
    return {
        "per_class": class_table(spark, "class", names, totals.classes, averaging.FIGURES),
        "confusion": confusion,
        "most_confused": off.limit(_MOST_CONFUSED).coalesce(1),
        "reliability": _reliability(spark, totals, rule),
        "worst": worst_rows(wrong, F.desc_nulls_last("score"), worst),
    }


def _reliability(spark: SparkSession, totals: Totals, rule: ClassSums) -> DataFrame:
    rows: list[dict[str, Any]] = []
    for name in totals.slices():
        for item, (count, hits, scores) in enumerate(_bins(totals, rule, name).swapaxes(0, 1)):
            accuracy = ratio(hits, count)
            low, high = interval(accuracy, totals.groups, within=(0.0, 1.0))
            rows.append(
                {
                    "slice": name,
                    "bin": item,
                    "lower": item / rule.bins,
                    "upper": (item + 1) / rule.bins,
                    "count": int(count[0]),
                    "confidence": none_for_nan(ratio(scores, count)[0]),
                    "accuracy": none_for_nan(accuracy[0]),
                    "low": none_for_nan(low),
                    "high": none_for_nan(high),
                }
            )
    ends = {"confidence": float, "accuracy": float, "low": float, "high": float}
    bounds = {"lower": float, "upper": float, "count": int}
    return table(spark, rows, slice=str, bin=int, **bounds, **ends)
