"""Judging predictions of several labels a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType

from ember.errors import InvalidInput
from ember.evaluation.joining import class_list, failed_rows, in_order, issues_of, join_predictions
from ember.evaluation.matching import Match, Matching, doubts
from ember.evaluation.result import Evaluation, Figure, none_for_nan, table
from ember.evaluation.slices import few_slices, slice_names
from ember.evaluation.spark_sums import Chunk, Totals, by_group, record, sum_rows
from ember.spark.persisted import kept
from ember.spark.tables import column
from ember.worker.metrics import classes as averaging
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.curves import curve_rows, precision_recall, rank_against
from ember.worker.metrics.ranking import label_ranking_precision, precision_at
from ember.worker.metrics.sums import ALL, CHUNK_ROWS, Sums, codes_in, flat, from_limbs, to_limbs
from ember.worker.metrics.weights import interval

__all__ = ["judge_multilabel", "multilabel_figures"]

# A chunk of rows by all labels, in float64: 16 MB.
_CELLS = 1 << 21
_COUNTS = 6


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

    predictions, truth, id, truth_id, predicted, slices, classes, match, bootstrap, compared: as for
        `judge_classification`; the truth's label is an array, of strings or of integers, which may
        be empty.
    threshold: a listed label is predicted where its score is at least this. A label that is not
        listed counts as not predicted, and ranks after all that are, together with the others.

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
        many=True,
        compared=compared,
    )
    threshold = _as_stored(threshold, predictions, predicted)
    with kept(joined.rows) as rows:
        judged = rows.filter("judged")
        few_slices(judged, slices)
        listed = judged.select(F.explode("labels")).union(judged.select(F.explode("truth")))
        for run in compared:
            listed = listed.union(_listed(run, predicted, joined.matching))
        names = in_order([*class_list(listed), *(joined.classes or [])])
        if not names and not judged.isEmpty():
            raise InvalidInput(
                f"no row of the truth has a label in column {label}, and no prediction lists one: "
                "there is nothing to judge; are these the right columns?"
            )
        rule = _Rule(pa.array(names), tuple(dict.fromkeys(top_k)), threshold)
        chunk = max(1, min(CHUNK_ROWS, _CELLS // max(1, len(names))))
        totals = sum_rows(judged.drop("id", "reason", "judged"), rule.add, bootstrap, chunk)
        everything = {name: _total(totals, name, rule, bootstrap)[0] for name in totals.slices()}
        ranked = by_group(
            _entries(judged, slices),
            ("slice", "label"),
            partial(_rank, everything, {name: code for code, name in enumerate(names)}),
            bootstrap,
        )
        figures = _figures(totals, ranked, rule, bootstrap)
        unusable = rows.filter(F.col("reason").isNotNull()).select("id", "reason")
        issues = issues_of(unusable)
        failed = failed_rows(issues)
        issues += doubts(names, totals.classes)
        answers = _answers(judged, threshold, slices)
        order = (F.desc("wrong"), "id")
        tables = {
            "per_label": _per_label(predictions.sparkSession, totals, ranked, names),
            "precision_recall": _curves(predictions.sparkSession, ranked, names),
            "worst": answers.filter("wrong > 0")
            .drop("slices")
            .orderBy(*order)
            .limit(worst)
            .coalesce(1),
        }
        outcome = answers.select(
            "id",
            F.array_join(F.sort_array("truth"), ", ").alias("truth"),
            F.array_join(F.sort_array("predicted"), ", ").alias("answer"),
            (-F.col("wrong")).cast("double").alias("outcome"),
            "slices",
        )
        total = int(everything[ALL][0])
        return Evaluation(
            *("multilabel", figures, tables, issues, outcome, unusable, total, failed, (rows,)),
            match=joined.matching.field,
        )


def _listed(predictions: DataFrame, predicted: str, matching: Matching) -> DataFrame:
    """Every label that predictions list."""
    entries = predictions.select(F.explode(column(predictions, predicted)).alias("each"))
    return entries.select(matching.of_prediction(F.col("each")))


def _as_stored(threshold: float, predictions: DataFrame, predicted: str) -> float:
    """The threshold with the precision of the scores: a score of 0.7 in float32 reaches 0.7."""
    kind = predictions.select(column(predictions, predicted)).schema[0].dataType
    score = kind.elementType["score"].dataType  # type: ignore[attr-defined]
    return float(np.float32(threshold)) if isinstance(score, FloatType) else threshold


@dataclass(frozen=True)
class _Rule:
    """What each row adds to the sums."""

    names: pa.Array
    top_k: tuple[int, ...]
    threshold: float

    @property
    def values(self) -> int:
        """Six counts, and LRAP and each precision@k in limbs."""
        return _COUNTS + 2 * (1 + len(self.top_k))

    def add(self, chunk: Chunk, sums: Sums) -> None:
        rows = chunk.rows.num_rows
        truth = np.zeros((rows, len(self.names)), bool)
        scores = np.full(truth.shape, -np.inf)
        order = np.full((rows, max(self.top_k)), -1)
        labels, row, _ = flat(chunk.rows.column("truth"))
        truth[row, codes_in(labels, self.names)] = True
        labels, row, place = flat(chunk.rows.column("labels"))
        codes = codes_in(labels, self.names)
        scores[row, codes] = flat(chunk.rows.column("scores"))[0].to_numpy(zero_copy_only=False)
        first = place < order.shape[1]
        order[row[first], place[first]] = codes[first]
        predicted = (scores >= self.threshold) & (scores > -np.inf)
        answered = chunk.rows.column("labels").is_valid().to_numpy(zero_copy_only=False)
        wrong = (truth != predicted).sum(axis=1)
        hit = truth & predicted
        counts = [np.ones(rows), answered & (wrong == 0), wrong]
        counts += [cells.sum(axis=1) for cells in (hit, truth, predicted)]
        ranks = [label_ranking_precision(scores, truth)]
        ranks += [precision_at(order, truth, k) for k in self.top_k]
        values = np.column_stack([np.stack(counts, axis=1), to_limbs(np.stack(ranks, axis=1))])
        zeros = np.zeros(rows, np.int64)
        for slicing in chunk.slicings:
            sums.add("total", slicing, zeros, values.astype(np.int64), chunk.weights)
            for cells, of_truth in ((truth, True), (predicted, False)):
                row, item = np.nonzero(cells)
                counted = np.full(len(row), of_truth)
                entries = np.stack([hit[row, item] & of_truth, counted, ~counted], axis=1)
                sums.add("class", slicing, item, entries, chunk.weights, rows=row)


def _entries(judged: DataFrame, slices: Sequence[str]) -> DataFrame:
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
    names = F.explode(F.array(F.lit(ALL), *slice_names(slices)))
    every = F.concat(F.coalesce(listed, F.slice(unlisted, 1, 0)), unlisted)
    return judged.select("key", names.alias("slice"), every.alias("entries")).select(
        "slice", "key", F.inline("entries")
    )


def _rank(
    everything: dict[str, np.ndarray],
    codes: dict[Any, int],
    group: tuple[str, Any],
    rows: pa.Table,
    sums: Sums,
) -> Iterator[pa.RecordBatch]:
    """Average precision of a label in a slice, and what it adds to the mean."""
    name, label = group
    scores, positive, keys = (
        rows.column(column).to_numpy() for column in ("score", "positive", "key")
    )
    total = everything[name].astype(np.float64)
    values = rank_against(scores, positive.astype(bool), keys, sums.replicates, total)
    precision = values.average_precision
    defined = ~np.isnan(precision)
    limbs = to_limbs(np.where(defined, precision, 0)[:, None]).T
    added = np.concatenate([[defined.astype(np.int64)], limbs])
    key = ("mean", name, 0)
    sums.held[key] = sums.held[key] + added if key in sums.held else added
    if name == ALL:
        ends = [precision[0], *interval(precision)]
        curve = precision_recall(scores, positive.astype(bool))
        yield record("class", name, codes[label], np.array([*ends, *curve.ravel()]))


def _total(totals: Totals, name: str, rule: _Rule, replicates: int) -> np.ndarray:
    return totals.of("total", name, rule.values, replicates)


def _figures(totals: Totals, ranked: Totals, rule: _Rule, replicates: int) -> list[Figure]:
    figures = []
    for name in totals.slices():
        sums = _total(totals, name, rule, replicates)
        n, subset, wrong, tp, support, predicted = sums[:_COUNTS]
        lrap, *firsts = from_limbs(sums[_COUNTS:])
        every = {
            "subset_accuracy": ratio(subset, n),
            "hamming_loss": ratio(wrong, n * len(rule.names)),
        }
        small = averaging.micro({"tp": tp, "support": support, "predicted": predicted})
        every |= {key: np.where(n > 0, value, np.nan) for key, value in small.items()}
        every |= averaging.averages(totals.of("macro", name, 14, replicates))
        every["lrap"] = ratio(lrap, n)
        every |= {f"precision@{k}": ratio(f, n) for k, f in zip(rule.top_k, firsts, strict=True)}
        mean = ranked.of("mean", name, 3, replicates)
        every["mean_average_precision"] = ratio(from_limbs(mean[1:])[0], mean[0])
        figures += [
            Figure(key, name, every[key], int(n[0])) for key in multilabel_figures(rule.top_k)
        ]
    return figures


def _per_label(
    spark: SparkSession, totals: Totals, ranked: Totals, names: Sequence[Any]
) -> DataFrame:
    figures = (*averaging.FIGURES, "average_precision")
    rows = []
    for code, label in enumerate(names):
        counted = totals.classes.get(code, np.zeros(12))
        numbers = [*counted[3:], *ranked.classes.get(code, np.full(3, np.nan))[:3]]
        row: dict[str, Any] = {"label": str(label)}
        for position, name in enumerate(("tp", "support", "predicted")):
            row[name] = int(counted[position])
        for position, name in enumerate(figures):
            for offset, end in enumerate(("", "_low", "_high")):
                row[name + end] = none_for_nan(numbers[3 * position + offset])
        rows.append(row)
    kinds = {name + end: float for name in figures for end in ("", "_low", "_high")}
    return table(spark, rows, label=str, tp=int, support=int, predicted=int, **kinds)


def _curves(spark: SparkSession, ranked: Totals, names: Sequence[Any]) -> DataFrame:
    """What `_rank` found behind the three figures of each label."""
    rows = [
        row
        for code, found in sorted(ranked.classes.items())
        for row in curve_rows(found[3:].reshape(-1, 3), label=str(names[code]))
    ]
    return table(spark, rows, label=str, threshold=float, recall=float, precision=float)


def _answers(judged: DataFrame, threshold: float, slices: Sequence[str]) -> DataFrame:
    """id, truth, predicted (both arrays), how many labels are wrong, reason, slices (an array)."""
    chosen = F.transform(
        F.filter(F.arrays_zip("labels", "scores"), lambda each: each["scores"] >= threshold),
        lambda each: each["labels"],
    )
    rows = judged.withColumn("predicted", chosen)
    both = F.coalesce("predicted", F.expr("slice(truth, 1, 0)"))
    wrong = F.size(F.array_except("truth", both)) + F.size(F.array_except(both, F.col("truth")))
    divided = F.array(*slice_names(slices)).alias("slices")
    return rows.select("id", "truth", "predicted", wrong.alias("wrong"), "reason", divided)
