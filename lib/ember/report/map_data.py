"""What the page of a map holds: points, colors as scales or categories, contents."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ember.evaluation.joining import in_order
from ember.report.map_content import Told

__all__ = ["Color", "MapPage", "color_of", "packed"]

_MOST_NAMES = 2000  # of a color, each of at most so many characters
_LONGEST_NAME = 80
_NONE = 65535
_OUTSIDE = 0.01  # share of the rows at either end of a scale that are drawn as its ends
_MARKED = 24  # categories that have a mark of their own, as in map_rows.js
_FEW = 20  # different integers that are categories rather than amounts


@dataclass(frozen=True)
class Color:
    """A color of all points. fields: as map_rows.js reads them."""

    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class MapPage:
    """What a page shows of n points: ids as text; x and y, (n,) float32; colors and contents."""

    ids: Sequence[str]
    x: np.ndarray
    y: np.ndarray
    colors: Sequence[Color]
    told: Told


def color_of(name: str, values: pa.ChunkedArray) -> Color:
    """A column as a scale, where it holds fractions or many integers; else as categories."""
    kind = values.type
    number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if pa.types.is_integer(kind) and len(values.unique()) > _FEW:
        number = True
    return Color(name, _scale(values) if number else _categories(values))


def _scale(values: pa.ChunkedArray) -> dict[str, Any]:
    numbers = values.cast(pa.float64(), safe=False).to_numpy()
    with np.errstate(over="ignore"):  # beyond float32: infinite, and so none
        numbers = numbers.astype(np.float32)
    known = numbers[np.isfinite(numbers)]
    numbers = np.where(np.isfinite(numbers), numbers, np.float32("nan"))
    ends = np.quantile(known, [_OUTSIDE, 1 - _OUTSIDE]) if len(known) else np.zeros(2)
    if len(known) and ends[0] == ends[1]:  # nearly all are one value
        ends = np.array([known.min(), known.max()])
    low, high = map(float, ends)
    return {
        "kind": "number",
        "values": packed(numbers.astype("<f4")),
        "low": low,
        "high": high,
        "cutLow": bool(len(known) and known.min() < low),
        "cutHigh": bool(len(known) and known.max() > high),
    }


def _categories(values: pa.ChunkedArray) -> dict[str, Any]:
    """Names, and for each row the place of its own: in order, of many the most frequent first."""
    texts = [None if each is None else _text(each) for each in values.to_pylist()]
    counts = Counter(text for text in texts if text is not None)
    names = sorted(counts, key=lambda text: (-counts[text], text))
    names = in_order(names) if len(names) <= _MARKED else names
    places = {text: min(place, _MOST_NAMES) for place, text in enumerate(names)}
    codes = [_NONE if text is None else places[text] for text in texts]
    more = len(names) > _MOST_NAMES
    return {
        "kind": "category",
        "names": [*names[:_MOST_NAMES], *(["another"] if more else [])],
        "more": more,
        "codes": packed(np.array(codes, "<u2")),
    }


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def packed(data: bytes | np.ndarray) -> str:
    """Bytes, or the numbers of an array, in base64."""
    raw = data if isinstance(data, bytes) else data.tobytes()
    return base64.b64encode(raw).decode()
