"""Pictures in many formats and modes, as bytes, and why some are refused."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.rows import RowError

LIMIT = 1_000_000


def reason(data: bytes | None, limit: int = LIMIT) -> str:
    """Why bytes are refused as an image."""
    with pytest.raises(RowError) as caught:
        decode(data, limit)
    return str(caught.value)


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth gradient with some noise: no two neighboring rows, columns or channels alike."""
    rng = np.random.default_rng(seed)
    x, y = np.linspace(0, 200, width), np.linspace(0, 200, height)[:, None]
    channels = [x + 0 * y, y + 0 * x, (x + y) / 2]
    noisy = np.stack(channels, axis=-1) + rng.integers(0, 50, (height, width, 3))
    return Image.fromarray(noisy.astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def gray16(width: int = 60, height: int = 40) -> Image.Image:
    values = np.arange(width * height, dtype=np.uint32).reshape(height, width) * 27
    return Image.fromarray(values.astype(np.uint16))


def gray_tiff(samples: np.ndarray, *, bits: int = 0, white: int = 1, packed: bool = False) -> bytes:
    """A TIFF of the samples (h, w): as their dtype, or of 12 `bits`; `white` is its tag 262.

    packed: with deflate, which another reader of Pillow's unpacks.
    """
    height, width = samples.shape
    if bits == 12:  # each row ends with a whole byte
        rows = ["".join(f"{value:012b}" for value in row) for row in samples]
        content = b"".join(
            int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8))
            for row in rows
        )
    else:
        content = samples.tobytes()
    order = ">" if samples.dtype.byteorder == ">" else "<"
    if packed:
        content = zlib.compress(content)
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    entries = {
        256: width, 257: height, 258: bits or samples.itemsize * 8, 259: 8 if packed else 1,
        262: white, 273: 8, 277: 1, 278: height, 279: len(content), 339: kind,
    }  # fmt: skip
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, n) for tag, n in entries.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    return head + content + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


def oriented(image: Image.Image, orientation: int, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, form, exif=exif)


def animation() -> bytes:
    frames = [picture(seed=seed).quantize(32) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@cache
def bomb(side: int = 30_000) -> bytes:
    """A sound PNG of side × side black pixels in about a hundred kilobytes."""
    row = 1 + (side + 7) // 8
    rows = 100
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(row * rows)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(side // rows):
        checksum = zlib.adler32(bytes(row * rows), checksum)
    deflated = b"\x78\xda" + block * (side // rows) + b"\x03\x00" + struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", deflated), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@cache
def odd_images() -> dict[str, bytes]:
    """Name → file; every one can be decoded."""
    rgb = picture()
    palette = rgb.quantize(16)
    return {
        "jpeg": encoded(rgb, "JPEG", quality=90),
        "progressive jpeg": encoded(rgb, "JPEG", progressive=True),
        "png": encoded(rgb, "PNG"),
        "gif": encoded(palette, "GIF"),
        "animated gif": animation(),
        "webp": encoded(rgb, "WEBP"),
        "bmp": encoded(rgb, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "compressed tiff": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "rgba png": encoded(_with_alpha(rgb), "PNG"),
        "rgba webp": encoded(_with_alpha(rgb), "WEBP", lossless=True),
        "gray png": encoded(rgb.convert("L"), "PNG"),
        "gray jpeg": encoded(rgb.convert("L"), "JPEG"),
        "gray alpha png": encoded(_with_alpha(rgb).convert("LA"), "PNG"),
        "cmyk jpeg": encoded(rgb.convert("CMYK"), "JPEG"),
        "cmyk tiff": encoded(rgb.convert("CMYK"), "TIFF"),
        "palette png": encoded(palette, "PNG"),
        "palette png, one transparent": encoded(palette, "PNG", transparency=3),
        "palette png, many transparent": encoded(palette, "PNG", transparency=bytes(range(16))),
        "bilevel png": encoded(rgb.convert("1"), "PNG"),
        "wide": encoded(picture(200, 3), "PNG"),
        "tall": encoded(picture(3, 200), "PNG"),
        "two pixels": encoded(picture(2, 1), "PNG"),
    }


def _with_alpha(image: Image.Image) -> Image.Image:
    alpha = Image.linear_gradient("L").resize(image.size)
    image = image.copy()
    image.putalpha(alpha)
    return image
