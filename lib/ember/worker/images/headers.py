"""What an encoded image claims to be: read from its bytes before any decoder sees them.

A decoder believes a header: it makes room for what is claimed, and works for as long as the file
asks. So the first bytes tell the format, and its own reader here finds the size and what
a pixel of this file costs, in time and memory, compared with one of an ordinary JPEG. Formats that
hold other formats, run a program or are decoded without any bound are none of these.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

from ember.worker.images import boxes, jpeg, tiff
from ember.worker.images.claims import Claim, corrupt
from ember.worker.rows import RowError

__all__ = ["FORMATS", "read_claim"]

# Most chunks or blocks that are walked through in search of the picture.
_MOST_PARTS = 100_000
# Text chunks of a PNG that may hold its orientation.
_ORIENTED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_MOST_TEXT = 1 << 18
_PPM = re.compile(
    rb"P([1-6])(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})"
    rb"(?:(?:\s|#[^\r\n]*[\r\n])+(\d{1,5}))?\s"
)


def read_claim(data: bytes) -> Claim:
    """The format, size and cost that `data` claims, with the bytes to decode.

    Raises RowError "not an image" for a format that is not read, "unsupported image" for kinds of
    a format that are not, "corrupt image" or "truncated image" for headers without a size.
    """
    for matches, reader in _READERS:
        if matches(data):
            try:
                return reader(data)
            except (struct.error, IndexError, OverflowError):  # places beyond the end
                raise RowError("truncated image", "the file ends in its header") from None
            except ValueError as error:  # what no reader thought of is no reason to end a job
                raise corrupt(f"its header cannot be read: {error}") from error
    for pattern, name in _REFUSED:
        if pattern.match(data):
            raise RowError("not an image", f"{name} is not read; {', '.join(FORMATS)} are")
    raise RowError("not an image", f"{len(data)} bytes of no known format")


def _png(data: bytes) -> Claim:
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise corrupt("the PNG does not begin with its header")
    kept: list[bytes] = []
    copied = position = 8
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind == b"IEND":
            break
        if _is_dropped(kind, data, position + 8, length):
            kept.append(data[copied:position])
            copied = min(end, len(data))
        position = end
    else:
        raise corrupt(f"the PNG has more than {_MOST_PARTS:,} chunks")
    decoded = b"".join([data[:8], *kept, data[copied:]]) if kept else data
    return Claim("PNG", width, height, 2.0 if bits == 16 and color else 1.0, decoded)


def _is_dropped(kind: bytes, data: bytes, start: int, length: int) -> bool:
    """Is a chunk of no use to the pixels of the first picture, nor to its orientation?

    Pillow unpacks profiles and texts, and refuses the picture where they are large.
    """
    if kind in (b"iCCP", b"acTL", b"fcTL", b"fdAT"):
        return True
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        oriented = length <= _MOST_TEXT and data.startswith(_ORIENTED, start)
        return not oriented or _unpacks_large(kind, data[start : start + length])
    return kind == b"eXIf" and length > _MOST_TEXT


def _unpacks_large(kind: bytes, chunk: bytes) -> bool:
    _, _, text = chunk.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and text[:1] == b"\0"):
        return False
    packed = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, _MOST_TEXT)) >= _MOST_TEXT
    except zlib.error:
        return True


def _gif(data: bytes) -> Claim:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    parts = 0
    while parts < _MOST_PARTS:
        parts += 1
        kind = data[position]
        if kind == 0x2C:
            left, top, w, h = struct.unpack_from("<HHHH", data, position + 1)
            return Claim("GIF", max(width, left + w), max(height, top + h), 1.0, data)
        if kind == 0x3B:
            raise corrupt("the GIF holds no picture")
        position += 1
        if kind == 0x21:
            position += 1
            while data[position]:
                position += 1 + data[position]
                parts += 1
                if parts > _MOST_PARTS:
                    break
            position += 1
    raise corrupt(f"the GIF has more than {_MOST_PARTS:,} blocks before its picture")


def _webp(data: bytes) -> Claim:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (each & 0x3FFF for each in struct.unpack_from("<HH", data, 26))
    else:
        raise corrupt("the WebP begins with no picture")
    return Claim("WEBP", width, height, 2.0, data)  # two canvases, and what comes out of them


def _bmp(data: bytes) -> Claim:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    if bits not in (1, 4, 8, 16, 24, 32):
        raise corrupt(f"the BMP has {bits} bits a pixel")
    width, height = abs(width), abs(height)
    cost = 1.0
    if packing in (1, 2):  # run lengths, which Pillow unpacks in Python
        cost = 8.0 + 16 * len(data) / max(1, width * height)
    return Claim("BMP", width, height, cost, data, "run lengths" if cost > 1 else "")


def _ppm(data: bytes) -> Claim:
    found = _PPM.match(data[:4096])
    if found is None:
        raise corrupt("the header of the PNM file is none, or longer than 4 KiB")
    kind, width, height = found[1], int(found[2]), int(found[3])
    if kind not in b"14" and found[4] is None:
        raise corrupt("the header of the PNM file says no largest value")
    cost = 1.0
    if kind in b"123" or (kind != b"4" and int(found[4]) not in (255, 65_535)):
        # Pillow reads the values one by one, in Python.
        cost = 32.0 + len(data) / max(1, width * height)
    elif kind == b"6" and int(found[4]) == 65_535:
        cost = 32.0
    return Claim("PPM", width, height, cost, data, "values one by one" if cost > 1 else "")


def _starts(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(prefixes)


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Claim]], ...] = (
    (_starts(b"\xff\xd8\xff"), jpeg.claim),
    (_starts(b"\x89PNG\r\n\x1a\n"), _png),
    (_starts(b"GIF87a", b"GIF89a"), _gif),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (_starts(*tiff.PREFIXES), tiff.claim),
    (boxes.is_avif, boxes.avif),
    (boxes.is_jpeg2000, boxes.jpeg2000),
    (_starts(b"BM"), _bmp),
    (lambda data: data[:1] == b"P" and data[1:2] in tuple(b"%d" % n for n in range(1, 7)), _ppm),
)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "BMP", "PPM")

# Told apart only so that the error names them.
_REFUSED = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"%!PS|\xc5\xd0\xd3\xc6", "EPS"),
        (rb"%PDF", "PDF"),
        (rb"\s*<(\?xml|svg|!DOCTYPE svg)", "SVG"),
        (rb"\0\0[\1\2]\0", "ICO"),
        (rb"icns", "ICNS"),
        (rb"8BPS", "PSD"),
        (rb"SIMPLE  =", "FITS"),
        (rb"....ftyp(hei|hev|mif)", "HEIF"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
        (rb"\x1c[\1-\x09]", "IPTC"),
        (rb"qoif", "QOI"),
    )
)
