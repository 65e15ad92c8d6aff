"""Labeled rows: tables of features and labels joined by id, split, counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    AtomicType,
    BinaryType,
    DataType,
    DoubleType,
    FloatType,
    NumericType,
)

from ember.errors import InvalidInput
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.settings.training import SplitConfig
from ember.spark.dimensions import dimension_of
from ember.spark.ids import check_can_be_equal, check_id, text_of
from ember.spark.persisted import kept
from ember.spark.tables import check_unique, column
from ember.training.split import check_parts, draw_of, part_of
from ember.worker.finetune.rows import PARTS

__all__ = [
    "Examples",
    "gather",
    "select_labels",
]

_log = logging.getLogger(__name__)

_NO_LABEL = "features without label"
_NO_FEATURES = "label without features"
_RARE = "rare label"
_NAMED = 5
_LARGEST_FLOAT = 3.4028234663852886e38


@dataclass(frozen=True)
class Examples:
    """Usable rows, cached, and what there is to know about all rows.

    Attributes:
        rows: id, part, draw double in [0, 1), labels array<string>, f0, f1, … array<float>, null
            where the row lacks the table.
        failures: id, error: rows that should be usable and are not.
        labels: those of training rows; numbers by size, else by name.
        label_rows: training rows of each label.
        parts: dimension of each table. indicators: tables that some training rows lack.
        counts: rows by part, failed rows by reason, rows set aside, rows that lack a table, and the
            numbers of tables whose doubles were rounded to float32.
    """

    rows: DataFrame
    failures: DataFrame
    labels: tuple[str, ...]
    label_rows: tuple[int, ...]
    multilabel: bool
    parts: tuple[int, ...]
    indicators: tuple[int, ...]
    counts: dict[str, Any]
    _cached: DataFrame

    def forget(self) -> None:
        """Free the cached rows; whoever gathered them does, whatever happens."""
        self._cached.unpersist()

    @property
    def failed(self) -> int:
        return int(sum(self.counts["failed"].values()))

    @property
    def rows_by_part(self) -> dict[str, int]:
        out: dict[str, int] = self.counts["rows"]
        return out


def select_labels(table: DataFrame, id: str, label: str, split: SplitConfig) -> DataFrame:
    """`table` as (id, label, part or null, group or null).

    NaN, which pandas writes for a missing number, is a null label.

    Raises InvalidInput for a column that is not there, or a label that is no value or list.
    """
    rows = table.select(
        column(table, id).alias("id"),
        column(table, label).alias("label"),
        _text(table, split.column).alias("part"),
        _text(table, split.group).alias("group"),
    )
    kind = rows.schema["label"].dataType
    inner = kind.elementType if isinstance(kind, ArrayType) else kind
    if not isinstance(inner, AtomicType) or isinstance(inner, BinaryType):
        raise InvalidInput(
            f"the label column {label} is {kind.simpleString()}; a label is one value, such as a "
            "string or a number, or a list of them"
        )
    check_id(rows.schema["id"].dataType, id, "the labels")
    return rows.withColumn("label", _number_or_null(F.col("label"), kind))


def _text(table: DataFrame, name: str | None) -> Column:
    """A column as text; null where there is none."""
    if name is None:
        return F.lit(None).cast("string")
    value = column(table, name)
    return text_of(value, table.select(value).schema[0].dataType)


def _number_or_null(label: Column, kind: DataType) -> Column:
    """Labels without NaN, and with one zero."""
    if isinstance(kind, ArrayType):
        inner = kind.elementType
        return F.transform(label, lambda each: _number_or_null(each, inner))
    if not isinstance(kind, FloatType | DoubleType):
        return label
    zero = F.when(label == 0, F.lit(0).cast(kind)).otherwise(label)
    return F.when(~F.isnan(label), zero)


def gather(
    features: Sequence[DataFrame],
    labels: DataFrame,
    split: SplitConfig,
    *,
    min_rows: int = 1,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> Examples:
    """Join tables (id, embedding) with labels as `select_labels` gives them.

    A row needs a label and a vector in at least one of the tables. A row whose vector is null in
    one of several tables, or that is not in it, lacks that table. A vector of another length or
    with values that are not finite makes the row a failed one.

    Raises InvalidInput for ids that repeat or are of types that do not match, parts that are none
    of train, validation and test, and when the training rows do not have at least two labels (one,
    for a multi-label head).
    """
    _check_ids([*features, labels])
    parts = tuple(_dimension(table, n, max_failed_fraction) for n, table in enumerate(features))
    with kept(_join(features, labels, parts, split)) as joined:
        missing = [F.count_if(F.col(f"f{n}").isNull()).alias(f"f{n}") for n in range(len(parts))]
        counted = (
            joined.groupBy("reason", "part").agg(F.count("*").alias("rows"), *missing).collect()
        )
        check_parts(joined, split)
        counts = _counts([row.asDict() for row in counted], len(parts))
        usable = joined.filter("reason is null").drop("reason")
        multilabel = isinstance(labels.schema["label"].dataType, ArrayType)
        numeric = _numeric(labels)
        names, unseen, rare = _label_names(usable, min_rows, numeric)
        if rare and not multilabel:
            usable = usable.filter(~F.col("labels")[0].isin(rare))
            counts["rows"], counts[_RARE] = _without_rare(usable, counts["rows"])
        counts |= {"labels": len(names), "unseen_labels": unseen[:_NAMED], "rare_labels": len(rare)}
        counts["named"] = _named(joined, counts)
        if rounded := [n + 1 for n, table in enumerate(features) if _is_double(table)]:
            _log.warning("features tables %s are double, and are rounded to float32", rounded)
            counts["rounded_tables"] = rounded
        _check_learnable(names, counts["rows"], multilabel)
        (train,) = (row for row in counted if row["reason"] is None and row["part"] == "train")
        return Examples(
            rows=usable,
            failures=joined.filter(~F.col("reason").isin(_NO_LABEL, _NO_FEATURES)).select(
                "id", F.col("reason").alias("error")
            ),
            labels=tuple(names),
            label_rows=tuple(names.values()),
            multilabel=multilabel,
            parts=parts,
            indicators=_lacked(train, len(parts)),
            counts=counts,
            _cached=joined,
        )


def _lacked(train: Row, tables: int) -> tuple[int, ...]:
    """The tables, of several, that some training rows lack.

    train: how many training rows there are, and how many each table lacks.
    Raises InvalidInput for a table that lacks them all.
    """
    for n in range(tables):
        if train[f"f{n}"] == train["rows"]:
            raise InvalidInput(
                f"features table {n + 1} has none of the {train['rows']} training rows; "
                "check that its ids are those of the labels, or leave it out"
            )
    return tuple(n for n in range(tables) if tables > 1 and train[f"f{n}"])


def _is_double(table: DataFrame) -> bool:
    kind = table.schema["embedding"].dataType
    return isinstance(kind, ArrayType) and isinstance(kind.elementType, DoubleType)


def _check_ids(tables: Sequence[DataFrame]) -> None:
    shown = [*(f"features table {number + 1}" for number in range(len(tables) - 1)), "labels"]
    kinds = [table.schema["id"].dataType for table in tables]
    for name, kind in zip(shown, kinds, strict=True):
        check_can_be_equal(kind, kinds[-1], f"the ids of {name} and of the labels")
    for name, table in zip(shown, tables, strict=True):
        try:
            check_unique(table.filter("id is not null"), "id")
        except InvalidInput as error:
            raise InvalidInput(
                f"{name}: {error}; a row to learn from needs an id of its own"
            ) from None


def _dimension(table: DataFrame, number: int, max_failed_fraction: float) -> int:
    size = dimension_of(table, f"features table {number + 1}", max_failed_fraction)
    if not size:
        raise InvalidInput(f"features table {number + 1} has no vectors")
    return size


def _join(
    features: Sequence[DataFrame], labels: DataFrame, parts: Sequence[int], split: SplitConfig
) -> DataFrame:
    """All rows of all tables: id, part, draw, labels, f0, …, reason (null: usable)."""
    tables = [
        table.select("id", F.col("embedding").alias(f"f{n}"), F.lit(True).alias(f"has{n}"))
        for n, table in enumerate(features)
    ]
    both = reduce(lambda one, other: one.join(other, "id", "full"), tables)
    joined = both.join(labels.withColumn("has", F.lit(True)), "id", "full")
    key = F.coalesce(F.col("group"), text_of(F.col("id"), joined.schema["id"].dataType))
    vectors = [F.col(f"f{n}") for n in range(len(parts))]
    kind = labels.schema["label"].dataType
    inner = kind.elementType if isinstance(kind, ArrayType) else kind
    given = F.array_compact("label") if isinstance(kind, ArrayType) else F.array("label")
    return joined.select(
        "id",
        (F.col("part") if split.column else part_of(key, split)).alias("part"),
        draw_of(key, f"{split.seed}:fold").alias("draw"),
        F.transform(given, lambda label: text_of(label, inner)).alias("labels"),
        *(vector.cast("array<float>").alias(f"f{n}") for n, vector in enumerate(vectors)),
        _reason(vectors, parts, split).alias("reason"),
    )


def _reason(vectors: Sequence[Column], parts: Sequence[int], split: SplitConfig) -> Column:
    """Why a row is not usable."""
    anywhere = reduce(lambda a, b: a | b, (F.col(f"has{n}").isNotNull() for n in range(len(parts))))
    reason = F.when(F.col("has").isNull(), _NO_LABEL).when(~anywhere, _NO_FEATURES)
    reason = reason.when(F.col("label").isNull(), "null label")
    if split.column:
        reason = reason.when(F.col("part").isNull(), "null part")
    for vector, size in zip(vectors, parts, strict=True):
        reason = reason.when(vector.isNotNull() & (F.size(vector) != size), "wrong length")
        reason = reason.when(F.exists(vector, _is_no_number), "not finite")
        reason = reason.when(F.exists(vector, _is_beyond), "beyond float32")
    absent = reduce(lambda a, b: a & b, (vector.isNull() for vector in vectors))
    return reason.when(absent, "null embedding")


def _is_no_number(value: Column) -> Column:
    return value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))


def _is_beyond(value: Column) -> Column:
    return F.abs(value) > _LARGEST_FLOAT


def _counts(counted: list[dict[str, Any]], tables: int) -> dict[str, Any]:
    aside = dict.fromkeys((_NO_LABEL, _NO_FEATURES), 0)
    failed: dict[str, int] = {}
    rows, missing = dict.fromkeys(PARTS, 0), [0] * tables
    for row in counted:
        if row["reason"] is None:
            rows[row["part"]] = row["rows"]
            missing = [missing[n] + row[f"f{n}"] for n in range(tables)]
        else:
            kind = aside if row["reason"] in aside else failed
            kind[row["reason"]] = kind.get(row["reason"], 0) + row["rows"]
    counts: dict[str, Any] = {"rows": rows, "failed": dict(sorted(failed.items())), **aside}
    return {**counts, "lacking_table": missing} if tables > 1 else counts


def _numeric(labels: DataFrame) -> bool:
    kind = labels.schema["label"].dataType
    return isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, NumericType)


def _label_names(
    usable: DataFrame, min_rows: int, numeric: bool
) -> tuple[dict[str, int], list[str], list[str]]:
    """Labels and their training rows, labels that no training row has, labels that are too rare."""
    each = usable.select("part", F.explode(F.array_distinct("labels")).alias("label"))
    trains = F.count_if(F.col("part") == "train").alias("train")
    found = each.groupBy("label").agg(F.count("*").alias("rows"), trains).collect()
    found.sort(key=lambda row: (float(row["label"]) if numeric else 0.0, row["label"]))
    rare = [row["label"] for row in found if row["rows"] < min_rows]
    usual = [row for row in found if row["rows"] >= min_rows]
    names = {row["label"]: row["train"] for row in usual if row["train"]}
    return names, [row["label"] for row in usual if not row["train"]], rare


def _without_rare(usable: DataFrame, before: dict[str, int]) -> tuple[dict[str, int], int]:
    left = {row["part"]: row["count"] for row in usable.groupBy("part").count().collect()}
    rows = {part: left.get(part, 0) for part in PARTS}
    return rows, sum(before.values()) - sum(rows.values())


def _named(joined: DataFrame, counts: dict[str, Any]) -> dict[str, list[str]]:
    """Some ids of rows that are on one side only."""
    out = {}
    for reason in (_NO_LABEL, _NO_FEATURES):
        if counts[reason]:
            name = text_of(F.col("id"), joined.schema["id"].dataType).alias("id")
            chosen = joined.filter(F.col("reason") == reason).select(name)
            out[reason] = [row["id"] for row in chosen.orderBy("id").limit(_NAMED).collect()]
    return out


def _check_learnable(names: dict[str, int], rows: dict[str, int], multilabel: bool) -> None:
    if not rows["train"]:
        raise InvalidInput(
            "there are no training rows: no id has both a label and features in the training part; "
            "check that features and labels are of the same rows"
        )
    if len(names) < (1 if multilabel else 2):
        shown = f"only the label {next(iter(names))}" if names else "no label"
        raise InvalidInput(f"the {rows['train']} training rows have {shown}: nothing to learn")
