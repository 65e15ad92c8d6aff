"""Which slices differ from the whole, with a correction for how many were looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ember.worker.metrics.intervals import corrected, interval, standard_error
from ember.worker.metrics.many_tests import benjamini_hochberg, two_sided
from ember.worker.metrics.sums import ALL

if TYPE_CHECKING:
    from ember.evaluation.result import Figure

__all__ = ["FALSE_SHARE", "SLICE_COLUMNS", "slice_rows"]

FALSE_SHARE = 0.05
"""Of the slices that are said to differ, the share that does not, on average at most."""
SLICE_COLUMNS: Mapping[str, type] = {
    "metric": str,
    "slice": str,
    "n": int,
    "value": float,
    "whole": float,
    "difference": float,
    "low": float,
    "high": float,
    "p_value": float,
    "q_value": float,
    "differs": bool,
}


def slice_rows(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """A row of `SLICE_COLUMNS` for each figure of a slice that the whole has as well.

    A replicate weighs the rows of a slice as it weighs them in the whole: the difference is that of
    paired figures. It is tested less its bias, on its standard error, which is at least the one of
    as many rows drawn from the whole: a slice of three rows that are all right has none of its own.
    Of a figure, the p-values of all slices together become q-values (Benjamini-Hochberg); a slice
    differs where its own is at most `FALSE_SHARE`. Null where a figure is undefined or has no
    replicates, or where the whole is one slice.
    """
    whole = {each.metric: each for each in figures if each.slice == ALL}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in whole}
    for each in figures:
        if each.slice != ALL and each.metric in whole:
            rows[each.metric].append(_row(each, whole[each.metric]))
    for of_metric in rows.values():
        tested = [row for row in of_metric if row["p_value"] is not None]
        p = np.array([row["p_value"] for row in tested])
        for row, q in zip(tested, benjamini_hochberg(p).tolist(), strict=True):
            row |= {"q_value": q, "differs": q <= FALSE_SHARE}
    return [row for of_metric in rows.values() for row in of_metric]


def _row(part: Figure, whole: Figure) -> dict[str, Any]:
    values = part.values - whole.values
    least, most = part.within
    low, high = interval(values, part.groups, within=(least - most, most - least))
    numbers = {
        "value": part.values[0],
        "whole": whole.values[0],
        "difference": values[0],
        "low": low,
        "high": high,
        "p_value": _p_value(values, part, whole),
        "q_value": math.nan,
    }
    known = {name: None if np.isnan(each) else float(each) for name, each in numbers.items()}
    return {"metric": part.metric, "slice": part.slice, "n": part.n, **known, "differs": None}


def _p_value(values: np.ndarray, part: Figure, whole: Figure) -> float:
    """That of a difference (1 + B + G,) between a slice and the whole; NaN where there is none."""
    if not 0 < part.n < whole.n:
        return math.nan
    drawn = standard_error(whole.values, whole.groups) * math.sqrt(whole.n / part.n - 1)
    errors = [drawn, standard_error(values, part.groups)]
    if np.isnan(errors).any():
        return math.nan
    return two_sided(corrected(values, part.groups) / max(errors))
