"""Judging predictions of one label a row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.evaluation.joining import class_list, failed_rows, issues_of, join_predictions
from ember.evaluation.matching import Match, classes_listed, doubts
from ember.evaluation.result import Evaluation, Figure, Issue, none_for_nan, table
from ember.evaluation.slices import few_slices, slice_names
from ember.evaluation.spark_sums import Chunk, Totals, sum_rows
from ember.spark.persisted import kept
from ember.worker.metrics import classes as averaging
from ember.worker.metrics.calibration import bin_of, calibration_error
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.sums import ALL, Sums, codes_in, from_limbs, to_limbs
from ember.worker.metrics.weights import interval

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

    predictions: an id and, in the column `predicted`, array<struct<index, label, score>> best
        first, null where the row failed; as `classify` writes it.
    truth: an id (`truth_id`; by default the same name) and a label: a string, a boolean or a date,
        compared with the predictions' label, or an integer, see `match`.
    slices: columns of the truth, or else of the predictions; every figure is given for each of
        their values as well.
    classes: the class list; rows whose truth is another are left out and counted. None: every
        label is good.
    match: what a truth of integers is compared with: "label" or "index" of a prediction; "auto":
        the label where the predictions' labels are integers, the index where they are names.
    bootstrap: replicates for the 95% intervals; 0 gives none.
    compared: the predictions of all runs that are to be compared, these among them, in the same
        order for each: slices are then columns of the truth or else of the first of them, and
        `match` is decided once, by what all of them name.

    Every row with a truth counts. One without a prediction, with a failed one, or with a score
    that is null or NaN counts as wrong: it lowers accuracy and its class's recall. A prediction
    without a truth is left out. Both are counted and named in `issues`.

    Figures, over the n rows with a truth:
        accuracy           rows whose first label is the truth / n
        top_k_accuracy     rows with the truth among the first k labels / n; null where no list is
                           as long, and all were cut: more classes are listed than in any row
        macro_, weighted_, micro_ precision, recall, f1: see ember.worker.metrics.classes
        ece                see ember.worker.metrics.calibration; over the rows with a prediction
    All are null without a row.

    Tables: per_class (class, tp, support, predicted; precision, recall, f1 with intervals),
    confusion (truth, predicted, count; only pairs that occur; predicted null for no usable
    prediction), most_confused (its largest entries off the diagonal), reliability (slice, bin,
    lower, upper, count, confidence, accuracy with interval), worst (wrong rows, most confident
    first).

    Raises InvalidInput for tables that do not fit each other, or ids that occur twice.
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
        compared=compared,
    )
    with kept(_rows(joined.rows, slices)) as rows:
        judged = rows.filter("judged")
        few_slices(judged, slices)
        names = class_list(judged.select("truth").union(judged.select("answer")))
        rule = _Rule(pa.array(names), tuple(top_k), bins)
        totals = sum_rows(judged.drop("id", "reason", "length"), rule.add, bootstrap)
        longest = int(judged.agg(F.max("length")).collect()[0][0] or 0)
        # Lists that were cut do not tell what would follow; whole ones have the same labels each.
        cut = [k for k in top_k if longest < k]
        if cut and len(classes_listed(predictions, predicted)) <= longest:
            cut = []
        figures, outside = _figures(totals, rule, bootstrap, cut)
        unusable = rows.filter(F.col("reason").isNotNull()).select("id", "reason")
        issues = issues_of(unusable)
        failed = failed_rows(issues)
        spark = predictions.sparkSession
        total = int(totals.of("total", ALL, rule.counts, bootstrap)[0, 0])
        if outside:
            reason = "with a score outside 0 to 1, so that there is no calibration"
            issues.append(Issue(reason, outside))
        issues += doubts(names, totals.classes)
        if cut and longest:
            named = ", ".join(f"top_{k}_accuracy" for k in cut)
            _log.info("the predictions list %d labels a row: there is no %s", longest, named)
        confusion = (
            judged.groupBy(F.col("truth").cast("string"), F.col("answer").cast("string"))
            .count()
            .toDF("truth", "predicted", "count")
        )
        order = (F.desc("count"), "truth", "predicted")
        off = confusion.filter("truth != predicted").orderBy(*order).limit(_MOST_CONFUSED)
        wrong = judged.filter("NOT (answer <=> truth)").select(
            "id", "truth", F.col("answer").alias("predicted"), "score", "reason"
        )
        tables = {
            "per_class": _per_class(spark, totals, names),
            "confusion": confusion,
            "most_confused": off.coalesce(1),
            "reliability": _reliability(spark, totals, rule, bootstrap),
            "worst": wrong.orderBy(F.desc_nulls_last("score"), "id").limit(worst).coalesce(1),
        }
        answers = judged.select(
            "id",
            F.col("truth").cast("string").alias("truth"),
            F.col("answer").cast("string").alias("answer"),
            F.col("answer").eqNullSafe(F.col("truth")).cast("double").alias("outcome"),
            F.array(*slice_names(slices)).alias("slices"),
        )
        return Evaluation(
            *("classification", figures, tables, issues, answers, unusable, total, failed, (rows,)),
            match=joined.matching.field,
        )


def _rows(joined: DataFrame, slices: Sequence[str]) -> DataFrame:
    """What the report needs of each row; `place` is where the truth is listed, from 1, or 0."""
    place = F.coalesce(F.expr("array_position(labels, truth)"), F.lit(0)).cast("int")
    return joined.select(
        "id",
        "key",
        "truth",
        F.col("labels")[0].alias("answer"),
        F.col("scores")[0].alias("score"),
        F.size("labels").alias("length"),
        place.alias("place"),
        "reason",
        "judged",
        *slice_names(slices),
    )


@dataclass(frozen=True)
class _Rule:
    """What each row adds to the sums."""

    names: pa.Array
    top_k: tuple[int, ...]
    bins: int

    @property
    def counts(self) -> int:
        """Rows, answered rows, scores that are no probability, hits, hits in the first k."""
        return 4 + len(self.top_k)

    def add(self, chunk: Chunk, sums: Sums) -> None:
        columns = (chunk.rows.column(name) for name in ("truth", "answer"))
        truth, answer = (codes_in(column, self.names) for column in columns)
        place, scores = chunk.numbers("place"), chunk.numbers("score")
        answered, hit = answer >= 0, (answer >= 0) & (answer == truth)
        bins = bin_of(scores, self.bins)
        improper = answered & (bins < 0)
        every = [np.ones(len(truth), bool), answered, improper, hit]
        every += [(place > 0) & (place <= k) for k in self.top_k]
        none = np.zeros(len(truth), bool)
        proper = np.flatnonzero(answered & (bins >= 0))
        binned = np.column_stack(
            [np.ones(len(proper), np.int64), hit[proper], to_limbs(scores[proper, None])]
        )
        zeros = np.zeros(len(truth), np.int64)
        rows = np.flatnonzero(answered)
        for slicing in chunk.slicings:
            weights = chunk.weights
            sums.add("total", slicing, zeros, np.stack(every, axis=1), weights)
            of_truth = np.stack([hit, every[0], none], axis=1)
            sums.add("class", slicing, truth, of_truth, weights)
            of_answer = np.stack([none, none, answered], axis=1)[rows]
            sums.add("class", slicing, answer[rows], of_answer, weights, rows=rows)
            sums.add("bin", slicing, bins[proper], binned, weights, rows=proper)

    def binned(self, totals: Totals, name: str, replicates: int) -> np.ndarray:
        """Rows, hits and sum of the scores of each bin: (3, bins, 1 + B) float64."""
        parts = [totals.of("bin", name, 4, replicates, item) for item in range(self.bins)]
        every = [np.concatenate([part[:2], from_limbs(part[2:])]) for part in parts]
        return np.stack(every, axis=1)


def _figures(
    totals: Totals, rule: _Rule, replicates: int, cut: Sequence[int]
) -> tuple[list[Figure], int]:
    """The figures, and how many scores are no probabilities. cut: k of what is not known."""
    figures, outside = [], 0
    for name in totals.slices():
        sums = totals.of("total", name, rule.counts, replicates)
        n, answered, improper, hits, *firsts = sums
        macro = totals.of("macro", name, 14, replicates)
        every = {"accuracy": ratio(hits, n)}
        every |= {f"top_{k}_accuracy": ratio(f, n) for k, f in zip(rule.top_k, firsts, strict=True)}
        every |= {f"top_{k}_accuracy": np.full(replicates + 1, np.nan) for k in cut}
        every |= averaging.averages(macro)
        small = averaging.micro({"tp": hits, "support": n, "predicted": answered})
        every |= {key: np.where(n > 0, value, np.nan) for key, value in small.items()}
        every["ece"] = calibration_error(*rule.binned(totals, name, replicates))
        if name == ALL:
            outside = int(improper[0])
        if improper[0]:
            every["ece"] = np.full(replicates + 1, np.nan)
        rows = {"ece": int(answered[0])}
        figures += [Figure(key, name, v, rows.get(key, int(n[0]))) for key, v in every.items()]
    return figures, outside


def _per_class(spark: SparkSession, totals: Totals, names: Sequence[Any]) -> DataFrame:
    rows = []
    for code, numbers in sorted(totals.classes.items()):
        tp, support, predicted, *rest = numbers.tolist()
        row = {"class": str(names[code]), "tp": int(tp), "support": int(support)}
        row["predicted"] = int(predicted)
        for position, name in enumerate(averaging.FIGURES):
            value, low, high = (none_for_nan(x) for x in rest[3 * position : 3 * position + 3])
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    figures = {f"{name}{end}": float for name in averaging.FIGURES for end in ("", "_low", "_high")}
    counts = {"class": str, "tp": int, "support": int, "predicted": int}
    return table(spark, rows, **counts, **figures)


def _reliability(spark: SparkSession, totals: Totals, rule: _Rule, replicates: int) -> DataFrame:
    rows: list[dict[str, Any]] = []
    for name in totals.slices():
        binned = rule.binned(totals, name, replicates)
        for item in range(rule.bins):
            count, hits, confidence = binned[:, item]
            accuracy = ratio(hits, count)
            low, high = interval(accuracy)
            rows.append(
                {
                    "slice": name,
                    "bin": item,
                    "lower": item / rule.bins,
                    "upper": (item + 1) / rule.bins,
                    "count": int(count[0]),
                    "confidence": none_for_nan(ratio(confidence, count)[0]),
                    "accuracy": none_for_nan(accuracy[0]),
                    "low": none_for_nan(low),
                    "high": none_for_nan(high),
                }
            )
    ends = {"confidence": float, "accuracy": float, "low": float, "high": float}
    bounds = {"lower": float, "upper": float, "count": int}
    return table(spark, rows, slice=str, bin=int, **bounds, **ends)
