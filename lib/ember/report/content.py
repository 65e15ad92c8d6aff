"""What a page shows, as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MOST_CELLS", "MOST_CLASSES", "Report", "Row", "Table"]

# A confusion matrix of more classes cannot be read; its largest entries are listed instead.
MOST_CLASSES = 50
# One more column for rows without a usable prediction.
MOST_CELLS = MOST_CLASSES * (MOST_CLASSES + 1)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of one published table. more: it has others, which are not here."""

    columns: Sequence[str]
    rows: Sequence[Row]
    more: bool = False


@dataclass(frozen=True)
class Report:
    """An evaluation as its published tables have it.

    figures: metric, slice, value, low, high, n. issues: reason, rows, ids. tables: those of
    ember.evaluate that a page shows, by name; `confusion` only for up to MOST_CLASSES classes,
    `reliability` of the slice "all".
    """

    kind: str
    figures: Sequence[Row]
    issues: Sequence[Row] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
