from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.engine.rows import RowError, raw_values, read_uri, to_text

VALUES = [b"plain", None, "héllo 😀".encode(), b"", b"bad \xff\xfe", None, b"last"]
TYPES = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]


def stored_as(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    """An array of `kind` over these very bytes, valid UTF-8 or not."""
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return pa.array(values, pa.large_binary() if wide else pa.binary()).view(kind)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_values_are_the_stored_bytes(kind: pa.DataType) -> None:
    assert raw_values(stored_as(VALUES, kind)) == VALUES


@pytest.mark.parametrize("kind", TYPES, ids=str)
@given(st.lists(st.none() | st.binary(max_size=5), max_size=20), st.data())
def test_slices_give_the_values_of_the_slice(
    kind: pa.DataType, values: list[bytes | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(values)))
    length = data.draw(st.integers(0, len(values)))
    part = stored_as(values, kind).slice(start, length)
    assert raw_values(part) == values[start : start + length]


def test_fixed_size_binary_is_bytes_too() -> None:
    assert raw_values(pa.array([b"abc", None], pa.binary(3))) == [b"abc", None]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, "null content"),
        (b"", "empty content"),
        (b" \t\n", "empty content"),
        ("\u3000".encode(), "empty content"),
        (b"abc\xff", "invalid text: not UTF-8 at byte 3"),
        (b"\xed\xa0\x80", "invalid text: not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_text_says_why(raw: bytes | None, expected: str) -> None:
    with pytest.raises(RowError) as caught:
        to_text(raw)
    assert str(caught.value) == expected


@given(st.text(min_size=1).filter(str.strip))
def test_text_comes_back_unchanged(text: str) -> None:
    assert to_text(text.encode()) == text


def test_details_are_kept_short_and_on_one_line() -> None:
    message = str(RowError("reason", "a\nb\t" + "x" * 1000))
    assert message.startswith("reason: a b xxx")
    assert len(message) < 220


NAMES = ["plain.jpg", "with space.jpg", "per%20cent.jpg", "ünïcode.jpg", "plus+&=.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_local_paths_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    assert read_uri(str(tmp_path / name).encode()) == b"content"


@pytest.mark.parametrize("name", [*NAMES, "hash#1.jpg", "query?.jpg"])
@pytest.mark.parametrize("prefix", ["file:", "file://"])
def test_encoded_file_uris_are_read(tmp_path: Path, prefix: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    assert read_uri(f"{prefix}{quote(str(tmp_path / name))}".encode()) == b"content"


@pytest.mark.parametrize("name", [*NAMES, "hash#1.jpg", "query?.jpg"])
def test_unencoded_file_uris_are_read_as_spark_writes_them(tmp_path: Path, name: str) -> None:
    # The path column of Spark's binaryFile source is Hadoop's Path.toString: nothing is encoded.
    (tmp_path / name).write_bytes(b"content")
    assert read_uri(f"file:{tmp_path / name}".encode()) == b"content"


def test_remote_uris_are_read_through_fsspec() -> None:
    with fsspec.open("memory://ember-rows/a.jpg", "wb") as stream:
        stream.write(b"remote")
    assert read_uri(b"memory://ember-rows/a.jpg") == b"remote"


@pytest.mark.parametrize(
    "missing", ["{}/missing.jpg", "file:{}/missing.jpg", "memory://ember-rows/missing.jpg"]
)
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    uri = missing.format(tmp_path)
    with pytest.raises(RowError) as caught:
        read_uri(uri.encode())
    assert str(caught.value) == f"file not found: {uri}"[: len("file not found: ") + 200]


@pytest.mark.parametrize("odd", ["{}", "nosuchscheme://a/b", "a\0b", "file:a\0b"])
def test_unreadable_file_is_a_row_error(tmp_path: Path, odd: str) -> None:
    with pytest.raises(RowError, match="unreadable file"):
        read_uri(odd.format(tmp_path).encode())


@pytest.mark.parametrize("raw", [None, b"", b"\xff\xfe/a.jpg"])
def test_path_that_is_no_text_is_a_row_error(raw: bytes | None) -> None:
    with pytest.raises(RowError, match=r"null content|empty content|invalid text"):
        read_uri(raw)
