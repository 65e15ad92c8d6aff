"""Tables of a page: cells as text and as the value they sort by, and whiskers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ember.report.content import Row, Table

__all__ = ["Cell", "Head", "View", "Whisker", "cell", "shown", "table_view", "whisker"]

# As page.css has them, too.
_WIDTHS = {False: 140, True: 320}
_MARGIN = 6.0
# What is collected is cut before, at 300 and a few for how long it was.
_LONGEST = 400


@dataclass(frozen=True)
class Whisker:
    """A figure and its interval on an axis, in CSS pixels of a picture `width` wide.

    Positions are None where the figure, or its interval, is undefined.
    """

    width: int
    at: float | None
    low: float | None
    high: float | None
    origin: float


@dataclass(frozen=True)
class Cell:
    """text: as shown. value: of a number, all its digits, "" where undefined; None for text."""

    text: str
    value: str | None = None
    whisker: Whisker | None = None


@dataclass(frozen=True)
class Head:
    """A column. axis: the ends of a column of whiskers, which cannot be sorted.

    wide: of a column of wide whiskers.
    """

    name: str
    number: bool = False
    axis: tuple[str, str] | None = None
    wide: bool = False


@dataclass(frozen=True)
class View:
    """A table as the page has it. note: what it leaves out."""

    key: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def shown(value: Any) -> str:
    """A value of a table as text: four decimals, or four digits where those would hide it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        size = abs(value)
        text = f"{size:.4f}" if size == 0 or 1e-3 <= size < 1e6 else f"{size:.4g}"
        return f"−{text}" if value < 0 else text
    if isinstance(value, Mapping):
        return ", ".join(shown(each) for each in value.values())
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value)
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def cell(value: Any, number: bool = False) -> Cell:
    """A cell; number: of a column of numbers, where null is a value too."""
    if not number:
        return Cell(shown(value))
    return Cell(shown(value), "" if value is None else repr_of(value))


def repr_of(value: float | Decimal) -> str:
    """All the digits that it takes to read the same number back."""
    return str(value) if isinstance(value, Decimal) else repr(value)


def whisker(row: Row, ends: tuple[float, float], wide: bool = False) -> Cell:
    """A cell with the whisker of a row's value, low and high on the axis `ends`."""
    width = _WIDTHS[wide]

    def place(value: float | None) -> float | None:
        if value is None or not ends[0] <= value <= ends[1]:
            return None
        share = (value - ends[0]) / (ends[1] - ends[0])
        return round(_MARGIN + share * (width - 2 * _MARGIN), 2)

    at, origin = place(row["value"]), place(0.0)
    low, high = place(row["low"]), place(row["high"])
    if low is None or high is None:
        low = high = None
    return Cell("", None, Whisker(width, at, low, high, _MARGIN if origin is None else origin))


def table_view(key: str, caption: str, table: Table, names: Iterable[str] | None = None) -> View:
    """The columns `names` of a table, by default those that have any value."""
    rows = table.rows
    filled = [c for c in table.columns if not rows or any(row[c] is not None for row in rows)]
    columns = list(names or filled)
    heads = [
        Head(name.replace("_", " "), _numeric([row[name] for row in rows])) for name in columns
    ]
    body = [
        [cell(row[name], head.number) for name, head in zip(columns, heads, strict=True)]
        for row in rows
    ]
    note = f"The first {len(rows)} rows; all are in the table {key}." if table.more else ""
    return View(key, caption, heads, body, note)


def _numeric(values: Sequence[Any]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in there
    )
