"""The course of every judgment, from rows joined with their truth to an evaluation.

A kind of judgment brings three things: the join, which says of each row why it cannot be judged on
its merits, if it cannot; what becomes of the rows with each reason; and what it finds in the rows
that are judged. All else is here, the same for every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ember.evaluation.joining import issues_of
from ember.evaluation.result import Evaluation, Figure, Issue
from ember.evaluation.slices import few_slices, slices_of
from ember.spark.persisted import kept

__all__ = ["Findings", "answers_of", "judge_rows", "worst_rows"]


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
