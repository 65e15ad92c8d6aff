"""Rows as bytes: reading the content column without letting one bad row stop the others."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

__all__ = ["RowError", "raw_values", "read_uri", "to_text"]


class RowError(Exception):
    """One row cannot be processed. The message reads `reason` or `reason: detail`.

    The reason is one of a few fixed phrases, so that failures can be counted by it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        # Details quote what a file claims about itself: keep them short and on one line.
        detail = " ".join(detail.split())[:200]
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


def to_text(raw: bytes | None) -> str:
    """The text of one row. Raises RowError for null, blank or badly encoded content."""
    if raw is None:
        raise RowError("null content")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("invalid text", f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise RowError("empty content")
    return text


def read_uri(raw: bytes | None) -> bytes:
    """The bytes of the file that a row names, by local path, file: URI or any URI fsspec serves.

    Raises RowError where there is no such file or it cannot be read.
    """
    uri = to_text(raw)
    try:
        scheme = urlsplit(uri).scheme
        if len(scheme) <= 1:  # no scheme, or a drive letter
            return Path(uri).read_bytes()
        if scheme == "file":
            # Spark's own path columns come unencoded, Java's and Python's URIs encoded.
            literal = Path(re.sub(r"^file:(//[^/]*)?", "", uri))
            decoded = Path(unquote(urlsplit(uri).path))
            return (literal if literal.exists() else decoded).read_bytes()
        import fsspec  # only corpora of remote paths need it

        with fsspec.open(uri, "rb") as stream:
            content: bytes = stream.read()
        return content
    except FileNotFoundError:
        raise RowError("file not found", uri) from None
    except Exception as error:  # every file system has errors of its own
        raise RowError("unreadable file", f"{uri}: {error}") from error
