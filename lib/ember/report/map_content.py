"""The contents of a map's rows: excerpts of texts, or pictures on sheets, made by executors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.maps.sources import Content
from ember.spark.older_versions import as_dicts
from ember.spark.persisted import kept
from ember.spark.together import together
from ember.worker.images.sprites import (
    ACROSS,
    SHEET_SCHEMA,
    TILE_SCHEMA,
    sheet_batches,
    tile_batches,
    tile_side,
)

__all__ = ["Tiles", "Told", "fetch"]


@dataclass(frozen=True)
class Tiles:
    """Pictures as sheets of squares of `side` pixels, `across` x `across` of them.

    sheets: WebP files, empty where no row has a picture. sizes: of each row's picture width and
    height; (0, 0) where it has none.
    """

    side: int
    across: int
    sheets: Sequence[bytes]
    sizes: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Told:
    """What is shown of the rows: texts by position, or tiles. missing: rows without, by reason."""

    texts: Sequence[str] | None = None
    tiles: Tiles | None = None
    missing: Mapping[str, int] = field(default_factory=dict)


_ABSENT = "not in the table of contents"


def fetch(points: DataFrame, count: int, content: Content | None) -> Told:
    """The contents of `points` (id, position 0..count - 1). Of an id with several, one is shown."""
    if content is None:
        return Told()
    corpus = content.corpus
    rows = corpus.rows.toDF("_ember_id", "content")
    places = F.broadcast(points.select("id", "position"))
    found = rows.join(places, rows["_ember_id"] == places["id"]).select("position", "content")
    side = tile_side(count)
    show = partial(tile_batches, modality=content.modality, side=side, paths=corpus.paths)
    with kept(found.mapInArrow(show, TILE_SCHEMA)) as shown:
        missing = _missing(shown, count)
        if content.modality == "text":
            told = Told(texts=_texts(shown, count), missing=missing)
        else:
            told = Told(tiles=_tiles(shown, count, side), missing=missing)
        shown.unpersist()
    return told


def _texts(tiles: DataFrame, count: int) -> list[str]:
    shown = tiles.filter("text IS NOT NULL").groupBy("position").agg(F.min("text").alias("text"))
    texts = [""] * count
    for row in as_dicts(shown):
        texts[row["position"]] = row["text"]
    return texts


def _tiles(tiles: DataFrame, count: int, side: int) -> Tiles:
    sheet = F.floor(F.col("position") / ACROSS**2).cast("int").alias("sheet")
    shown = tiles.filter("image IS NOT NULL").select(sheet, "position", "image")
    whole = together(shown, "sheet").sortWithinPartitions("sheet", "position", "image")
    made = whole.mapInArrow(partial(sheet_batches, side=side), SHEET_SCHEMA)
    sheets = [b""] * -(-count // ACROSS**2)
    sizes = [(0, 0)] * count
    for row in as_dicts(made):
        sheets[row["sheet"]] = row["data"]
        for place, *size in zip(row["positions"], row["widths"], row["heights"], strict=True):
            sizes[place] = size[0], size[1]
    return Tiles(side, ACROSS, sheets, sizes)


def _missing(tiles: DataFrame, count: int) -> dict[str, int]:
    """Rows of which nothing is shown, by reason (what stands before the colon)."""
    reason = F.substring_index("reason", ":", 1).alias("reason")
    by_row = tiles.select("position", reason).groupBy("position")
    # Null, and so no reason, where one of several rows of the id can be shown.
    why = by_row.agg(F.when(F.count("reason") == F.count("*"), F.min("reason")).alias("reason"))
    found = {row["reason"]: row["count"] for row in why.groupBy("reason").count().collect()}
    absent = count - sum(found.values())
    found.pop(None, None)
    return {**dict(sorted(found.items())), **({_ABSENT: absent} if absent else {})}
