"""Judging predictions of several labels a row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType

from ember.errors import InvalidInput
from ember.evaluation.figure_tables import class_table, curve_table
from ember.evaluation.joining import WRONG, class_list, in_order, join_predictions
from ember.evaluation.judgment import (
    Findings,
    Totals,
    answers_of,
    by_group,
    judge_rows,
    sum_rows,
    worst_rows,
)
from ember.evaluation.matching import Match, Matching, doubts
from ember.evaluation.result import Evaluation, Figure
from ember.evaluation.slices import every_slice, slices_of
from ember.spark.tables import column
from ember.worker.metrics import classes as averaging
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.curves import curve_rows
from ember.worker.metrics.label_sums import COUNTS, LabelSums, rank_label
from ember.worker.metrics.sums import CHUNK_ROWS, from_limbs

__all__ = ["judge_multilabel", "multilabel_figures"]

# A chunk of rows by all labels, in float64: 16 MB.
_CELLS = 1 << 21


def multilabel_figures(top_k: Sequence[int]) -> list[str]:
    """The figures of a multi-label report."""
    return [
        "subset_accuracy",
        "hamming_loss",
        *(
            f"{mean}_{name}"
            for mean in ("micro", "macro", "weighted")
            for name in averaging.FIGURES
        ),
        "lrap",
        *(f"precision@{k}" for k in top_k),
        "mean_average_precision",
    ]


def judge_multilabel(
    predictions: DataFrame,
    truth: DataFrame,
    *,
    id: str,
    label: str = "label",
    truth_id: str | None = None,
    predicted: str = "predictions",
    threshold: float = 0.5,
    slices: Sequence[str] = (),
    classes: Sequence[str] | Sequence[int] | None = None,
    match: Match = "auto",
    top_k: Sequence[int] = (5,),
    bootstrap: int = 1000,
    worst: int = 100,
    compared: Sequence[DataFrame] = (),
) -> Evaluation:
    """Judge predictions of several labels a row.

    A row without a usable prediction counts, with no label predicted and none ranked; it is never
    right as a whole, even where its truth is empty.

    With L labels, those that occur in truth, predictions, `classes` or the predictions of another
    run that is compared, over the n rows:
        subset_accuracy  rows whose labels predicted are the true ones / n
        hamming_loss     labels predicted and not true, or true and not predicted / (n L)
        micro_, macro_, weighted_ precision, recall, f1: see ember.worker.metrics.classes
        lrap             the mean of ember.worker.metrics.ranking.label_ranking_precision
        precision@k      the mean of: true labels among the first k / k
        mean_average_precision   the mean of the labels' average precisions (see
                         ember.worker.metrics.curves.rank_against) over labels with a positive row

    Tables: per_label (label, tp, support, predicted; precision, recall, f1, average_precision with
    intervals), precision_recall (label, threshold, recall, precision: points of each label's curve,
    see ember.worker.metrics.curves.precision_recall), worst (rows with the most labels wrong).

    All rows of a label are sorted in one task: 17 bytes a row and label listed.

    Args:
        predictions: as for `judge_classification`.
        truth: an id and a label, which is an array, of strings or of integers, and may be empty.
        id: column that names a row in the predictions.
        label: column of the truth's labels.
        truth_id: column that names a row in the truth. None: that of the predictions.
        predicted: column of the predictions.
        threshold: a listed label is predicted where its score is at least this. A label that is not
            listed counts as not predicted, and ranks after all that are, together with the others.
        slices: as for `judge_classification`.
        classes: as for `judge_classification`.
        match: as for `judge_classification`.
        top_k: for which k to give precision@k.
        bootstrap: as for `judge_classification`.
        worst: rows of the table of that name.
        compared: as for `judge_classification`.

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
        many=True,
        compared=compared,
    )
    threshold = _as_stored(threshold, predictions, predicted)

    def find(judged: DataFrame) -> Findings:
        listed = judged.select(F.explode("labels")).union(judged.select(F.explode("truth")))
        for run in compared:
            listed = listed.union(_listed(run, predicted, joined.matching))
        names = in_order([*class_list(listed), *(joined.classes or [])])
        if not names and not judged.isEmpty():
            raise InvalidInput(
                f"no row of the truth has a label in column {label}, and no prediction lists one: "
                "there is nothing to judge; are these the right columns?"
            )
        rule = LabelSums(pa.array(names), tuple(dict.fromkeys(top_k)), threshold)
        totals, ranked = _sums(judged, names, rule, bootstrap)
        answers = _answers(judged, threshold)
        wrong = answers.filter("wrong > 0").drop(*slices_of(answers))
        return Findings(
            _figures(totals, ranked, rule),
            {
                **_tables(totals, ranked, names, judged),
                "worst": worst_rows(wrong, F.desc("wrong"), worst),
            },
            answers_of(
                answers,
                F.array_join(F.sort_array("truth"), ", "),
                F.array_join(F.sort_array("predicted"), ", "),
                -F.col("wrong"),
            ),
            doubts(names, totals.classes),
        )

    rows, matching = joined.rows, joined.matching
    return judge_rows("multilabel", rows, slices, find, wrong=WRONG, match=matching.field)


def _listed(predictions: DataFrame, predicted: str, matching: Matching) -> DataFrame:
    """Every label that predictions list."""
    entries = predictions.select(F.explode(column(predictions, predicted)).alias("each"))
    return entries.select(matching.of_prediction(F.col("each")))


def _as_stored(threshold: float, predictions: DataFrame, predicted: str) -> float:
    """The threshold with the precision of the scores: a score of 0.7 in float32 reaches 0.7."""
    kind = predictions.select(column(predictions, predicted)).schema[0].dataType
    score = kind.elementType["score"].dataType  # type: ignore[attr-defined]
    return float(np.float32(threshold)) if isinstance(score, FloatType) else threshold


def _sums(
    judged: DataFrame, names: Sequence[Any], rule: LabelSums, replicates: int
) -> tuple[Totals, Totals]:
    """The sums over rows, and those over labels, whose rows are ranked."""
    chunk = max(1, min(CHUNK_ROWS, _CELLS // max(1, len(names))))
    totals = sum_rows(judged.drop("id", "reason"), rule.add, replicates, chunk)
    everything = {name: totals.of("total", name, rule.values)[0] for name in totals.slices()}
    codes = {name: code for code, name in enumerate(names)}
    rank = partial(rank_label, everything, codes)
    return totals, by_group(_entries(judged), ("slice", "label"), rank, replicates)


def _entries(judged: DataFrame) -> DataFrame:
    """What is ranked: every label listed, and the true labels that were not, score -inf."""
    listed = F.transform(
        F.arrays_zip("labels", "scores"),
        lambda each: F.struct(
            each["labels"].alias("label"),
            each["scores"].alias("score"),
            F.array_contains("truth", each["labels"]).alias("positive"),
        ),
    )
    left = F.array_except("truth", F.coalesce("labels", F.expr("slice(truth, 1, 0)")))
    unlisted = F.transform(
        left,
        lambda each: F.struct(
            each.alias("label"),
            F.lit(float("-inf")).alias("score"),
            F.lit(True).alias("positive"),
        ),
    )
    every = F.concat(F.coalesce(listed, F.slice(unlisted, 1, 0)), unlisted)
    return judged.select("key", every_slice(judged), every.alias("entries")).select(
        "slice", "key", F.inline("entries")
    )


def _figures(totals: Totals, ranked: Totals, rule: LabelSums) -> list[Figure]:
    figures = []
    for name in totals.slices():
        sums = totals.of("total", name, rule.values)
        n, subset, wrong, tp, support, predicted = sums[:COUNTS]
        lrap, *firsts = from_limbs(sums[COUNTS:])
        every = {
            "subset_accuracy": ratio(subset, n),
            "hamming_loss": ratio(wrong, n * len(rule.names)),
        }
        small = averaging.micro({"tp": tp, "support": support, "predicted": predicted})
        every |= {key: np.where(n > 0, value, np.nan) for key, value in small.items()}
        every |= averaging.averages(totals.of("macro", name, 14))
        every["lrap"] = ratio(lrap, n)
        every |= {f"precision@{k}": ratio(f, n) for k, f in zip(rule.top_k, firsts, strict=True)}
        mean = ranked.of("mean", name, 3)
        every["mean_average_precision"] = ratio(from_limbs(mean[1:])[0], mean[0])
        figures += [
            Figure(key, name, values, int(n[0]), totals.groups) for key, values in every.items()
        ]
    return figures


def _tables(
    totals: Totals, ranked: Totals, names: Sequence[Any], judged: DataFrame
) -> dict[str, DataFrame]:
    """What is known of each label. `rank_label` put its curve behind its average precision."""
    spark = judged.sparkSession
    nothing, unranked = np.zeros(12), np.full(3, np.nan)
    numbers = {
        code: np.append(totals.classes.get(code, nothing), ranked.classes.get(code, unranked)[:3])
        for code in range(len(names))
    }
    points = [
        row
        for code, found in sorted(ranked.classes.items())
        for row in curve_rows(found[3:].reshape(-1, 3), label=str(names[code]))
    ]
    figures = (*averaging.FIGURES, "average_precision")
    return {
        "per_label": class_table(spark, "label", names, numbers, figures),
        "precision_recall": curve_table(spark, points, label=str),
    }


def _answers(judged: DataFrame, threshold: float) -> DataFrame:
    """id, truth, predicted (both arrays), how many labels are wrong, reason, slices."""
    chosen = F.transform(
        F.filter(F.arrays_zip("labels", "scores"), lambda each: each["scores"] >= threshold),
        lambda each: each["labels"],
    )
    rows = judged.withColumn("predicted", chosen)
    both = F.coalesce("predicted", F.expr("slice(truth, 1, 0)"))
    wrong = F.size(F.array_except("truth", both)) + F.size(F.array_except(both, F.col("truth")))
    columns = ("id", "truth", "predicted", wrong.alias("wrong"), "reason")
    return rows.select(*columns, *slices_of(rows))
