"""Rows as bytes: reading the content column without letting one bad row stop the others."""

from __future__ import annotations

import pyarrow as pa

from ember.redaction import redact

__all__ = ["MAX_BYTES", "MAX_PIXELS", "RowError", "raw_values", "to_text", "too_many_bytes"]

# Of a row's content, unless the configuration says otherwise.
MAX_BYTES = 64 << 20
# As many as Pillow takes without a warning of a decompression bomb.
MAX_PIXELS = 89_478_485


class RowError(Exception):
    """One row cannot be processed. The message reads `reason` or `reason: detail`.

    The reason is one of a few fixed phrases, so that failures can be counted by it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        # Details quote what a file claims about itself: keep them short and on one line. Cut first,
        # since a path may be as long as a row.
        detail = " ".join(redact(detail[:2000]).split())[:200]
        super().__init__(f"{reason}: {detail}" if detail else reason)


def raw_values(array: pa.Array) -> list[bytes | None]:
    """The values of a string or binary array of any width as bytes; None for null.

    Strings are taken as the bytes they are stored as, since a Parquet string may hold bytes that
    are not UTF-8 and pyarrow would raise for the whole batch.
    """
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    elif pa.types.is_large_string(array.type):
        array = array.view(pa.large_binary())
    values: list[bytes | None] = array.to_pylist()
    return values


def to_text(raw: bytes | None, max_bytes: int | None = None) -> str:
    """The text of one row.

    Raises RowError for null, blank or badly encoded content, and for more than `max_bytes`.
    """
    if raw is None:
        raise RowError("null content")
    if max_bytes is not None and len(raw) > max_bytes:
        raise too_many_bytes(len(raw), max_bytes)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("invalid text", f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise RowError("empty content")
    return text


def too_many_bytes(size: int | None, max_bytes: int) -> RowError:
    """The error of a content of `size` bytes; None for more than were read."""
    given = "more" if size is None else f"{size:,} bytes, more"
    return RowError("too many bytes", f"{given} than limits.max_bytes = {max_bytes:,}")
