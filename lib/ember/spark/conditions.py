"""Conditions and values in SQL of the rows of a table: checked, since rows are read again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import AtomicType

from ember.errors import InvalidInput
from ember.spark import classic
from ember.spark.explain import first_line
from ember.spark.older_versions import query_context_logger

__all__ = ["value", "where"]

# Classes of Spark's expressions that read tables, and that are no function of a row.
_SUBQUERIES = {"ScalarSubquery", "Exists", "InSubquery", "ListQuery", "LateralSubquery"}
_OUTSIDE = re.compile("Current|Now$|Local|VariableReference$|SparkVersion$")
# Dates that Spark's parser takes for that of the day on which it reads them.
_MOVING = re.compile(
    r"\b(?:date|timestamp\w*)\s*'\s*(?:now|today|tomorrow|yesterday)\b", re.IGNORECASE
)


def where(table: DataFrame, condition: str, shown: str) -> DataFrame:
    """The rows of `table` for which a condition in SQL is true; where it is null, it is not.

    Raises:
        InvalidInput: what is no condition on the table's columns; one that may answer otherwise
            when a row is read again, as all rows are; one that reads another table, of which the
            manifest would not know. The message names the table `shown`.
    """
    given = f"{shown}: where is {condition!r}"
    chosen = _analyzed(
        table,
        condition,
        table.filter,
        subquery=f"{given}, which has a subquery; a condition is on the row alone: write what it "
        "asks for into a column first",
        unfit=f"{given}, and that is no condition on its rows",
    )
    plan = classic.analyzed_plan(chosen)
    if not plan.deterministic():
        raise InvalidInput(
            f"{given}, which chooses other rows every time; divide rows by a hash of the id, as in "
            f"pmod(hash({table.columns[0]}), 2) = 0"
        )
    while plan.getClass().getSimpleName() != "Filter":
        plan = plan.children().apply(0)
    if _moves(condition, plan.condition()):
        raise InvalidInput(
            f"{given}, which depends on the time, the user or the session and so chooses other "
            "rows another time; write the value itself"
        )
    return chosen


def value(table: DataFrame, expression: str, shown: str) -> Column:
    """What an expression in SQL gives for each row of `table`: one value that has an order.

    Raises:
        InvalidInput: what is no such expression on the table's columns, may give another value when
            a row is read again, or looks at other rows. The message names the key `shown`.
    """
    given = f"{shown} is {expression!r}"
    alone = (
        f"{given}, which looks beyond the row; give a value of the row alone, such as a column's"
    )
    unfit = f"{given}, and that is no value of its rows"
    chosen = _analyzed(table, expression, table.select, subquery=alone, unfit=unfit)
    plan = classic.analyzed_plan(chosen)
    # Spark plans aggregates otherwise, and windows and generators below the projection.
    read = classic.analyzed_plan(table)
    if plan.getClass().getSimpleName() != "Project" or not plan.child().fastEquals(read):
        raise InvalidInput(alone)
    if len(chosen.columns) != 1:
        raise InvalidInput(f"{given}, which is several columns; give one value")
    if _moves(expression, plan.projectList().apply(0)) or not plan.deterministic():
        raise InvalidInput(
            f"{given}, which may be another value another time; give one that depends on the row"
        )
    kind = chosen.schema[0].dataType
    if not isinstance(kind, AtomicType):
        raise InvalidInput(f"{given}, which is {kind.simpleString()}; give one value with an order")
    return F.expr(expression)


def _analyzed(
    table: DataFrame,
    sql: str,
    choose: Callable[[Column], DataFrame],
    *,
    subquery: str,
    unfit: str,
) -> DataFrame:
    """What `choose` makes of an expression in SQL on the rows of `table`.

    Raises:
        InvalidInput: with `subquery` where it has one; with `unfit` where Spark does not take it.
    """
    try:
        with _spark_silent():
            parsed = classic.parsed_expression(table.sparkSession, sql)
            if any(kind in _SUBQUERIES for kind in _kinds(parsed)):
                raise InvalidInput(subquery)
            chosen = choose(F.expr(sql))
            classic.analyzed_plan(chosen)
    except PySparkException as error:
        reason = re.sub(r"^\[[\w.]+\] | SQLSTATE: .*$", "", first_line(error))
        raise InvalidInput(f"{unfit}: {reason}") from None
    return chosen


def _moves(sql: str, expression: Any) -> bool:
    """May an expression, analyzed, have another value for the same row another time?"""
    return bool(_MOVING.search(sql)) or any(_OUTSIDE.match(kind) for kind in _kinds(expression))


def _kinds(expression: Any) -> Iterator[str]:
    """The classes of an expression of Spark's, and of all within it."""
    yield expression.getClass().getSimpleName()
    children = expression.children()
    for number in range(children.size()):
        yield from _kinds(children.apply(number))


@contextmanager
def _spark_silent() -> Iterator[None]:
    """Silence the JSON that Spark logs for an error in SQL; the message here says it."""
    logger = query_context_logger()
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
