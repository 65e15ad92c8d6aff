"""Collages: queries with their neighbors, groups, pairs, and the worst rows of an evaluation."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from PIL import Image

from ember.report.drawing import FAINT, FIRST, INK, Picture, drawing, short
from ember.report.layout import Gallery, Strip, Tile
from ember.report.report import Report, Row
from ember.report.table_view import shown

__all__ = ["collage", "group_gallery", "neighbor_gallery", "pair_gallery"]
__all__ += ["ranked_gallery", "worst_gallery"]

_MOST_WORST = 24
# Of a collage as a PNG file. CSS pixels of a tile, and of the words below it.
_SIDE, _WORDS = 77, 23
_MOST_LINES = 20
_MOST_TILES = 12


def neighbor_gallery(report: Report) -> Gallery:
    """A line for each sampled query of a search: the query, then what it found."""
    strips = []
    rows = report.tables["neighbors"].rows
    for query, found in groupby(rows, key=lambda row: row["query_id"]):
        tiles = [Tile(query, report.item("queries", query), ["query"], "lead")]
        for row in found:
            key, words = row["neighbor_id"], [f"{row['rank']}", shown(row["score"])]
            tiles.append(Tile(key, report.item("corpus", key), words))
        strips.append(Strip(tiles))
    caption = "Sampled queries, with ranks and scores of what they found"
    return Gallery("neighbors", caption, "queries", strips)


def ranked_gallery(report: Report, which: str) -> Gallery:
    """A line for each query of a retrieval that is `which`: worst or sampled."""
    strips = []
    for row in report.tables["ranked"].rows:
        if row["which"] != which:
            continue
        tiles = [Tile(row["id"], report.item("queries", row["id"]), ["query"], "lead")]
        found = zip(row["documents"], row["gains"], strict=True)
        for rank, (key, gain) in enumerate(found, 1):
            words = [f"{rank}", "relevant" if gain else "not relevant"]
            tiles.append(Tile(key, report.item("rows", key), words, "good" if gain else "bad"))
        strips.append(Strip(tiles, f"average precision {shown(row['map'])}"))
    caption = {"worst": "The lowest average precision", "sampled": "Sampled queries"}[which]
    return Gallery(f"{which}_queries", caption, "queries", strips)


def group_gallery(report: Report) -> Gallery:
    """A line for each of the largest groups of a join, the representative first."""
    strips = []
    rows = report.tables["groups"].rows
    for group, each in groupby(rows, key=lambda row: row["group_id"]):
        members = list(each)
        tiles = []
        for row in members:
            lead = row["representative"]
            words = ["representative" if lead else shown(row["score"])]
            item = report.item("left", row["id"])
            tiles.append(Tile(row["id"], item, words, "lead" if lead else ""))
        size = members[0]["size"]
        more = f", {len(members)} shown" if size > len(members) else ""
        strips.append(Strip(tiles, f"group {group}: {size} rows{more}"))
    note = "Scores are those with the representative; a chain of pairs makes a group."
    return Gallery("largest_groups", "The largest groups", "groups", strips, note)


def pair_gallery(report: Report, name: str, caption: str) -> Gallery:
    """The pairs of the table `name`, side by side."""
    strips = []
    for row in report.tables[name].rows:
        sides = (("left", row["left_id"]), ("right", row["right_id"]))
        tiles = [Tile(key, report.item(side, key)) for side, key in sides]
        strips.append(Strip(tiles, shown(row["score"])))
    return Gallery(f"{name}_pairs", caption, "pairs", strips, flow=True)


def worst_gallery(report: Report, caption: str) -> Gallery:
    """The first of the worst rows, with their truth and the answer."""
    strips = []
    for row in report.tables["worst"].rows[:_MOST_WORST]:
        # A pair has a list of ids, the first of which is that of the query.
        ids: Sequence[str] = row["id"] if isinstance(row["id"], list) else [row["id"]]
        sides = ["rows"] if len(ids) == 1 else ["queries", *["rows"] * (len(ids) - 1)]
        tiles = [Tile(key, report.item(s, key)) for s, key in zip(sides, ids, strict=True)]
        strips.append(Strip(tiles, _verdict(row)))
    return Gallery("worst_rows", caption, "rows", strips, flow=True)


def _verdict(row: Row) -> str:
    """What was wrong, in a line; the columns depend on the kind of evaluation."""
    if "baseline_outcome" in row and row["answer"] is None:
        return f"{shown(row['baseline_outcome'])} → {shown(row['outcome'])}"
    answer = next((row[name] for name in ("answer", "predicted", "score") if name in row), None)
    score = f" ({shown(row['score'])})" if "predicted" in row and "score" in row else ""
    return f"{shown(row.get('truth'))} → {shown(answer)}{score}"


def collage(gallery: Gallery) -> Picture | None:
    """The thumbnails of a gallery as one picture, for its PNG file; None where it has none."""
    strips = [s for s in gallery.strips if any(tile.item and tile.item.image for tile in s.tiles)]
    strips = strips[:_MOST_LINES]
    if not strips:
        return None
    wide = min(_MOST_TILES, max(len(strip.tiles) for strip in strips))
    tall, below = len(strips), _WORDS / (_SIDE + _WORDS)
    with drawing(wide * _SIDE, tall * (_SIDE + _WORDS)) as figure:
        figure.set_layout_engine("none")
        for line, strip in enumerate(strips, 1):
            for place, tile in enumerate(strip.tiles[:wide]):
                corner = place / wide, 1 - (line - below) / tall
                _draw(figure.add_axes((*corner, 0.95 / wide, 0.95 * (1 - below) / tall)), tile)
    return Picture(figure, gallery.caption)


def _draw(axes: Axes, tile: Tile) -> None:
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
        axes.text(0.02, 0.9, short(item.reason), color=FAINT, **words)
    axes.text(0, -0.03, " ".join(tile.words), color=FIRST if tile.mark == "lead" else INK, **words)
    axes.text(0, -0.15, short(item.label if item and item.label else tile.id), **words)
