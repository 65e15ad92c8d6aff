"""Small tables that reports of classes share: figures by class, and points of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from ember.evaluation.result import none_for_nan, table

__all__ = ["class_table", "curve_table", "with_ends"]

_COUNTS = ("tp", "support", "predicted")
_POINT = {"threshold": float, "recall": float, "precision": float}


def class_table(
    spark: SparkSession,
    heading: str,
    names: Sequence[Any],
    numbers: Mapping[int, np.ndarray],
    figures: Sequence[str],
) -> DataFrame:
    """A row for each class: its name under `heading`, tp, support, predicted, and the figures.

    numbers: by position in `names`, (3 + 3F,): the counts, and of each figure its value and the
        ends of its interval.
    """
    rows = []
    for code, each in sorted(numbers.items()):
        counts, of_figures = each[:3], each[3:].reshape(-1, 3)
        row: dict[str, Any] = {heading: str(names[code])}
        row |= {name: int(count) for name, count in zip(_COUNTS, counts, strict=True)}
        for name, values in zip(figures, of_figures, strict=True):
            row |= with_ends(name, values)
        rows.append(row)
    kinds = {name + end: float for name in figures for end in ("", "_low", "_high")}
    return table(spark, rows, **{heading: str}, **dict.fromkeys(_COUNTS, int), **kinds)


def with_ends(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """A figure and the ends of its interval, as columns of a table."""
    ends = zip(("", "_low", "_high"), values, strict=True)
    return {name + end: none_for_nan(value) for end, value in ends}


def curve_table(spark: SparkSession, rows: Sequence[Mapping[str, Any]], **named: type) -> DataFrame:
    """Points of curves, as `ember.worker.metrics.curves.curve_rows` gives them."""
    return table(spark, rows, **named, **_POINT)
