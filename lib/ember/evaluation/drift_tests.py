"""The tests of a judgment of drift, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ember.evaluation.result import Figure, Issue, none_for_nan
from ember.worker.metrics.many_tests import holm

__all__ = ["TEST_COLUMNS", "DriftTest", "Found", "test_rows"]

TEST_COLUMNS: Mapping[str, type] = {
    "test": str,
    "method": str,
    "statistic": float,
    "p_value": float,
    "adjusted_p_value": float,
    "drift": bool,
    "reference_rows": int,
    "current_rows": int,
}


@dataclass(frozen=True)
class DriftTest:
    """One test of a run. statistic: NaN, as the p-value, where a table has no rows for it.

    n: the rows of the reference and of the current table.
    """

    name: str
    method: str
    statistic: float
    p_value: float
    n: tuple[int, int]


@dataclass(frozen=True)
class Found:
    """What is found of a part: figures, tests, the rows of tables by name, what was left out."""

    figures: Sequence[Figure] = ()
    tests: Sequence[DriftTest] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    issues: Sequence[Issue] = ()


def test_rows(tests: Sequence[DriftTest], false_alarms: float) -> list[dict[str, Any]]:
    """A row of `TEST_COLUMNS` for each test.

    false_alarms: with at most this probability any of them says drift where there is none, however
        many they are (Holm). Without a p-value there is no answer: drift is null.
    """
    known = [each for each in tests if not np.isnan(each.p_value)]
    adjusted = holm(np.array([each.p_value for each in known]))
    of_test = dict(zip((each.name for each in known), adjusted.tolist(), strict=True))
    return [
        {
            "test": each.name,
            "method": each.method,
            "statistic": none_for_nan(each.statistic),
            "p_value": none_for_nan(each.p_value),
            "adjusted_p_value": of_test.get(each.name),
            "drift": of_test[each.name] <= false_alarms if each.name in of_test else None,
            "reference_rows": each.n[0],
            "current_rows": each.n[1],
        }
        for each in tests
    ]
