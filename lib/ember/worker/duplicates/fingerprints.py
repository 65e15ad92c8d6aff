"""One pass over the content of a corpus: what is noted of each row to find its copies by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ember.worker.duplicates.pictures import perceptual_hash, picture_bands
from ember.worker.duplicates.texts import banding, normalized, shingles, signature, text_bands
from ember.worker.images.decoding import decode
from ember.worker.images.headers import read_claim
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError, raw_values, to_text
from ember.worker.spec import Modality
from ember.worker.stats import TaskStats

__all__ = ["Fingerprinting", "fingerprint_batches"]

_LISTS = pa.list_(pa.int64())


@dataclass(frozen=True)
class Fingerprinting:
    """What to note of each row.

    paths: where the files may be that rows name; None where the content is theirs. perceptual: bits
    in which hashes may differ; minhash: least Jaccard similarity; None where it is not asked for.
    """

    modality: Modality
    paths: PathRules | None
    perceptual: int | None
    minhash: float | None
    max_bytes: int
    max_pixels: int


@dataclass
class _Print:
    """What is noted of one row; `error` and nothing else of one that cannot be read."""

    error: str | None = None
    size: int | None = None
    length: int | None = None
    exact: bytes | None = None
    perceptual: int | None = None
    shingles: Any = None
    minhash: bytes | None = None
    signature: Any = None


def fingerprint_batches(
    batches: Iterable[pa.RecordBatch], what: Fingerprinting, stats: TaskStats
) -> Iterator[pa.RecordBatch]:
    """Batches (id, content, preferred) as batches of a row each for each of their rows.

    Columns: id and preferred as they are; error; size, of images pixels, of texts characters;
    bytes; exact, the SHA-256 of the content; perceptual and perceptual_bands; minhash, a hash of
    the set of shingles, with shingles and minhash_bands. Null, beside error, where there is none.
    """
    for batch in batches:
        prints = [_print(raw, what) for raw in raw_values(batch.column(1))]
        stats.rows += len(prints)
        yield pa.RecordBatch.from_pydict(
            {
                "id": batch.column(0),
                "preferred": batch.column(2),
                "error": pa.array([each.error for each in prints], pa.string()),
                "size": pa.array([each.size for each in prints], pa.int64()),
                "bytes": pa.array([each.length for each in prints], pa.int64()),
                "exact": pa.array([each.exact for each in prints], pa.binary()),
                "perceptual": pa.array([each.perceptual for each in prints], pa.int64()),
                "perceptual_bands": _picture_bands(prints, what.perceptual),
                "minhash": pa.array([each.minhash for each in prints], pa.binary()),
                "shingles": pa.array([each.shingles for each in prints], _LISTS),
                "minhash_bands": _text_bands(prints, what.minhash),
            }
        )


def _print(raw: bytes | None, what: Fingerprinting) -> _Print:
    try:
        if what.modality == "text":
            return _of_text(to_text(raw, what.max_bytes), what)
        return _of_image(content_of(raw, what.paths, what.max_bytes), what)
    except RowError as error:
        return _Print(error=str(error))


def _of_text(text: str, what: Fingerprinting) -> _Print:
    plain = normalized(text)
    encoded = plain.encode("utf-8")
    found = _Print(size=len(text), length=len(encoded), exact=hashlib.sha256(encoded).digest())
    if what.minhash is not None:
        words = shingles(plain)
        found.shingles = words
        found.minhash = hashlib.sha256(words.tobytes()).digest()
        found.signature = signature(words)
    return found


def _of_image(data: bytes | None, what: Fingerprinting) -> _Print:
    if what.perceptual is None:
        if not data:
            raise RowError("null content" if data is None else "empty content")
        claim = read_claim(data)
        return _Print(
            size=claim.width * claim.height, length=len(data), exact=hashlib.sha256(data).digest()
        )
    image = decode(data, what.max_pixels)
    content = data or b""  # else it is no picture
    return _Print(
        size=image.width * image.height,
        length=len(content),
        exact=hashlib.sha256(content).digest(),
        perceptual=perceptual_hash(image),
    )


def _picture_bands(prints: list[_Print], distance: int | None) -> pa.Array:
    hashes = [each.perceptual for each in prints if each.perceptual is not None]
    if distance is None or not hashes:
        return pa.nulls(len(prints), _LISTS)
    bands = iter(picture_bands(hashes, distance))
    rows = [None if each.perceptual is None else next(bands) for each in prints]
    return pa.array(rows, _LISTS)


def _text_bands(prints: list[_Print], threshold: float | None) -> pa.Array:
    signatures = [each.signature for each in prints if each.signature is not None]
    if threshold is None or not signatures:
        return pa.nulls(len(prints), _LISTS)
    bands = iter(text_bands(signatures, banding(threshold)))
    return pa.array([None if each.signature is None else next(bands) for each in prints], _LISTS)
