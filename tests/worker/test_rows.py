from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.rows import RowError, raw_values, to_text

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


def test_a_text_over_the_limit_of_bytes_is_not_looked_at() -> None:
    assert to_text("é".encode() * 50, 100) == "é" * 50
    with pytest.raises(RowError) as caught:
        to_text(b"\xff" * 101, 100)
    assert str(caught.value) == "too many bytes: 101 bytes, more than limits.max_bytes = 100"
