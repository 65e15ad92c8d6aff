"""Truth and predictions on one row: checked, joined by id, and what does not fit counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    FractionalType,
    IntegralType,
    StringType,
    StructType,
)

from ember.errors import InvalidInput
from ember.evaluation.matching import MOST_CLASSES, Match, Matching, as_labels, match_integers
from ember.evaluation.result import Issue
from ember.evaluation.slices import check_slices, filled_slices, join_slices, slice_columns
from ember.spark.ids import check_can_be_equal, check_id, text_of
from ember.spark.tables import check_unique, column

__all__ = [
    "NO_TRUTH",
    "WRONG",
    "Joined",
    "check_ids",
    "check_once",
    "class_list",
    "in_order",
    "issues_of",
    "join_predictions",
    "key_of",
    "select_truth",
]

NO_TRUTH = "without a truth, left out"
NULL_TRUTH = "with a null truth, left out"
OUTSIDE = "with a truth outside the class list, left out"
NO_PREDICTION = "without a prediction, counted as wrong"
FAILED = "with a failed prediction, counted as wrong"
BAD_SCORE = "with a score that is null or NaN, counted as wrong"
NO_LABEL = "with a prediction that has no label, counted as wrong"
NO_ORDER = "with predictions that are not best first, counted as wrong"
# Why a row is judged as wrong; one with another reason is left out.
WRONG = (NO_PREDICTION, FAILED, BAD_SCORE, NO_LABEL, NO_ORDER)
_NAMED = 5
_LABELS = (StringType, IntegralType, BooleanType, DateType)


def key_of(rows: DataFrame) -> Column:
    """The hash of the column id from which its bootstrap weights are drawn: xxhash64, long.

    Integers of any width have the same one, so that runs can be compared.
    """
    whole = isinstance(rows.schema["id"].dataType, IntegralType)
    return F.xxhash64(F.col("id").cast("bigint") if whole else "id")


def check_ids(table: DataFrame, id: str, shown: str) -> None:
    """Raise InvalidInput, naming the table `shown`, unless ids are single values, each once."""
    check_id(table.select(column(table, id)).schema[0].dataType, id, shown)
    check_once(table, id, shown)


def check_once(table: DataFrame, id: str, shown: str) -> None:
    """Raise InvalidInput, naming the table `shown`, for ids that occur more than once."""
    try:
        check_unique(table, id)
    except InvalidInput as error:
        raise InvalidInput(f"{shown}: {error}") from None


def select_truth(
    truth: DataFrame, id: str, label: str, slices: Sequence[str], many: bool
) -> DataFrame:
    """The truth as (id, truth, slice_0 …), checked.

    many: the labels are arrays, which lose nulls and repeated labels. Slices that are not in the
    table are left to the predictions.

    Raises:
        InvalidInput: columns or types that cannot serve, or ids that occur twice.
    """
    kind = truth.select(column(truth, label)).schema[0].dataType
    if isinstance(kind, ArrayType) != many:
        raise InvalidInput(
            f"the truth's column {label} is {kind.simpleString()}; "
            + (
                "a multilabel truth is array<string> or array<int>"
                if many
                else "with several labels a row, use kind: multilabel"
            )
        )
    if not isinstance(_element(kind), _LABELS):
        raise InvalidInput(
            f"the truth's column {label} is {kind.simpleString()}; give labels (string), which are "
            "compared with the predictions' label, or integers, compared with label or index; "
            "cast it to one of them"
        )
    value = column(truth, label)
    if many:
        value = F.array_distinct(F.array_compact(value))
    check_ids(truth, id, "the truth")
    return truth.select(
        column(truth, id).alias("id"), value.alias("truth"), *slice_columns(truth, slices).values()
    )


@dataclass(frozen=True)
class Joined:
    """A table of predictions and its truth.

    Attributes:
        rows: id, key long (the hash of the id that makes the bootstrap weights), truth (a label, or
            an array of them), labels (array of the labels predicted, best first; null without a
            usable prediction), reason (null for a row as it should be), slice_0, …; with several
            labels a row also scores array<double>, with one also score double, of the first label,
            and length int, of the whole list. Labels are strings, or bigint where they are indices.
        classes: the class list asked for, as labels are in the rows.
        matching: what of a prediction the truth is compared with.
    """

    rows: DataFrame
    classes: list[Any] | None
    matching: Matching


def join_predictions(
    predictions: DataFrame,
    truth: DataFrame,
    *,
    id: str,
    predicted: str,
    truth_id: str,
    label: str,
    slices: Sequence[str],
    classes: Sequence[str] | Sequence[int] | None,
    match: Match,
    many: bool,
    first: int = 0,
    compared: Sequence[DataFrame] = (),
) -> Joined:
    """Join a table as `classify` writes it with the truth.

    match: what a truth of integers is compared with, see ember.evaluation.matching.
    many: whether a row has several labels. first: with one, how many of those predicted are kept.
    compared: as for `judge_classification`.

    Raises:
        InvalidInput: tables that do not fit.
    """
    runs = compared or (predictions,)
    known = select_truth(truth, truth_id, label, slices, many)
    element = _element(known.schema["truth"].dataType)
    matching = _matching(known, label, runs, predicted, match)
    _check_predictions(predictions, predicted, matching.field)
    listed: list[Any] | None = as_labels(classes, element)
    if matching.field == "index" and classes is not None:
        listed = list(classes)
    known = known.withColumn(
        "truth",
        F.transform("truth", lambda each: matching.of_truth(each, element))
        if many
        else matching.of_truth(F.col("truth"), element),
    )
    check_can_be_equal(
        predictions.select(column(predictions, id)).schema[0].dataType,
        known.schema["id"].dataType,
        "the ids of predictions and truth",
    )
    check_ids(predictions, id, "the predictions")
    known = join_slices(known, runs[0], column(runs[0], id), slices)
    given = _answers(predictions, id, predicted, matching, many=many, first=first)
    rows = known.withColumn("known", F.lit(True)).join(given, "id", "full_outer")
    check_slices(rows, slices)
    joined = rows.select(
        "id",
        key_of(rows).alias("key"),
        "truth",
        *(name for name in given.columns if name not in ("id", "answered", "fault")),
        _reason(listed, many).alias("reason"),
        *filled_slices(slices),
    )
    return Joined(joined, listed, matching)


def _element(kind: DataType) -> DataType:
    """The type of a label, where a column has one or a list."""
    return kind.elementType if isinstance(kind, ArrayType) else kind


def _matching(
    known: DataFrame, label: str, runs: Sequence[DataFrame], predicted: str, match: Match
) -> Matching:
    """What of the predictions the truth is compared with. Raises InvalidInput where it cannot be.

    known: as `select_truth` gives it. label: the column that its labels come from.
    """
    kind = known.schema["truth"].dataType
    if isinstance(_element(kind), IntegralType):
        each = known.select(F.explode("truth") if isinstance(kind, ArrayType) else "truth")
        return match_integers(runs, predicted, each, match)
    if match == "index":
        raise InvalidInput(
            f"match: index is for a truth of integers, and column {label} is "
            f"{kind.simpleString()}; leave it out"
        )
    return Matching("label")


def _answers(
    predictions: DataFrame, id: str, predicted: str, matching: Matching, *, many: bool, first: int
) -> DataFrame:
    """What a join takes of predictions: id, answered, fault, and what `Joined` says.

    fault: why they are not usable, null where they are. Nothing else of unusable ones is there.
    """
    value = column(predictions, predicted)
    rows = predictions.select(
        column(predictions, id).alias("id"),
        matching.of_predictions(value).alias("labels"),
        value["score"].cast("array<double>").alias("scores"),
    )
    labels, scores = F.col("labels"), F.col("scores")
    parts = {"labels": labels, "scores": scores}
    if not many:
        parts = {
            "labels": F.slice(labels, 1, first),
            "score": F.get(scores, F.lit(0)),
            "length": F.size(labels),
        }
    rows = rows.withColumn("fault", _fault(matching, many))
    usable = F.col("fault").isNull()
    kept = (F.when(usable, part).alias(name) for name, part in parts.items())
    return rows.select("id", F.lit(True).alias("answered"), "fault", *kept)


def _fault(matching: Matching, many: bool) -> Column:
    """What is wrong with the predictions of a row (labels, scores); null for nothing.

    Spark compiles it, as it would not compile a lambda.
    """
    labels = F.col("labels")
    # The answer is null where the value is not found and a null is; NaN equals itself.
    bad_score = F.coalesce(F.array_contains("scores", F.lit(float("nan"))), F.lit(True))
    rare = F.lit("" if matching.field == "label" else -1)
    found = F.array_contains(labels, rare)
    bad_label = found.isNull() | (found & F.get(F.sort_array(labels), F.lit(0)).isNull())
    if many:
        bad_label |= F.size(F.array_distinct(labels)) != F.size(labels)
    else:
        bad_label |= F.size(labels) == 0
    return (
        F.when(labels.isNull(), FAILED)
        .when(bad_score, BAD_SCORE)
        .when(bad_label, NO_LABEL)
        .when(F.sort_array("scores", asc=False) != F.col("scores"), NO_ORDER)
    )


def _check_predictions(predictions: DataFrame, predicted: str, name: str) -> None:
    kind = predictions.select(column(predictions, predicted)).schema[0].dataType
    fields = kind.elementType if isinstance(kind, ArrayType) else None
    if not (
        isinstance(fields, StructType)
        and {name, "score"} <= set(fields.names)
        and isinstance(fields["score"].dataType, FractionalType)
        and isinstance(fields[name].dataType, StringType if name == "label" else IntegralType)
    ):
        raise InvalidInput(
            f"the predictions' column {predicted} is {kind.simpleString()}; it must be "
            "array<struct<index: int, label: string, score: float>>, as classify writes it"
        )


def _reason(classes: Sequence[Any] | None, many: bool) -> Column:
    """Why a row cannot be judged on its merits; null where it can."""
    reason = F.when(F.col("known").isNull(), NO_TRUTH).when(F.col("truth").isNull(), NULL_TRUTH)
    if classes is not None:
        listed = F.array(*(F.lit(each) for each in classes))
        inside = (
            F.forall("truth", lambda each: F.array_contains(listed, each))
            if many
            else F.array_contains(listed, F.col("truth"))
        )
        reason = reason.when(~inside, OUTSIDE)
    return reason.when(F.col("answered").isNull(), NO_PREDICTION).otherwise(F.col("fault"))


def issues_of(unusable: DataFrame) -> list[Issue]:
    """Count the rows (id, reason) by reason, and name the smallest ids of each."""
    counts = unusable.groupBy("reason").count().collect()
    if not counts:
        return []
    place = F.row_number().over(Window.partitionBy("reason").orderBy("id")).alias("place")
    kind = unusable.schema["id"].dataType
    smallest = unusable.select("reason", text_of(F.col("id"), kind).alias("name"), place)
    names: dict[str, list[str]] = {}
    for row in smallest.filter(F.col("place") <= _NAMED).orderBy("place").collect():
        names.setdefault(row["reason"], []).append(str(row["name"]))
    return [
        Issue(row["reason"], row["count"], tuple(names[row["reason"]]))
        for row in sorted(counts, key=lambda row: row["reason"])
    ]


def class_list(labels: DataFrame) -> list[Any]:
    """The different values of a table of one column, in order; nulls left out."""
    found = [row[0] for row in labels.distinct().dropna().limit(MOST_CLASSES + 1).collect()]
    if len(found) > MOST_CLASSES:
        raise InvalidInput(
            f"the truth and the predictions have more than {MOST_CLASSES} different labels; is "
            "the label column the right one?"
        )
    return in_order(found)


def in_order(labels: Iterable[Any]) -> list[Any]:
    """Labels without repeats, in order: numbers by size, also where they are written as texts."""
    found = sorted(set(labels))
    if all(isinstance(each, str) and re.fullmatch(r"-?[0-9]{1,18}", each) for each in found):
        found.sort(key=int)
    return found
