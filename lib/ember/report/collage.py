"""Collages as PNG files, for those who want to show one elsewhere than on the page."""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ember.report.drawing import LIGHT, Theme, png, short
from ember.report.layout import Gallery, Tile

__all__ = ["collage"]

# Inches of a tile, and of the words below it.
_SIDE, _WORDS = 0.8, 0.24
_MOST_LINES = 20
_MOST_TILES = 12


def collage(gallery: Gallery) -> bytes | None:
    """The gallery's thumbnails in lines, a PNG in light colors; None where it has none."""
    strips = [s for s in gallery.strips if any(tile.item and tile.item.image for tile in s.tiles)]
    strips = strips[:_MOST_LINES]
    if not strips:
        return None
    wide = min(_MOST_TILES, max(len(strip.tiles) for strip in strips))
    tall = len(strips)

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_layout_engine("none")
        below = _WORDS / (_SIDE + _WORDS)
        for line, strip in enumerate(strips, 1):
            for place, tile in enumerate(strip.tiles[:wide]):
                corner = place / wide, 1 - (line - below) / tall
                axes = figure.add_axes((*corner, 0.95 / wide, 0.95 * (1 - below) / tall))
                _draw(axes, tile, theme)

    return png(
        draw, (round(96 * wide * _SIDE), round(96 * tall * (_SIDE + _WORDS))), LIGHT, photos=True
    )


def _draw(axes: Axes, tile: Tile, theme: Theme) -> None:
    """A thumbnail, or why there is none, with its words and its label below."""
    axes.set_axis_off()
    words: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 5.5, "va": "top"}
    item = tile.item
    if item and item.image:
        data = base64.b64decode(item.image.partition(",")[2])
        axes.imshow(Image.open(io.BytesIO(data), formats=("JPEG", "PNG")))
        axes.set_box_aspect(1)
        axes.set_aspect("equal", adjustable="datalim")
    elif item:
        axes.text(0.02, 0.9, short(item.reason), color=theme.faint, **words)
    color = theme.first if tile.mark == "lead" else theme.ink
    axes.text(0, -0.03, " ".join(tile.words), color=color, **words)
    axes.text(0, -0.15, short(item.label if item and item.label else tile.id), **words)
