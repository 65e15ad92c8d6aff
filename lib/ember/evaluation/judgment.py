"""The course of every judgment, from rows joined with their truth to an evaluation.

A kind of judgment brings three things: the join, which says of each row why it cannot be judged on
its merits, if it cannot; what becomes of the rows with each reason; and what it finds in the rows
that are judged. All else is here, the same for every kind.

Sums are made on the cluster: every partition adds up its rows, and the partial sums are merged by
key. The driver receives sums only: a vector of 1 + B numbers for each figure and slice, and three
figures for each class, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ember.evaluation.joining import issues_of
from ember.evaluation.result import Evaluation, Figure, Issue
from ember.evaluation.slices import few_slices, slices_of
from ember.spark import classic
from ember.spark.persisted import kept
from ember.spark.together import together
from ember.worker.metrics.partial_sums import (
    Batches,
    GroupJudge,
    Judge,
    add_rows,
    judge_groups,
    merge_into,
    merge_records,
    unpack,
)
from ember.worker.metrics.sums import ALL, CHUNK_ROWS, Held
from ember.worker.metrics.weights import GROUPS

__all__ = [
    "Findings",
    "Totals",
    "add_up",
    "answers_of",
    "by_group",
    "judge_rows",
    "sum_rows",
    "worst_rows",
]

_SCHEMA = "section string, slice string, item int, sums binary"


@dataclass(frozen=True)
class Findings:
    """What a kind finds in the rows that are judged; see `Evaluation` for the parts.

    Attributes:
        figures: the first is over all judged rows.
        answers: see `answers_of`.
        issues: beside the reasons of rows.
        held: what is freed with the evaluation.
    """

    figures: Sequence[Figure]
    tables: Mapping[str, DataFrame]
    answers: DataFrame
    issues: Sequence[Issue] = ()
    held: tuple[DataFrame, ...] = ()
    lists: DataFrame | None = None


def judge_rows(
    kind: str,
    joined: DataFrame,
    slices: Sequence[str],
    find: Callable[[DataFrame], Findings],
    *,
    wrong: Collection[str] = (),
    lost: Collection[str] = (),
    check: Callable[[DataFrame], None] | None = None,
    match: Literal["label", "index"] | None = None,
) -> Evaluation:
    """Judge rows of predictions and truth, joined.

    joined: id, key, reason (why a row cannot be judged on its merits; null where it can), slices,
        and what `find` reads; computed once. find: given the judged rows.
    wrong: reasons for which a row is judged all the same, as wrong. lost: those for which a row of
        the truth cannot be judged. Rows of both count as failed; any other reason leaves a row out.
    check: refuses rows, with InvalidInput.
    """
    with kept(joined) as rows:
        if check:
            check(rows)
        judged = rows.filter(F.col("reason").isNull() | F.col("reason").isin(*wrong))
        few_slices(judged, slices)
        unusable = rows.filter(F.col("reason").isNotNull()).select("id", "reason")
        issues = issues_of(unusable)
        found = find(judged)
        not_judged = _rows_with(issues, lost)
        return Evaluation(
            kind,
            found.figures,
            found.tables,
            [*issues, *found.issues],
            found.answers,
            unusable,
            total=found.figures[0].n + not_judged,
            failed=_rows_with(issues, wrong) + not_judged,
            held=(rows, *found.held),
            lists=found.lists,
            match=match,
        )


def _rows_with(issues: Sequence[Issue], reasons: Collection[str]) -> int:
    return sum(issue.rows for issue in issues if issue.reason in reasons)


def answers_of(rows: DataFrame, truth: Column, answer: Column, outcome: Column) -> DataFrame:
    """The judged rows as a comparison of two runs takes them; see `Evaluation.rows`."""
    return rows.select(
        "id",
        truth.cast("string").alias("truth"),
        answer.cast("string").alias("answer"),
        outcome.cast("double").alias("outcome"),
        F.array(*slices_of(rows)).alias("slices"),
    )


def worst_rows(rows: DataFrame, order: Column, most: int) -> DataFrame:
    """The first rows in an order, and then by id, in one file."""
    return rows.orderBy(order, "id").limit(most).coalesce(1)


@dataclass(frozen=True)
class Totals:
    """What the cluster added up, on the sample, on each of B replicates and without each group.

    Attributes:
        sums: (K, 1 + B + G) int64 by section, slice and item.
        classes: what came under the section "class", float64, by item; of classes see
            `merge_records`.
    """

    replicates: int
    sums: Held = field(default_factory=dict)
    classes: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Groups of the jackknife, G; none without replicates."""
        return GROUPS if self.replicates else 0

    @property
    def columns(self) -> int:
        return 1 + self.replicates + self.groups

    def slices(self) -> list[str]:
        """All rows first, then the slices by name."""
        names = {name for _, name, _ in self.sums} - {ALL}
        return [ALL, *sorted(names)]

    def of(self, section: str, name: str, values: int, item: int = 0) -> np.ndarray:
        """(values, 1 + B + G) int64; zeros where nothing was added."""
        empty = np.zeros((values, self.columns), np.int64)
        return self.sums.get((section, name, item), empty)


def sum_rows(
    rows: DataFrame, judge: Judge, replicates: int, chunk_rows: int = CHUNK_ROWS
) -> Totals:
    """Add up `judge` over all rows and replicates.

    rows: `key` long, a hash of the id; strings `slice_0`, `slice_1`, …; and what `judge` reads.
    judge: adds a chunk to the sums; see `merge_records` for what the section "class" is for.
    """
    totals = Totals(replicates)
    return add_up(
        rows, add_rows(judge, slices_of(rows), replicates, chunk_rows, totals.groups), totals
    )


def add_up(rows: DataFrame, adder: Batches, totals: Totals) -> Totals:
    """Add what `adder` makes of the rows, records as `Sums.drain` yields them, to `totals`."""
    # Few partial sums: a task takes as many partitions as it can.
    tasks = 2 * classic.cores(rows.sparkSession)
    partial = rows.coalesce(tasks).mapInArrow(adder, _SCHEMA)
    keys = ("section", "slice", "item")
    merged = together(partial, *keys).sortWithinPartitions(*keys)
    merger = merge_records(totals.replicates, totals.groups)
    return _received(merged.mapInArrow(merger, _SCHEMA), totals)


def by_group(rows: DataFrame, groups: Sequence[str], judge: GroupJudge, replicates: int) -> Totals:
    """Have `judge` see all rows of a group at once, in one task.

    The memory of that task bounds a group: the rows travel as they are, and are sorted there.
    judge: from the group's values and its rows to records, as `Sums.drain` yields them.
    """
    totals = Totals(replicates)
    ordered = together(rows, *groups).sortWithinPartitions(*groups)
    run = judge_groups(judge, groups, replicates, totals.groups)
    return _received(ordered.mapInArrow(run, _SCHEMA), totals)


def _received(records: DataFrame, totals: Totals) -> Totals:
    """Collect records (section, slice, item, sums), and add those of one key to `totals`."""
    for row in records.collect():
        if row["section"] == "class":
            totals.classes[row["item"]] = np.frombuffer(row["sums"], np.float64)
        else:
            key = (row["section"], row["slice"], row["item"])
            merge_into(totals.sums, key, unpack(row["sums"], totals.replicates, totals.groups))
    return totals
