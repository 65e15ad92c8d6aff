"""The first picture of a TIFF file, as its directory describes it."""

from __future__ import annotations

import struct

from ember.worker.images.claims import Claim, corrupt, unsupported

__all__ = ["PREFIXES", "claim"]

PREFIXES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")
_MOST_TAGS = 4096
_MOST_VALUES = 1 << 20
# Of numbers only: Pillow makes Python objects of these, and leaves bytes and texts as they are.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBERS = {3: "H", 4: "I", 13: "I", 16: "Q", 1: "B"}
_PLAIN = (1, 2, 6, 7)
# None, CCITT (three kinds), LZW, JPEG, Deflate (two names), PackBits.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32946, 32773}
_JPEG = 7
# A strip or tile takes as long as so many pixels, however small it is.
_LEAST_PART = 1024
_USUAL_SCANS = 10

_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _PLANES = 256, 257, 259, 277, 284
_STRIPS, _ROWS, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325


def claim(data: bytes) -> Claim:
    """See `headers.read_claim`. A pixel costs more where strips or tiles cover it twice."""
    tags = _Tags(data)
    width, height = tags.number(_WIDTH), tags.number(_HEIGHT)
    if not width or not height:
        raise corrupt("the TIFF says no size")
    compression = tags.number(_COMPRESSION) or 1
    if compression not in _COMPRESSIONS:
        raise unsupported(f"compression {compression} of TIFF is not read")
    planes = (tags.number(_SAMPLES) or 1) if tags.number(_PLANES) == 2 else 1
    if tags.count(_STRIPS):
        w, h = width, min(tags.number(_ROWS) or height, height)
        parts, sizes = tags.count(_STRIPS), _STRIP_BYTES
        offsets = _STRIPS
    else:
        w, h = tags.number(_TILE_WIDTH), tags.number(_TILE_HEIGHT)
        parts, sizes = tags.count(_TILES), _TILE_BYTES
        offsets = _TILES
    if not w or not h or not parts:
        raise corrupt("the TIFF has neither strips nor tiles")
    across, down = -(-width // w), -(-height // h)
    each = max(w * h, _LEAST_PART)
    covered = each * max(across * down, -(-parts // max(1, planes)))
    cost = max(1.0, covered / (width * height))
    scans = 1
    if compression == _JPEG:
        scans = _scans(data, tags.numbers(offsets), tags.numbers(sizes))
        cost *= max(1.0, scans / _USUAL_SCANS)
    why = f"{parts} strips or tiles of {w}x{h}" if cost > 1 else ""
    if scans > _USUAL_SCANS:
        why = f"{scans} scans"
    return Claim("TIFF", width, height, cost, data, why)


def _scans(data: bytes, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """The most scans that a strip or tile has."""
    if not sizes or len(sizes) != len(offsets) or sum(sizes) > 2 * len(data) + _MOST_VALUES:
        raise corrupt("the strips or tiles of the TIFF do not fit into the file")
    places = zip(offsets, sizes, strict=True)
    return max(data.count(b"\xff\xda", start, start + size) for start, size in places)


class _Tags:
    """The entries of the first directory: where their values lie, and how many there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data[:1] == b"I" else ">"
        big = b"+" in data[2:4]
        self._entries: dict[int, tuple[int, int, int]] = {}
        start = self._one("Q", 8) if big else self._one("I", 4)
        entries = self._one("Q", start) if big else self._one("H", start)
        if entries > _MOST_TAGS:
            raise corrupt(f"the TIFF has {entries:,} tags")
        step, inline, kind = (20, 8, "Q") if big else (12, 4, "I")
        for number in range(entries):
            entry = start + (8 if big else 2) + number * step
            tag, form = struct.unpack_from(f"{self._order}HH", data, entry)
            count = self._one(kind, entry + 4)
            size = _SIZES.get(form)
            if size is None or tag in self._entries:
                continue
            if form not in _PLAIN and count > _MOST_VALUES:
                raise corrupt(f"tag {tag} of the TIFF has {count:,} values")
            value = entry + 4 + inline
            place = value if count * size <= inline else self._one(kind, value)
            self._entries[tag] = (form, count, place)

    def _one(self, form: str, place: int) -> int:
        (value,) = struct.unpack_from(self._order + form, self._data, place)
        return int(value)

    def count(self, tag: int) -> int:
        return self._entries[tag][1] if tag in self._entries else 0

    def number(self, tag: int) -> int:
        """The value of a tag of one number; 0 where there is none."""
        form, count, place = self._entries.get(tag, (0, 0, 0))
        return self._one(_NUMBERS[form], place) if count and form in _NUMBERS else 0

    def numbers(self, tag: int) -> tuple[int, ...]:
        form, count, place = self._entries.get(tag, (0, 0, 0))
        if form not in _NUMBERS or form in _PLAIN:
            return ()
        return struct.unpack_from(f"{self._order}{count}{_NUMBERS[form]}", self._data, place)
