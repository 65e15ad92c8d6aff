"""The slices of the rows that are judged: groups by the values of a column, and their names.

A slice is named `column=value`, a null being `null`. Figures are looked up by these names, and no
two slices share one: a value that is the text null, begins with a quotation mark or is no valid
UTF-8, and a column whose name has an equals sign or begins with a quotation mark, are written
between quotation marks, as in `city="null"`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import AtomicType, BinaryType, DoubleType, FloatType, StringType

from ember.errors import InvalidInput
from ember.spark.ids import text_of
from ember.spark.older_versions import is_valid_utf8
from ember.spark.tables import column
from ember.worker.metrics.sums import ALL

__all__ = [
    "check_slices",
    "every_slice",
    "few_slices",
    "filled_slices",
    "join_slices",
    "slice_columns",
    "slice_names",
    "slices_of",
]

_MOST_SLICES = 1000


def slice_names(slices: Sequence[str]) -> list[str]:
    """The columns that hold the slices of a row, in the order of `slices`."""
    return [f"slice_{number}" for number in range(len(slices))]


def slices_of(rows: DataFrame) -> list[str]:
    """The columns of `rows` that hold slices."""
    return [name for name in rows.columns if name.startswith("slice_")]


def every_slice(rows: DataFrame) -> Column:
    """`slice`: a row for the whole, and one for each slice that a row is in."""
    return F.explode(F.array(F.lit(ALL), *slices_of(rows))).alias("slice")


def slice_columns(table: DataFrame, slices: Sequence[str]) -> dict[str, Column]:
    """The slice columns that `table` has, as strings `column=value`, keyed by `slice_names`."""
    found: dict[str, Column] = {}
    for name, alias in zip(slices, slice_names(slices), strict=True):
        try:
            value = column(table, name)
        except InvalidInput:
            continue
        kind = table.select(value).schema[0].dataType
        if not isinstance(kind, AtomicType):
            raise InvalidInput(f"slices: column {name} is {kind.simpleString()}, not one value")
        text = text_of(value, kind)
        if isinstance(kind, StringType | BinaryType):
            text = _told_apart(text)
        if isinstance(kind, FloatType | DoubleType):
            text = F.when(value == 0, F.lit("0.0")).otherwise(text)  # there are two zeros
        text = F.coalesce(text, F.lit("null"))
        found[alias] = F.concat(F.lit(f"{_column(name)}="), text).alias(alias)
    return found


def join_slices(rows: DataFrame, table: DataFrame, id: Column, slices: Sequence[str]) -> DataFrame:
    """`rows` (id, …) with the slice columns that they lack and `table` has, null for ids not there.

    id: what names a row in `table`, each once.
    """
    lacking = {
        alias: each
        for alias, each in slice_columns(table, slices).items()
        if alias not in rows.columns
    }
    if not lacking:
        return rows
    return rows.join(table.select(id.alias("id"), *lacking.values()), "id", "left")


def check_slices(rows: DataFrame, slices: Sequence[str]) -> None:
    """Raise InvalidInput for a slice column that is in no table, or is given twice."""
    for place, (name, alias) in enumerate(zip(slices, slice_names(slices), strict=True)):
        if name in slices[:place]:
            raise InvalidInput(f"slices: the column {name} is listed twice; leave one out")
        if alias not in rows.columns:
            raise InvalidInput(f"slices: there is no column {name} in the tables that are judged")


def few_slices(rows: DataFrame, slices: Sequence[str]) -> None:
    """Raise InvalidInput for a slice column that has too many values to divide the rows by."""
    if not slices:
        return
    counts = rows.agg(*(F.approx_count_distinct(alias) for alias in slice_names(slices))).collect()
    for name, count in zip(slices, counts[0], strict=True):
        if count > _MOST_SLICES:
            raise InvalidInput(
                f"slices: column {name} has about {count} values, more than {_MOST_SLICES}; give "
                "one that divides the rows into groups"
            )


def filled_slices(slices: Sequence[str]) -> list[Column]:
    """The slice columns; a row that is missing in their table is in the slice `column=null`."""
    return [
        F.coalesce(F.col(alias), F.lit(f"{_column(name)}=null")).alias(alias)
        for name, alias in zip(slices, slice_names(slices), strict=True)
    ]


def _column(name: str) -> str:
    """A column's name in the name of a slice, where an equals sign follows it."""
    if "=" not in name and not name.startswith('"'):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _told_apart(text: Column) -> Column:
    """A text in the name of a slice, quoted where it could be mistaken; a null stays null."""
    quote, escape = F.lit('"'), F.lit("\\")
    escaped = F.replace(F.replace(text, escape, F.lit("\\\\")), quote, F.lit('\\"'))
    odd = F.concat(quote, escape, F.lit("x"), F.hex(text.cast("binary")), quote)
    return (
        F.when(~is_valid_utf8(text), odd)
        .when((text == "null") | text.startswith('"'), F.concat(quote, escaped, quote))
        .otherwise(text)
    )
