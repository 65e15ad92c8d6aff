"""The page of a map: one HTML file with all that is on it, and the script to look at it.

Numbers travel as base64 of typed arrays, texts as JSON in which no `<` stands, so that nothing of a
row can end the element that holds it. As on the other pages, style and script are named by their
hashes in a Content-Security-Policy that lets nothing else run or be fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from ember.report.inline import Inline, inline, templates
from ember.report.map_content import Tiles
from ember.report.map_data import MapPage, packed

__all__ = ["render_map"]


def render_map(page: MapPage, manifest: Mapping[str, Any]) -> str:
    """The page as text, to be written in UTF-8; `manifest` as the run publishes it."""
    style, script = inline("page.css", "map.css"), _script()
    return (
        templates()
        .get_template("map.html")
        .render(
            manifest=manifest,
            lead=_lead(page, manifest),
            points=f"{len(page.ids):,}",
            data=Markup(_json(_data(page))),
            style=Markup(style.text),
            style_hash=style.hash,
            script=Markup(script.text),
            script_hash=script.hash,
        )
    )


def _script() -> Inline:
    """The three parts as one function, so that no name of theirs is one of the browser's."""
    parts = inline("map_rows.js", "map_drawing.js", "map_use.js")
    return Inline(f'(() => {{\n"use strict";\n{parts.text}}})();\n')


def _lead(page: MapPage, manifest: Mapping[str, Any]) -> str:
    """What is on the map and what is not."""
    counts = manifest["counts"]
    told = f"{len(page.ids):,} rows"
    if counts["usable"] > len(page.ids):
        told = f"A sample of {len(page.ids):,} of {counts['usable']:,} rows"
    told += f", near where their vectors are ({manifest['config']['metric']})."
    if counts["rejected"]:
        why = ", ".join(f"{rows:,} {reason}" for reason, rows in counts["reasons"].items())
        told += f" Left out: {why}."
    if page.told.missing:
        why = ", ".join(f"{rows:,} {reason}" for reason, rows in page.told.missing.items())
        told += f" Not shown: {why}."
    return told


def _data(page: MapPage) -> dict[str, Any]:
    return {
        "x": packed(page.x.astype("<f4")),
        "y": packed(page.y.astype("<f4")),
        "ids": list(page.ids),
        "texts": None if page.told.texts is None else list(page.told.texts),
        "tiles": page.told.tiles and _tiles(page.told.tiles),
        "colors": [{"name": color.name, **color.fields} for color in page.colors],
    }


def _tiles(tiles: Tiles) -> dict[str, Any]:
    widths, heights = np.array(tiles.sizes, np.uint8).reshape(-1, 2).T
    return {
        "side": tiles.side,
        "across": tiles.across,
        "sheets": [
            f"data:image/webp;base64,{packed(each)}" if each else "" for each in tiles.sheets
        ],
        "widths": packed(widths),
        "heights": packed(heights),
    }


def _json(value: Any) -> str:
    """JSON that HTML reads as text whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
