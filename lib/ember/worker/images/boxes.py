"""AVIF and JPEG 2000: files of boxes around a stream that says its size a second time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ember.worker.images.av1 import Av1Stream
from ember.worker.images.claims import Claim, corrupt, unsupported

__all__ = ["avif", "is_avif", "is_jpeg2000", "jpeg2000"]

_MOST_BOXES = 4096
_MOST_ITEMS = 65_536
_MOST_EXTENTS = 16
_MOST_STREAMS = 1024
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_MOST_TILES = 10_000
_MOST_LAYERS = 64
_MOST_PRECINCTS = 100_000
# Planes of 16 bits while it is decoded, a copy of the result, and the result.
_AVIF_COST = 3.0
# Planes of 32 bits, and many passes over them.
_JPEG2000_COST = 6.0


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box in data[start:end]."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        stop = end if size == 0 else start + size
        if size and size < header:
            raise corrupt("a box of the file is smaller than its header")
        yield kind, start + header, min(stop, end)
        start = stop
    raise corrupt(f"the file has more than {_MOST_BOXES:,} boxes in a row")


def is_avif(data: bytes) -> bool:
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4]), len(data), 4096)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    return bool(brands & {b"avif", b"avis"})


def avif(data: bytes) -> Claim:
    """See `headers.read_claim`.

    What counts is what the AV1 streams inside say, and how many frames they hold: their decoder
    goes by nothing else.
    """
    sizes: list[tuple[int, int]] = []
    places: list[tuple[int, int]] = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            inside = _Items(data, start + 4, end)
            sizes += inside.sizes
            places += inside.streams()
        elif kind == b"moov":
            places += _first_samples(data, start, end)
    if len(places) > _MOST_STREAMS or sum(length for _, length in places) > 2 * len(data):
        raise corrupt(f"the AVIF has {len(places):,} pictures that lie in one another")
    decoded = sum(_decoded(data, *place) for place in places)
    if not sizes or not decoded:
        raise corrupt("the AVIF says no size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    # Twice: the colors and, in a picture of its own, their opacity.
    cost = _AVIF_COST * max(1.0, decoded / (2 * max(1, width * height)))
    why = "counted as AVIF" if cost == _AVIF_COST else f"{decoded:,} pixels in its streams"
    return Claim("AVIF", width, height, cost, data, why)


def _decoded(data: bytes, start: int, length: int) -> int:
    """Pixels that the decoder makes of one stream."""
    if start + length > len(data):
        return 0  # it refuses a file that ends early
    stream = Av1Stream(data[start : start + length])
    return stream.area * max(1, stream.frames)


class _Items:
    """The pictures that a `meta` box describes."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._kinds: dict[int, bytes] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self.sizes: list[tuple[int, int]] = []
        inner = list(_boxes(data, start, end))
        self._idat = next((begin for kind, begin, _ in inner if kind == b"idat"), 0)
        for kind, begin, stop in inner:
            if kind == b"iinf":
                self._read_kinds(begin, stop)
            elif kind == b"iloc":
                self._read_places(begin)
            elif kind == b"iprp":
                for name, first, last in _boxes(data, begin, stop):
                    if name == b"ipco":
                        self._read_sizes(first, last)

    def streams(self) -> list[tuple[int, int]]:
        return [
            self._places[item]
            for item, kind in self._kinds.items()
            if kind == b"av01" and item in self._places
        ]

    def _read_kinds(self, start: int, end: int) -> None:
        version = self._data[start]
        for kind, begin, _ in _boxes(self._data, start + (6 if version == 0 else 8), end):
            if kind == b"infe":
                wide = self._data[begin] >= 3
                (item,) = struct.unpack_from(">I" if wide else ">H", self._data, begin + 4)
                at = begin + (10 if wide else 8)
                self._kinds[item] = self._data[at : at + 4]

    def _read_places(self, start: int) -> None:
        data, version = self._data, self._data[start]
        sizes, more = data[start + 4], data[start + 5]
        offset_size, length_size = sizes >> 4, sizes & 15
        base_size, index_size = more >> 4, more & 15 if version in (1, 2) else 0
        wide = version == 2
        count = int.from_bytes(data[start + 6 : start + (10 if wide else 8)])
        at = start + (10 if wide else 8)

        def number(size: int) -> int:
            nonlocal at
            at += size
            if at > len(data):
                raise corrupt("the list of items ends early")
            return int.from_bytes(data[at - size : at])

        if count > _MOST_ITEMS:
            raise corrupt(f"the AVIF has {count:,} items")
        for _ in range(count):
            item = number(4 if wide else 2)
            method = number(2) & 15 if version in (1, 2) else 0
            number(2)  # the file
            base, extents = number(base_size), number(2)
            for _ in range(min(extents, _MOST_EXTENTS)):
                number(index_size)
                place, length = base + number(offset_size), number(length_size)
                if method == 1:
                    place += self._idat
                self._places[item] = (place, length)
            if extents > _MOST_EXTENTS:
                raise corrupt("an item of the AVIF lies in too many pieces")
            if (extents != 1 or method > 1) and self._kinds.get(item, b"av01") == b"av01":
                raise unsupported("an AVIF whose pictures lie in several pieces is not read")

    def _read_sizes(self, start: int, end: int) -> None:
        for kind, begin, _ in _boxes(self._data, start, end):
            if kind == b"ispe":
                width, height = struct.unpack_from(">II", self._data, begin + 4)
                self.sizes.append((width, height))


def _first_samples(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the first frame of each track of an animation lies."""
    places = [(begin, stop) for kind, begin, stop in _boxes(data, start, end) if kind == b"trak"]
    for name in (b"mdia", b"minf", b"stbl"):
        places = [
            (begin, stop)
            for place in places
            for kind, begin, stop in _boxes(data, *place)
            if kind == name
        ]
    for table in places:
        place, length = 0, 0
        for kind, at, _ in _boxes(data, *table):
            if kind == b"stco":
                (place,) = struct.unpack_from(">I", data, at + 8)
            elif kind == b"co64":
                (place,) = struct.unpack_from(">Q", data, at + 8)
            elif kind == b"stsz":
                (length,) = struct.unpack_from(">I", data, at + 4)
                if not length:
                    (length,) = struct.unpack_from(">I", data, at + 12)
        yield place, length


def is_jpeg2000(data: bytes) -> bool:
    return data.startswith((_JP2, _CODESTREAM))


def jpeg2000(data: bytes) -> Claim:
    """See `headers.read_claim`. The size is that of the stream, not the box's before it."""
    start = 0
    if data.startswith(_JP2):
        found = [begin for kind, begin, _ in _boxes(data, 0, len(data)) if kind == b"jp2c"]
        if not found:
            raise corrupt("the JPEG 2000 file holds no stream")
        start = found[0]
    if data[start : start + 4] != _CODESTREAM:
        raise corrupt("the JPEG 2000 stream does not begin with its size")
    _, _, x1, y1, x0, y0, w, h, tx, ty, bands = struct.unpack_from(">HHIIIIIIIIH", data, start + 4)
    width, height = x1 - x0, y1 - y0
    if width <= 0 or height <= 0 or not w or not h or bands > 4:
        raise corrupt(f"the JPEG 2000 stream says {width}x{height} and {bands} bands")
    tiles = -(-(x1 - tx) // w) * -(-(y1 - ty) // h)
    if tiles > _MOST_TILES:
        raise unsupported(f"a JPEG 2000 of {tiles:,} tiles is not read")
    size = (width, height)
    position = _check_coding(data, start + 2, len(data), size)
    for _ in range(2 * _MOST_TILES):
        if data[position : position + 2] != b"\xff\x90":
            break
        (length,) = struct.unpack_from(">I", data, position + 6)
        stop = position + length if length else len(data)
        _check_coding(data, position, stop, size)
        if not length:
            break
        position += max(length, 12)
    else:
        raise corrupt("the JPEG 2000 stream has too many parts")
    return Claim("JPEG2000", width, height, _JPEG2000_COST, data, "counted as JPEG 2000")


def _check_coding(data: bytes, position: int, end: int, size: tuple[int, int]) -> int:
    """Walk the marker segments of a header from `position` to `end` at most; where it ends.

    Blocks, precincts and layers far smaller or more than encoders make are refused: each of them
    takes room and time of its own.
    """
    for number in range(_MOST_BOXES):
        if position >= end:
            break
        marker = data[position : position + 2]
        if marker == b"\xff\x93" or (number and marker == b"\xff\x90"):
            return position
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if marker == b"\xff\x52":
            if int.from_bytes(body[2:4]) > _MOST_LAYERS:
                raise unsupported("a JPEG 2000 of so many layers is not read")
            _check_blocks(body[5:], bool(body[0] & 1), size)
        elif marker == b"\xff\x53":
            _check_blocks(body[2:], bool(body[1] & 1), size)
        position += 2 + max(length, 2)
    raise corrupt("a header of the JPEG 2000 stream does not end")


def _check_blocks(body: bytes, precincts: bool, size: tuple[int, int]) -> None:
    levels = body[0]
    if (body[1] & 15) + (body[2] & 15) + 4 < 8:
        raise unsupported("a JPEG 2000 of blocks below 16x16 is not read")
    if not precincts:
        return
    count = 0
    for resolution, power in enumerate(body[5 : 6 + levels]):
        width, height = (-(-side >> max(0, levels - resolution)) for side in size)
        count += ((width >> (power & 15)) + 1) * ((height >> (power >> 4)) + 1)
    if count > _MOST_PRECINCTS:
        raise unsupported(f"a JPEG 2000 of {count:,} precincts is not read")
