"""What a page shows, as plain rows: made on Spark, kept as JSON beside the output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ember.errors import InvalidInput

__all__ = ["KEPT", "MOST_CELLS", "MOST_CLASSES", "Item", "Report", "Row", "Table"]
__all__ += ["from_json", "to_json"]

# What search, join and evaluate keep of their page, beside their tables.
KEPT = "_report.json"

# A confusion matrix of more classes cannot be read; its largest entries are listed instead.
MOST_CLASSES = 50
# One more column for rows without a usable prediction.
MOST_CELLS = MOST_CLASSES * (MOST_CLASSES + 1)
# Of the file; another one is refused rather than drawn wrongly.
_VERSION = 1
_IMAGE = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of one published table. more: it has others, which are not here."""

    columns: Sequence[str]
    rows: Sequence[Row]
    more: bool = False


@dataclass(frozen=True)
class Item:
    """What can be seen of a row: a thumbnail, a text, or the reason why there is neither.

    image: a JPEG or PNG that Ember encoded, as a data: URI, and its size in pixels. label: a word
    on the row, where the content has a column for it.
    """

    label: str = ""
    text: str = ""
    image: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.image and not _IMAGE.fullmatch(self.image):
            raise InvalidInput("a thumbnail of a page must be a data: URI of a JPEG or PNG")


@dataclass(frozen=True)
class Report:
    """The output of a run as a page shows it.

    kind: of an evaluation, or `search` or `join`. figures: metric, slice, value, low, high, n.
    issues: reason, rows, ids. tables: what the kind's sections show, by name; see
    ember.report.collecting (evaluations) and ember.report.sampling (search and join).
    items: what can be seen of the rows that are shown, by side (queries, corpus, left, right, rows)
    and id as text.
    """

    kind: str
    figures: Sequence[Row]
    issues: Sequence[Row] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    items: Mapping[str, Mapping[str, Item]] = field(default_factory=dict)


def to_json(report: Report) -> str:
    """The report as the file `_report.json`, from which `from_json` makes it again."""
    return json.dumps({"version": _VERSION, **asdict(report)}, ensure_ascii=False, default=str)


def from_json(text: str) -> Report:
    """The report that `to_json` wrote. Raises InvalidInput for anything else."""
    try:
        facts = json.loads(text)
        if facts.pop("version") != _VERSION:
            raise InvalidInput("the report was kept by another version of Ember; run its job again")
        facts["tables"] = {name: Table(**table) for name, table in facts["tables"].items()}
        facts["items"] = {
            side: {key: Item(**item) for key, item in items.items()}
            for side, items in facts["items"].items()
        }
        return Report(**facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"this is no report kept by Ember: {error}") from None
