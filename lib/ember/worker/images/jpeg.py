"""The segments of a JPEG: its size, how many scans there are, and what nobody should read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ember.worker.images.claims import Claim, corrupt
from ember.worker.rows import RowError

__all__ = ["claim"]

# Passes over each color that the scans of a progressive JPEG make, from ordinary encoders.
_USUAL_PASSES = 6
_MOST_SEGMENTS = 20_000
# Bytes between segments that belong to none: Pillow skips them one by one.
_MOST_JUNK = 65_536
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ARITHMETIC = 0xC8  # the kinds above it; they take some four times as long
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_ALONE = {0x00, 0x01, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # markers without a length
_FILL = re.compile(rb"\xff+")
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no `+`: it would be tried at each byte


def claim(data: bytes) -> Claim:
    """See `headers.read_claim`. A pixel costs more with more scans than usual."""
    size, layers, kind = (0, 0), 0, 0
    exifs = 0
    kept: list[bytes] = []  # what is decoded, where a part of the file is left out
    copied = 0
    for marker, start, end in _segments(data):
        if marker in _FRAMES:
            size = (int.from_bytes(data[start + 7 : start + 9]), _word(data, start + 5))
            layers, kind = data[start + 9], marker
        elif marker == _APP1 and data.startswith(b"Exif\0\0", start + 4):
            exifs += 1
            if exifs > 1:  # Pillow would put them together, in time that grows with the square
                kept.append(data[copied:start])
                copied = end
        elif marker == _SCAN:
            break
    if not layers:
        raise corrupt("the JPEG has no frame header")
    passes = layers
    if kind in _PROGRESSIVE or data[start + 4] != layers:
        passes = _passes(data, start)
    cost = max(1.0, passes * (4 if kind > _ARITHMETIC else 1) / (_USUAL_PASSES * layers))
    decoded = b"".join([*kept, data[copied:]]) if kept else data
    why = f"{passes} passes over {layers} colors" if cost > 1 else ""
    return Claim("JPEG", *size, cost, decoded, why)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, up to the first scan's."""
    position, junk = 2, 0
    for _ in range(_MOST_SEGMENTS):
        found = _FILL.search(data, position)
        if found is None or found.end() >= len(data):
            raise RowError("truncated image", "the file ends before its pixels")
        marker, start = data[found.end()], found.end() - 1
        junk += start - position
        if junk > _MOST_JUNK:
            raise corrupt("too much between the segments of the JPEG")
        end = found.end() + 1 if marker in _ALONE else found.end() + 1 + _word(data, start + 2)
        yield marker, start, end
        position = end
    raise corrupt(f"the JPEG has more than {_MOST_SEGMENTS:,} segments before its pixels")


def _passes(data: bytes, position: int) -> int:
    """Over how many colors the scans go, from the one at `position` to the end of the image."""
    passes = 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or found[1][0] == _END:
            return passes
        position = found.end()
        if found[1][0] not in _ALONE:
            if found[1][0] == _SCAN:
                passes += data[position + 2]
            position += _word(data, position)
    raise corrupt(f"the JPEG has more than {_MOST_SEGMENTS:,} segments among its pixels")


def _word(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 2])
