"""Ids of any atomic type: when those of two tables can be equal, and how one is written as text."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import AtomicType, DataType, IntegralType, TimestampType

from ember.errors import InvalidInput

__all__ = ["check_can_be_equal", "check_id", "text_of"]


def check_id(kind: DataType, id: str, shown: str | None = None) -> None:
    """Raise InvalidInput unless the column `id` is of a type of single values.

    shown: the table, as the message names it, if it does.
    """
    if not isinstance(kind, AtomicType):
        of_table = f"{shown}: " if shown else ""
        raise InvalidInput(
            f"{of_table}the id column {id} is {kind.simpleString()}, not one value such as a "
            "string or a number"
        )


def check_can_be_equal(one: DataType, other: DataType, what: str) -> None:
    """Raise InvalidInput unless values of the two types can be equal.

    They can where they are of one type, or integers of any width. Spark would join others as well,
    and find 2^53 and 2^53 + 1 equal as an integer and a double.

    what: the two, as the message names them, such as "the ids of predictions and truth".
    """
    integers = isinstance(one, IntegralType) and isinstance(other, IntegralType)
    if one != other and not integers:
        raise InvalidInput(
            f"{what} are {one.simpleString()} and {other.simpleString()}; write both as one type"
        )


def text_of(value: Column, kind: DataType) -> Column:
    """An atomic value as Spark writes it, an instant as a session in UTC does.

    What is hashed or named by its text must not depend on the time zone of the session, in which
    Spark writes an instant, and writes two an hour apart the same when clocks are set back.
    """
    if isinstance(kind, TimestampType):
        seconds = F.unix_micros(value).cast("decimal(20,0)") / F.lit(1_000_000)
        value = F.lit("1970-01-01").cast("timestamp_ntz") + F.make_dt_interval(secs=seconds)
    return value.cast("string")
