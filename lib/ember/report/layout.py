"""What a page is made of: chapters of sections of figures, charts, collages and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ember.report.drawing import Picture
from ember.report.report import Item
from ember.report.table_view import View

__all__ = ["Chapter", "Gallery", "Headline", "Section", "Strip", "Tile"]


@dataclass(frozen=True)
class Headline:
    """A figure shown large. note: its interval, or what else explains it."""

    name: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """One row of a corpus: its content, its id, and a few words below.

    mark: how it is outlined: lead (a query or representative), good or bad (a right or wrong
    answer), or "" for not at all. The words say the same.
    """

    id: str
    item: Item | None = None
    words: Sequence[str] = ()
    mark: str = ""

    @property
    def alt(self) -> str:
        """The text for those who cannot see the thumbnail."""
        return f"{self.item.label}, {self.id}" if self.item and self.item.label else self.id


@dataclass(frozen=True)
class Strip:
    """A line of a collage. title: what its tiles have in common."""

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
        """The layout of tiles: bare (ids only), thumbs, texts, or titled (a text above thumbs)."""
        tiles = [tile for strip in self.strips for tile in strip.tiles if tile.item]
        texts = [tile for tile in tiles if tile.item and tile.item.text]
        if not texts:
            return "thumbs" if tiles else "bare"
        return "titled" if all(tile.mark == "lead" for tile in texts) else "texts"


@dataclass(frozen=True)
class Section:
    """A part of a chapter. key: of its anchor. manifest: as JSON, folded. columns: of tables."""

    key: str
    title: str
    picture: Picture | None = None
    views: Sequence[View] = ()
    galleries: Sequence[Gallery] = ()
    headlines: Sequence[Headline] = ()
    note: str = ""
    columns: bool = False
    manifest: str = ""


@dataclass(frozen=True)
class Chapter:
    """What a page says of one run.

    warnings: what must not be overlooked, by heading. map: where the page of a map is, from this
    page; "" for none.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    warnings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    map: str = ""
