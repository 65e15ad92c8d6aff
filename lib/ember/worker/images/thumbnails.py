"""Rows of a corpus as a page shows them: small pictures, excerpts of texts, or why neither."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import MAX_BYTES, MAX_PIXELS, RowError, raw_values, to_text
from ember.worker.spec import Modality

__all__ = ["SCHEMA", "Thumbnail", "excerpt", "show_batches", "thumbnail"]

SIDE = 144
_LONGEST = 280
# JPEG's blocks would be seen in pictures as small as this; a page shows them enlarged.
_SMALL = 64
_QUALITY = 82

SCHEMA = "id string, label string, text string, image binary, width int, height int, reason string"


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG, or for the smallest pictures a PNG, of width x height pixels."""

    data: bytes
    width: int
    height: int


def thumbnail(data: bytes | None, side: int = SIDE) -> Thumbnail:
    """An encoded image, scaled down to at most `side` pixels and encoded anew.

    Only its pixels get through: no profile, comment or EXIF of the original. Raises RowError as
    `images.decode` does, among others for bombs and for SVG, which is not an image to it.
    """
    image = decode(data, MAX_PIXELS)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    # Pillow would write what it read beside the pixels; an image made of an array has only these.
    bare = Image.fromarray(np.array(image))
    file = io.BytesIO()
    if max(bare.size) <= _SMALL:
        bare.save(file, "PNG", optimize=True)
    else:
        bare.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return Thumbnail(file.getvalue(), *bare.size)


def excerpt(raw: bytes | None, longest: int = _LONGEST) -> str:
    """The beginning of a text on one line. Raises RowError as `rows.to_text` does."""
    line = " ".join(to_text(raw, MAX_BYTES).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def show_batches(
    batches: Iterable[pa.RecordBatch], modality: Modality, *, paths: PathRules | None
) -> Iterator[pa.RecordBatch]:
    """Batches (id string, content, label string) as batches of SCHEMA, row by row.

    paths: where images may be that rows name; None where the content is theirs. Every row comes
    back: one that cannot be shown with the reason.
    """
    for batch in batches:
        ids, labels = batch.column(0), batch.column(2)
        rows = [_show(raw, modality, paths) for raw in raw_values(batch.column(1))]
        texts, pictures, reasons = zip(*rows, strict=True) if rows else ((), (), ())
        yield pa.RecordBatch.from_arrays(
            [
                ids.cast(pa.string()),
                labels.cast(pa.string()),
                pa.array(texts, pa.string()),
                pa.array([each and each.data for each in pictures], pa.binary()),
                pa.array([each and each.width for each in pictures], pa.int32()),
                pa.array([each and each.height for each in pictures], pa.int32()),
                pa.array(reasons, pa.string()),
            ],
            names=["id", "label", "text", "image", "width", "height", "reason"],
        )


def _show(
    raw: bytes | None, modality: Modality, paths: PathRules | None
) -> tuple[str | None, Thumbnail | None, str | None]:
    try:
        if modality == "text":
            return excerpt(raw), None, None
        return None, thumbnail(content_of(raw, paths, MAX_BYTES)), None
    except RowError as error:
        return None, None, str(error)
