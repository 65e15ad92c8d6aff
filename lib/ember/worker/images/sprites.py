"""The pictures of many rows as a few sheets of tiles, so that a page can hold thousands."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
from PIL import Image

from ember.worker.images.thumbnails import excerpt, thumbnail
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import MAX_BYTES, RowError, raw_values
from ember.worker.spec import Modality

__all__ = ["ACROSS", "SHEET_SCHEMA", "TILE_SCHEMA", "sheet_batches", "tile_batches", "tile_side"]

ACROSS = 24
"""Tiles in a row of a sheet, and rows of them: a browser decodes a sheet at a time."""
_MOST_PIXELS = 24_000_000
"""Of all tiles: 5 to 10 MB of a page, and 25 MB where pictures are nothing but noise."""
_LARGEST, _SMALLEST = 96, 20
_QUALITY = 68
_LONGEST = 160

TILE_SCHEMA = "position int, text string, image binary, reason string"
SHEET_SCHEMA = "sheet int, data binary, positions array<int>, widths array<int>, heights array<int>"


def tile_side(count: int) -> int:
    """The side of a tile in pixels, where there are so many."""
    side = int((_MOST_PIXELS / max(count, 1)) ** 0.5)
    return max(_SMALLEST, min(_LARGEST, side))


def tile_batches(
    batches: Iterable[pa.RecordBatch], modality: Modality, side: int, paths: PathRules | None
) -> Iterator[pa.RecordBatch]:
    """Batches (position int, content) as batches of TILE_SCHEMA, row by row.

    side: of a tile, in which a picture lies as it is, scaled down. paths: where images may be that
    rows name; None where the content is theirs. A row that cannot be shown has the reason.
    """
    for batch in batches:
        rows = [_tile(raw, modality, side, paths) for raw in raw_values(batch.column(1))]
        texts, images, reasons = zip(*rows, strict=True) if rows else ((), (), ())
        yield pa.RecordBatch.from_arrays(
            [
                batch.column(0),
                pa.array(texts, pa.string()),
                pa.array(images, pa.binary()),
                pa.array(reasons, pa.string()),
            ],
            names=["position", "text", "image", "reason"],
        )


def _tile(
    raw: bytes | None, modality: Modality, side: int, paths: PathRules | None
) -> tuple[str | None, bytes | None, str | None]:
    try:
        if modality == "text":
            return excerpt(raw, _LONGEST), None, None
        return None, thumbnail(content_of(raw, paths, MAX_BYTES), side).data, None
    except RowError as error:
        return None, None, str(error)


def sheet_batches(batches: Iterable[pa.RecordBatch], side: int) -> Iterator[pa.RecordBatch]:
    """Batches (sheet int, position int, image binary) of whole sheets as batches of SHEET_SCHEMA.

    They come sorted by position. Of a position that comes again the first picture stays. A sheet is
    a WebP of ACROSS x ACROSS tiles, in each of which the picture is at the upper left.
    """
    number: int | None = None
    tiles: dict[int, bytes] = {}
    for batch in batches:
        for row in batch.to_pylist():
            if number is not None and row["sheet"] != number:
                yield _sheet(number, tiles, side)
                tiles = {}
            number = row["sheet"]
            tiles.setdefault(row["position"], row["image"])
    if number is not None:
        yield _sheet(number, tiles, side)


def _sheet(number: int, tiles: dict[int, bytes], side: int) -> pa.RecordBatch:
    pictures = {place: Image.open(io.BytesIO(data)).convert("RGB") for place, data in tiles.items()}
    last = max(place % ACROSS**2 for place in pictures)
    sheet = Image.new("RGB", (ACROSS * side, (last // ACROSS + 1) * side), (128, 128, 128))
    for place, picture in pictures.items():
        line, column = divmod(place % ACROSS**2, ACROSS)
        sheet.paste(picture, (column * side, line * side))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=_QUALITY, method=4)
    return pa.RecordBatch.from_pylist(
        [
            {
                "sheet": number,
                "data": file.getvalue(),
                "positions": list(pictures),
                "widths": [picture.width for picture in pictures.values()],
                "heights": [picture.height for picture in pictures.values()],
            }
        ],
        schema=pa.schema(
            [
                ("sheet", pa.int32()),
                ("data", pa.binary()),
                *((name, pa.list_(pa.int32())) for name in ("positions", "widths", "heights")),
            ]
        ),
    )
