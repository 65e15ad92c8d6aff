"""Tables as the page shows them: cells with their text and sorting value, and whiskers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ember.report.report import Row, Table

__all__ = ["Cell", "Head", "View", "Whisker", "axis_ends", "axis_head", "cell"]
__all__ += ["shared_axes", "shown", "table_view", "whisker"]

# Like page.css.
_WIDTHS = {False: 140, True: 320}
_OWN_WIDTH = 220  # of 320, beside its ends
_LEGIBLE = 15  # an axis is at most so many times as long as its shortest interval
_MARGIN = 6.0
# `collect` cuts texts at 300 characters and adds how long they were.
_LONGEST = 400


@dataclass(frozen=True)
class Whisker:
    """A figure and its interval on an axis, in CSS pixels of a drawing `width` wide.

    A position is None where there is nothing to draw: an undefined figure or interval, or a zero
    (`origin`) that is not on the axis. ends: of an axis that this row has for itself.
    """

    width: int
    at: float | None
    low: float | None
    high: float | None
    origin: float | None
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Cell:
    """A text as shown. value: all digits of a number, "" if undefined; None for a text."""

    text: str
    value: str | None = None
    whisker: Whisker | None = None


@dataclass(frozen=True)
class Head:
    """A column. axis: the ends of the axis of a column of whiskers, which cannot be sorted."""

    name: str
    number: bool = False
    axis: tuple[str, str] | None = None
    wide: bool = False


@dataclass(frozen=True)
class View:
    """A table of the page. note: what it leaves out."""

    key: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def shown(value: Any) -> str:
    """A value as text: four decimals, or four digits where four decimals would hide it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        size = abs(value)
        text = f"{size:.4f}" if size == 0 or 1e-3 <= size < 1e6 else f"{size:.4g}"
        return f"−{text}" if value < 0 else text
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value)
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def cell(value: Any, number: bool = False) -> Cell:
    """A cell. number: its column has numbers, and None stands for an undefined one."""
    if not number:
        return Cell(shown(value))
    digits = str(value) if isinstance(value, Decimal) else repr(value)
    return Cell(shown(value), "" if value is None else digits)


def axis_ends(rows: Iterable[Row]) -> tuple[float, float]:
    """The ends of an axis for the value, low and high of all `rows`, zoomed to where they are.

    Nothing finite lies outside. The ends are multiples of 1, 2 or 5 times a power of ten. An axis
    with negative figures has 0 in its middle, so that one sees at once which intervals contain it.
    """
    values = (row[key] for row in rows for key in ("value", "low", "high"))
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    most = max(-low, high)
    if not most:
        return 0.0, 1.0
    if low < 0:
        low, high = -most, most
    # A short interval stays short: the axis is at least about 1% of its figures long.
    least = max((high - low) / 4, 0.0025 * most)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= least * (1 - 1e-9))
    # Tolerant of rounding: 0.3 / 0.1 is 2.9999999999999996.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return (first - (first == last)) * step, last * step


def shared_axes(rows: Sequence[Row]) -> list[tuple[float, float] | None]:
    """The ends of an axis for each row: the same for rows whose intervals can be seen on one axis.

    Figures of different kinds may be orders of magnitude apart. None for a row without an interval.
    """
    order = [n for n in range(len(rows)) if rows[n]["low"] is not None]
    lengths = {n: rows[n]["high"] - rows[n]["low"] for n in order}
    groups: list[list[int]] = [[]]
    for number in sorted(order, key=lambda n: rows[n]["value"]):
        joined = [*groups[-1], number]
        low, high = axis_ends([rows[n] for n in joined])
        shortest = min(filter(None, (lengths[n] for n in joined)), default=0.0)
        if high - low <= _LEGIBLE * shortest:
            groups[-1] = joined
        else:
            groups.append([number])
    ends = {n: axis_ends([rows[n] for n in group]) for group in groups for n in group}
    return [ends.get(n) for n in range(len(rows))]


def axis_head(ends: tuple[float, float] | None, wide: bool = False) -> Head:
    """The head of a column of whiskers, with the ends of their axis if all have the same."""
    return Head("95% interval", axis=_texts(ends) if ends else ("", ""), wide=wide)


def whisker(row: Row, ends: tuple[float, float], *, wide: bool = False, own: bool = False) -> Cell:
    """The value, low and high of a row on an axis, whose `ends` are `axis_ends` of this row, too.

    An axis that is the row's own, not the column's, has its ends in the cell.
    """
    width = _OWN_WIDTH if own else _WIDTHS[wide]

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        share = (value - ends[0]) / (ends[1] - ends[0])
        return round(_MARGIN + share * (width - 2 * _MARGIN), 2)

    low, high = place(row["low"]), place(row["high"])
    if low is None or high is None:
        low = high = None
    origin = place(0.0) if ends[0] <= 0 <= ends[1] else None
    texts = _texts(ends) if own else None
    return Cell("", None, Whisker(width, place(row["value"]), low, high, origin, texts))


def _texts(ends: tuple[float, float]) -> tuple[str, str]:
    low, high = (f"{end:g}".replace("-", "−") for end in ends)
    return low, high


def table_view(
    key: str, caption: str, table: Table, names: Iterable[str] | None = None, note: str = ""
) -> View:
    """The columns `names` of a table, by default those that have any value.

    note: in place of what says that there are more rows.
    """
    rows = table.rows
    filled = [c for c in table.columns if not rows or any(row[c] is not None for row in rows)]
    columns = list(names or filled)
    heads = [Head(name.replace("_", " "), _numeric(row[name] for row in rows)) for name in columns]
    body = [
        [cell(row[name], head.number) for name, head in zip(columns, heads, strict=True)]
        for row in rows
    ]
    if table.more and not note:
        note = f"The first {len(rows)} rows; all are in the table {key}."
    return View(key, caption, heads, body, note)


def _numeric(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in known
    )
