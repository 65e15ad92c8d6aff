"""What a page is made of: chapters of sections of figures, pictures, collages and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ember.report.cells import View
from ember.report.content import Item, Report
from ember.report.drawing import Picture

__all__ = ["Chapter", "Gallery", "Headline", "Section", "Strip", "Tile", "item_of"]


@dataclass(frozen=True)
class Headline:
    """A figure that is shown large. note: its interval, or what it is of."""

    name: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """One row of a corpus: what can be seen of it, its id, and a few words below.

    mark: how it is drawn: lead (a query, a representative), good or bad (an answer that is right,
    or wrong), or nothing; the words say the same.
    """

    id: str
    item: Item | None = None
    words: Sequence[str] = ()
    mark: str = ""

    @property
    def alt(self) -> str:
        """What stands in for the thumbnail."""
        return f"{self.item.label}, {self.id}" if self.item and self.item.label else self.id


@dataclass(frozen=True)
class Strip:
    """A line of a collage. title: what the tiles have in common."""

    tiles: Sequence[Tile]
    title: str = ""


@dataclass(frozen=True)
class Gallery:
    """A collage, filtered line by line.

    unit: what a line is, in the plural. flow: lines are short and stand side by side.
    """

    key: str
    caption: str
    unit: str
    strips: Sequence[Strip]
    note: str = ""
    flow: bool = False

    @property
    def style(self) -> str:
        """What decides the room that tiles take: bare (ids only), texts, titled (thumbnails below
        a text that leads them), or thumbs.
        """
        tiles = [tile for strip in self.strips for tile in strip.tiles if tile.item]
        texts = [tile for tile in tiles if tile.item and tile.item.text]
        if not texts:
            return "thumbs" if tiles else "bare"
        return "titled" if all(tile.mark == "lead" for tile in texts) else "texts"


@dataclass(frozen=True)
class Section:
    """A part of a chapter; `key` makes its anchor."""

    key: str
    title: str
    pictures: Sequence[Picture] = ()
    views: Sequence[View] = ()
    galleries: Sequence[Gallery] = ()
    headlines: Sequence[Headline] = ()
    note: str = ""
    columns: bool = False
    manifest: str = ""


@dataclass(frozen=True)
class Chapter:
    """What a page says of one run. warnings: under a heading, what must not be overlooked."""

    title: str
    lead: str
    sections: Sequence[Section]
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)


def item_of(report: Report, side: str, key: str) -> Item | None:
    """What can be seen of a row; None where no content was given at all.

    A side without content of its own has that of the first side.
    """
    if not any(report.items.values()):
        return None
    sides = list(report.items)
    items = report.items[side if side in sides else sides[0]]
    return items.get(key, Item(reason="not in the table of contents"))
