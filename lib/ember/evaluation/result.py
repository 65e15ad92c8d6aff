"""What an evaluation gives: figures with intervals, tables, and the rows it could not judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from ember.errors import InvalidConfig, RequirementNotMet
from ember.evaluation.slice_tests import SLICE_COLUMNS, slice_rows
from ember.spark.failed_rows import refuse_failures
from ember.spark.older_versions import from_arrow
from ember.worker.metrics.intervals import interval, smallest_difference
from ember.worker.metrics.sums import ALL

__all__ = [
    "LESS_IS_BETTER",
    "Evaluation",
    "Figure",
    "Issue",
    "check_requirements",
    "none_for_nan",
    "table",
]

LESS_IS_BETTER = frozenset(
    {"ece", "hamming_loss", "embedding_mmd2", "score_ks", "score_wasserstein", "score_psi"}
    | {"label_total_variation", "label_jensen_shannon"}
)
_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    list: pa.list_(pa.string()),
}


@dataclass(frozen=True)
class Figure:
    """One figure of one slice, over n rows (queries, pairs).

    Attributes:
        values: (1 + B + G,) float64, the figure on the sample, on its bootstrap replicates and
            without each group of the jackknife; NaN where it is undefined.
        groups: G.
        within: what values it can have.
    """

    metric: str
    slice: str
    values: np.ndarray
    n: int
    groups: int = 0
    within: tuple[float, float] = (0.0, 1.0)

    @property
    def value(self) -> float | None:
        return none_for_nan(self.values[0])

    @property
    def low(self) -> float | None:
        """The lower end of the 95% interval."""
        return none_for_nan(self._interval[0])

    @property
    def high(self) -> float | None:
        """The upper end of the 95% interval."""
        return none_for_nan(self._interval[1])

    @property
    def smallest_difference(self) -> float | None:
        """See `ember.worker.metrics.intervals.smallest_difference`."""
        return none_for_nan(smallest_difference(self.values, self.groups))

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return interval(self.values, self.groups, within=self.within)

    def as_row(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "slice": self.slice,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "smallest_difference": self.smallest_difference,
        }


@dataclass(frozen=True)
class Issue:
    """Rows that were left out or could not be judged on their merits, and a few of their ids."""

    reason: str
    rows: int
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """A report of one kind.

    Attributes:
        figures: for the whole (slice "all") first, then by slice.
        tables: Spark DataFrames by name, in the form in which they are written, without `figures`
            and `issues`.
        rows: the judged rows (id, truth string, answer string, outcome double, slices
            array<string>, the names of its slices); `outcome` is what a comparison of two runs
            looks at.
        unusable: (id, reason) of the rows without a usable prediction, which were judged as wrong,
            and of those left out.
        total, failed: how many rows there are in the truth, and how many of them could not be
            judged on their merits.
        lists: of a retrieval, the documents and their gains by query (id, documents, gains).
        match: of classes, whether the truth is compared with labels or with indices.
        tests: of drift, the rows of the table of that name.
    """

    kind: str
    figures: Sequence[Figure]
    tables: Mapping[str, DataFrame]
    issues: Sequence[Issue]
    rows: DataFrame
    unusable: DataFrame
    total: int
    failed: int
    held: Sequence[DataFrame] = field(default=(), repr=False)
    lists: DataFrame | None = field(default=None, repr=False)
    match: Literal["label", "index"] | None = None
    tests: Sequence[Mapping[str, Any]] = ()

    def figure(self, metric: str, slice: str = ALL) -> Figure:
        """The figure `metric` of a slice. Raises InvalidConfig that lists those there are."""
        for each in self.figures:
            if (each.metric, each.slice) == (metric, slice):
                return each
        known = ", ".join(dict.fromkeys(each.metric for each in self.figures))
        raise InvalidConfig(f"there is no figure {metric} of slice {slice}; figures are {known}")

    def headline(self) -> dict[str, Any]:
        """The figures of the whole as plain numbers, for a manifest."""
        found = {}
        for row in (each.as_row() for each in self.figures if each.slice == ALL):
            found[row["metric"]] = {k: v for k, v in row.items() if k not in ("metric", "slice")}
        return found

    @cached_property
    def slices(self) -> list[dict[str, Any]]:
        """How each slice differs from the whole; see `ember.evaluation.slice_tests`."""
        return slice_rows(self.figures)

    def all_tables(self, spark: SparkSession) -> dict[str, DataFrame]:
        """Every table of the report by name, figures and issues included."""
        figures = table(
            spark,
            [each.as_row() for each in self.figures],
            metric=str,
            slice=str,
            value=float,
            low=float,
            high=float,
            n=int,
            smallest_difference=float,
        )
        issues = [{"reason": i.reason, "rows": i.rows, "ids": list(i.ids)} for i in self.issues]
        named = table(spark, issues, reason=str, rows=int, ids=list)
        sliced = {"slices": table(spark, self.slices, **SLICE_COLUMNS)} if self.slices else {}
        return {"figures": figures, **sliced, **self.tables, "issues": named}

    def refuse_failures(
        self, max_failed_fraction: float, keep: Callable[[DataFrame], str] | None = None
    ) -> None:
        """Raise TooManyFailures when more rows than that have no usable prediction.

        keep: keeps what is wrong with which row, (id, reason), and says where; None where nothing
        is published.
        """
        reasons = "; ".join(
            f"{issue.rows} {issue.reason}"
            + (f" (such as {', '.join(issue.ids)})" * bool(issue.ids))
            for issue in self.issues
        )
        refuse_failures(
            self.failed,
            self.total,
            max_failed_fraction,
            f"rows cannot be judged ({reasons})",
            partial(keep, self.unusable.coalesce(1)) if keep else None,
            otherwise=" to have them counted as wrong",
        )

    def unmet(self, require: Mapping[str, float | str]) -> list[str]:
        """A clause for each figure that is not as good as required, or is undefined.

        With `{"drift": "none"}` also one for each test that finds drift or has no answer.
        """
        clauses = []
        for name, wanted in require.items():
            if isinstance(wanted, str):
                clauses += [_drifted(test) for test in self.tests if test["drift"] is not False]
                continue
            row = self.figure(name).as_row()
            less = _less_is_better(name)
            word = "above" if less else "below"
            if row["value"] is None:
                clauses.append(f"{name} is undefined for these rows and {wanted:g} is required")
            elif row["value"] > wanted if less else row["value"] < wanted:
                ends = (
                    "" if row["low"] is None else f" (95%: {row['low']:.4g} to {row['high']:.4g})"
                )
                clauses.append(
                    f"{name} is {row['value']:.6g}{ends}, {word} the required {wanted:g}"
                )
        return clauses

    def refuse_shortfall(self, require: Mapping[str, float | str], path: str) -> None:
        """Raise RequirementNotMet that names the figures and where the report is."""
        clauses = self.unmet(require)
        if clauses:
            raise RequirementNotMet("; ".join(clauses) + f". The report is at {path}")

    def release(self) -> None:
        """Free what the cluster holds for the tables; they cannot be read quickly afterwards."""
        for each in self.held:
            each.unpersist()


def check_requirements(
    require: Mapping[str, float | str], known: Iterable[str], tested: bool = False
) -> None:
    """Raise InvalidConfig for a required figure that the report will not have.

    tested: whether the report has tests of drift, of which none can be required.
    """
    known = [*known, *(["drift"] if tested else [])]
    for name, wanted in require.items():
        if (name == "drift") != isinstance(wanted, str) and name in known:
            right = "{drift: none}" if name == "drift" else f"{name}: a number"
            raise InvalidConfig(f"require: {name} is {wanted}; write {right}")
        if name not in known:
            raise InvalidConfig(
                f"require: there is no figure {name}; figures here: {', '.join(known)}"
            )
        if not isinstance(wanted, str) and not math.isfinite(wanted):
            raise InvalidConfig(f"require: {name} is {wanted}; give a number")


def table(spark: SparkSession, rows: Sequence[Mapping[str, Any]], /, **columns: type) -> DataFrame:
    """A small table made on the driver, in one partition; any value may be null."""
    schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
    # From Arrow, which needs no Python worker.
    return from_arrow(spark, pa.Table.from_pylist(list(rows), schema)).coalesce(1)


def _drifted(test: Mapping[str, Any]) -> str:
    if test["drift"] is None:
        return f"{test['test']}: a table has no rows to test, and no drift is required"
    return (
        f"{test['test']} drifted (p = {test['p_value']:.4g}, {test['adjusted_p_value']:.4g} among "
        "all tests), and no drift is required"
    )


def _less_is_better(name: str) -> bool:
    return name in LESS_IS_BETTER or name.split("_", 1)[-1] in LESS_IS_BETTER


def none_for_nan(value: float) -> float | None:
    """`value` as tables hold it: undefined is null."""
    return None if np.isnan(value) else float(value)
