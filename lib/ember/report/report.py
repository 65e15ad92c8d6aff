"""What a page shows, as plain rows: collected on Spark, kept as JSON beside the output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ember.errors import InvalidInput

__all__ = ["KEPT", "MOST_CELLS", "MOST_CLASSES", "Item", "Report", "Row", "Step"]
__all__ += ["Table", "from_json", "to_json"]

# The file in which search, join and evaluate keep their report.
KEPT = "_report.json"

# A larger confusion matrix cannot be read; its most frequent confusions are listed instead.
MOST_CLASSES = 50
# One more column for rows without a usable prediction.
MOST_CELLS = MOST_CLASSES * (MOST_CLASSES + 1)
# Of the file's format; a file of another version is refused rather than drawn wrongly.
_VERSION = 1
_IMAGE = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of a published table. more: the published table has further rows."""

    columns: Sequence[str]
    rows: Sequence[Row]
    more: bool = False


@dataclass(frozen=True)
class Item:
    """The content of a row: a thumbnail, a text, or the reason why there is neither.

    image: a data: URI of a JPEG or PNG that Ember encoded; width and height in pixels. label: from
    the label column of the content, if it has one.
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
    """The result of a run as its page shows it.

    kind: that of an evaluation, or `search`, `join` or `dedup`. figures: metric, slice, value, low,
    high, n, and what `Figure.as_row` has besides. issues: reason, rows, ids. tables: by name, as
    ember.report.collect, ember.report.collect_pairs and ember.report.collect_copies describe them.
    items: contents of rows by side (queries, corpus, left, right, rows) and id as text.
    """

    kind: str
    figures: Sequence[Row]
    issues: Sequence[Row] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    items: Mapping[str, Mapping[str, Item]] = field(default_factory=dict)

    def item(self, side: str, key: str) -> Item | None:
        """The content of a row; None if the run was given no contents at all.

        A side without contents of its own has those of the first side.
        """
        if not any(self.items.values()):
            return None
        items = self.items.get(side, next(iter(self.items.values())))
        return items.get(key, Item(reason="not in the table of contents"))


@dataclass(frozen=True)
class Step:
    """A step of a pipeline as its page shows it.

    seconds: what it took in this run; None if it did nothing. path: its output. manifest, report:
    what the run that made the output noted, and what its own page shows; None if there is none.
    message: why it failed, or what else there is to say.
    """

    name: str
    job: str
    outcome: Literal["ran", "up to date", "failed", "not run"]
    seconds: float | None = None
    path: str = ""
    manifest: Mapping[str, Any] | None = None
    report: Report | None = None
    message: str = ""


def to_json(report: Report) -> str:
    """The text of the file `_report.json`, from which `from_json` makes the same report."""
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
        raise InvalidInput(f"this is not a report kept by Ember: {error}") from None
