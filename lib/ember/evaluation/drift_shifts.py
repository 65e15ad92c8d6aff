"""How far the scores and the labels of two tables are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.evaluation.drift_rows import SIDES, Pair
from ember.evaluation.drift_tests import DriftTest, Found
from ember.evaluation.joining import class_list
from ember.evaluation.judgment import Totals, sum_rows
from ember.evaluation.result import Figure
from ember.spark.older_versions import as_arrow
from ember.worker.drift import shifts
from ember.worker.drift.tasks import ShiftSums
from ember.worker.metrics.sums import ALL

__all__ = ["scores_and_labels"]

_MOST_VALUES = 256
"""Scores of more different values are counted in so many groups of about equal size."""
_SAMPLED = 10_000  # scores of each table that say where those groups are

Counts = tuple[np.ndarray, np.ndarray]
_SCORE_FIGURES = ("score_ks", "score_wasserstein", "score_psi")
_LABEL_FIGURES = ("label_total_variation", "label_jensen_shannon")
_FORMULAS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "score_ks": shifts.ks,
    "score_psi": shifts.psi,
    "label_total_variation": shifts.total_variation,
    "label_jensen_shannon": shifts.jensen_shannon,
}


def scores_and_labels(pair: Pair, replicates: int) -> Found:
    """Figures and tests of the scores and the labels: see `ember.worker.drift.shifts`."""
    parts = [name for name in ("score", "label") if name in pair.parts]
    if not parts:
        return Found()
    rows = pair.rows.select("key", "slice_0", *parts)
    groups = _groups(pair.rows) if "score" in parts else None
    labels = class_list(pair.rows.select("label")) if "label" in parts else None
    names = None if labels is None else pa.array(labels, pa.string())
    judge = ShiftSums(None if groups is None else groups[0], names)
    totals = sum_rows(rows, judge.add, replicates)
    figures: list[Figure] = []
    tests: list[DriftTest] = []
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    if groups is not None:
        counts = _counts(totals, "score", len(groups[1]))
        figures += _figures(_SCORE_FIGURES, counts, totals, values=groups[1])
        tests.append(_test("scores", "Kolmogorov-Smirnov, by permutations", shifts.ks, counts))
        tables["scores"] = _score_rows(groups[1], counts)
    if labels is not None:
        counts = _counts(totals, "label", len(labels))
        figures += _figures(_LABEL_FIGURES, counts, totals)
        tests.append(_test("labels", "chi-square, by permutations", shifts.chi_square, counts))
        tables["labels"] = _label_rows(labels, counts)
    return Found(figures, tests, tables)


def _groups(rows: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of groups of scores (K,), and what stands for the scores of each (K,).

    Every value where there are few; else quantiles of a sample of both tables, drawn by the hashes
    of the ids, and the means of the sample between them.
    """
    scores = rows.filter(F.col("score").isNotNull() & (F.abs("score") < F.lit(math.inf)))
    few = scores.select("score").distinct().limit(_MOST_VALUES + 1).collect()
    if len(few) <= _MOST_VALUES:
        values = np.array(sorted({row[0] + 0.0 for row in few}), float)
        return values, values
    drawn = [
        scores.filter(F.col("side") == side).orderBy("key").limit(_SAMPLED).select("score")
        for side in range(len(SIDES))
    ]
    sample = np.sort(np.concatenate([as_arrow(each)["score"].to_numpy() for each in drawn]))
    places = np.ceil(len(sample) * np.arange(1, _MOST_VALUES + 1) / _MOST_VALUES).astype(int) - 1
    bounds = np.unique(sample[places])
    group = np.searchsorted(bounds, sample)
    return bounds, np.bincount(group, sample) / np.bincount(group)


def _counts(totals: Totals, section: str, items: int) -> Counts:
    """Of each table, the rows of each item: (K, 1 + B + G); one of none where there is no item."""
    one, other = (
        np.stack([totals.of(section, side, 1, item)[0] for item in range(max(items, 1))])
        for side in SIDES
    )
    return one, other


def _figures(
    names: Sequence[str], counts: Counts, totals: Totals, values: np.ndarray | None = None
) -> list[Figure]:
    n = min(int(each[:, 0].sum()) for each in counts)
    found = []
    for name in names:
        if not n:
            figure = np.full(totals.columns, np.nan)
        elif values is not None and name == "score_wasserstein":
            figure = shifts.wasserstein(values, *counts)
        else:
            figure = _FORMULAS[name](*counts)
        most = math.inf if name in ("score_wasserstein", "score_psi") else 1.0
        found.append(Figure(name, ALL, figure, n, totals.groups, (0.0, most)))
    return found


def _test(
    name: str,
    method: str,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    counts: Counts,
) -> DriftTest:
    one, other = (each[:, 0] for each in counts)
    value, p_value = shifts.permutation_test(statistic, one, other)
    return DriftTest(name, method, value, p_value, (int(one.sum()), int(other.sum())))


def _shares(counts: Counts) -> list[list[float | None]]:
    totals = [int(each[:, 0].sum()) for each in counts]
    return [
        [float(x) / n if n else None for x in each[:, 0]]
        for each, n in zip(counts, totals, strict=True)
    ]


def _score_rows(values: np.ndarray, counts: Counts) -> list[dict[str, Any]]:
    """Of each value, the rows of both tables that have it."""
    return [
        {"score": float(value), "reference": int(one), "current": int(other)}
        for value, one, other in zip(values, counts[0][:, 0], counts[1][:, 0], strict=False)
    ]


def _label_rows(labels: Sequence[str], counts: Counts) -> list[dict[str, Any]]:
    """Of each label, its rows and their shares; those that moved most first."""
    one, other = _shares(counts)
    rows = [
        {
            "label": label,
            "reference": int(counts[0][place, 0]),
            "current": int(counts[1][place, 0]),
            "reference_share": one[place],
            "current_share": other[place],
            "difference": None
            if one[place] is None or other[place] is None
            else (other[place] or 0.0) - (one[place] or 0.0),
        }
        for place, label in enumerate(labels)
    ]
    return sorted(rows, key=lambda row: (-abs(row["difference"] or 0.0), row["label"]))
