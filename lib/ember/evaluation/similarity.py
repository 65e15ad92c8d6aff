"""Judging scores of pairs against a number, or against yes and no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, IntegralType, NumericType

from ember.errors import InvalidInput
from ember.evaluation.figure_tables import curve_table
from ember.evaluation.joining import NO_TRUTH, check_once, key_of
from ember.evaluation.judgment import (
    Findings,
    Totals,
    answers_of,
    by_group,
    judge_rows,
    worst_rows,
)
from ember.evaluation.result import Evaluation, Figure
from ember.evaluation.slices import (
    check_slices,
    every_slice,
    filled_slices,
    join_slices,
    slice_columns,
)
from ember.spark.ids import check_can_be_equal, check_id
from ember.spark.tables import column
from ember.worker.metrics.curves import curve_rows
from ember.worker.metrics.pair_figures import PAIR_FIGURES, judge_pairs
from ember.worker.metrics.sums import ALL

__all__ = ["FIGURES", "judge_similarity"]

FIGURES = PAIR_FIGURES
_RANGES = {
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "best_threshold": (-math.inf, math.inf),
}
_BAD_TRUTH = "with a truth that is null or not finite, left out"
_NO_SCORE = "without a score, left out"
_BAD_SCORE = "with a score that is null or not finite, left out"


def judge_similarity(
    pairs: DataFrame,
    truth: DataFrame,
    *,
    id: str | Sequence[str],
    score: str = "score",
    label: str = "label",
    truth_id: str | Sequence[str] | None = None,
    slices: Sequence[str] = (),
    bootstrap: int = 1000,
    worst: int = 100,
    compared: Sequence[DataFrame] = (),
) -> Evaluation:
    """Judge how scores agree with a truth.

    Rows that lack one side, or have a number that is null or not finite, are left out, and counted
    and named in `issues`: there is no score that would be wrong for them.

    Figures: pearson, spearman; for a binary truth also roc_auc, average_precision, best_f1 and
    best_threshold, which are null for another. Definitions and rules for ties and constants are in
    ember.worker.metrics.curves.

    Tables: worst (rows where score and truth differ most, each in standard deviations from its
    mean); for a binary truth precision_recall (threshold, recall, precision: points of the curve,
    see ember.worker.metrics.curves.precision_recall).

    All pairs are sorted in one task, for each slice: 24 bytes a pair, and about four times that
    while they are.

    Args:
        pairs: an id, in one column or in several that name a row together, and a score.
        truth: the same id, and a number or a boolean. Where all of them are 0 and 1 (or booleans)
            the truth is binary.
        id: column, or columns, that name a row of the pairs.
        score: column of the scores.
        label: column of the truth's number.
        truth_id: column, or columns, that name a row of the truth. None: those of the pairs.
        slices: as for `judge_classification`.
        bootstrap: as for `judge_classification`.
        worst: rows of the table of that name.
        compared: the pairs of all runs that are to be compared, in the same order for each: slices
            are columns of the truth or else of the first.

    Raises:
        InvalidInput: tables that do not fit each other, or ids that occur twice.
    """
    joined = _join(
        pairs,
        truth,
        id,
        truth_id or id,
        score=score,
        label=label,
        slices=slices,
        sliced=compared[0] if compared else pairs,
    )

    def find(judged: DataFrame) -> Findings:
        facts = judged.agg(
            F.coalesce(F.bool_and(F.col("truth").isin(0.0, 1.0)), F.lit(False)),
            *(function(name) for name in ("score", "truth") for function in (F.avg, F.stddev)),
        ).collect()[0]
        binary = bool(facts[0])
        rows = judged.select(every_slice(judged), "key", "score", "truth")
        totals = by_group(rows, ("slice",), partial(judge_pairs, binary), bootstrap)
        apart = F.abs(_standard("score", *facts[1:3]) - _standard("truth", *facts[3:5]))
        far = judged.select("id", "truth", "score", apart.alias("deviation"))
        tables = {"worst": worst_rows(far, F.desc("deviation"), worst)}
        if binary:
            points = curve_rows(totals.classes.get(0, np.zeros(0)).reshape(-1, 3))
            tables["precision_recall"] = curve_table(judged.sparkSession, points)
        value = F.col("score")
        answers = answers_of(judged, F.col("truth"), value, value)
        return Findings(_figures(totals), tables, answers)

    return judge_rows("similarity", joined, slices, find, lost=(_NO_SCORE, _BAD_SCORE))


def _standard(name: str, mean: float | None, deviation: float | None) -> Column:
    return (F.col(name) - F.lit(mean or 0.0)) / F.lit(deviation or 1.0)


def _key(table: DataFrame, id: str | Sequence[str], shown: str) -> tuple[Column, list[DataType]]:
    names = [id] if isinstance(id, str) else list(id)
    columns = [column(table, name) for name in names]
    kinds = [field.dataType for field in table.select(*columns).schema]
    for name, kind in zip(names, kinds, strict=True):
        check_id(kind, name, shown)
    if len(columns) == 1:
        return columns[0], kinds
    parts = [
        (each.cast("bigint") if isinstance(kind, IntegralType) else each).alias(f"id_{number}")
        for number, (each, kind) in enumerate(zip(columns, kinds, strict=True))
    ]
    return F.struct(*parts), kinds


def _join(
    pairs: DataFrame,
    truth: DataFrame,
    id: str | Sequence[str],
    truth_id: str | Sequence[str],
    *,
    score: str,
    label: str,
    slices: Sequence[str],
    sliced: DataFrame,
) -> DataFrame:
    """id, key, score double, truth double, reason, slice_0 …; see `judge_similarity`.

    sliced: has the slice columns that the truth has not.
    """
    key, kinds = _key(pairs, id, "the pairs")
    true_key, true_kinds = _key(truth, truth_id, "the truth")
    if len(kinds) != len(true_kinds):
        raise InvalidInput(f"an id is {len(kinds)} columns of the pairs and {len(true_kinds)} here")
    for one, other in zip(kinds, true_kinds, strict=True):
        check_can_be_equal(one, other, "the ids of pairs and truth")
    for table, name, shown in ((pairs, score, "score"), (truth, label, "truth")):
        kind = table.select(column(table, name)).schema[0].dataType
        if not isinstance(kind, NumericType | BooleanType):
            raise InvalidInput(f"the {shown} column {name} is {kind.simpleString()}, not a number")
    given = pairs.select(
        key.alias("id"),
        column(pairs, score).cast("double").alias("score"),
        F.lit(True).alias("scored"),
    )
    known = truth.select(
        true_key.alias("id"),
        column(truth, label).cast("double").alias("truth"),
        F.lit(True).alias("known"),
        *slice_columns(truth, slices).values(),
    )
    for table, shown in ((given, "the pairs"), (known, "the truth")):
        check_once(table, "id", shown)
    known = join_slices(known, sliced, _key(sliced, id, "the pairs")[0], slices)
    rows = known.join(given, "id", "full_outer")
    check_slices(rows, slices)
    reason = (
        F.when(F.col("known").isNull(), NO_TRUTH)
        .when(~_finite("truth"), _BAD_TRUTH)
        .when(F.col("scored").isNull(), _NO_SCORE)
        .when(~_finite("score"), _BAD_SCORE)
    )
    return rows.select(
        *("id", key_of(rows).alias("key"), "score", "truth", reason.alias("reason")),
        *filled_slices(slices),
    )


def _finite(name: str) -> Column:
    value = F.col(name)
    return F.coalesce(~F.isnan(value) & (F.abs(value) != F.lit(float("inf"))), F.lit(False))


def _figures(totals: Totals) -> list[Figure]:
    found = {name: (n, values.view(np.float64)) for (_, name, n), values in totals.sums.items()}
    found.setdefault(ALL, (0, np.full((len(FIGURES), totals.columns), np.nan)))
    return [
        Figure(
            metric,
            name,
            found[name][1][position],
            found[name][0],
            totals.groups,
            _RANGES.get(metric, (0.0, 1.0)),
        )
        for name in totals.slices()
        for position, metric in enumerate(FIGURES)
    ]
