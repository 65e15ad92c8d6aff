"""Encoded images to upright RGB, with a reason for every one that cannot be."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ember.worker.images.claims import MAX_SIDE, Claim
from ember.worker.images.headers import FORMATS, read_claim
from ember.worker.rows import RowError

__all__ = ["FORMATS", "check_shape", "decode"]

_ORIENTATION = 0x0112
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes | None, max_pixels: int) -> Image.Image:
    """One encoded image, of a format among FORMATS, as an upright RGB image.

    The EXIF orientation is applied; of an animation the first frame is taken; transparency is
    dropped. Gray of 16 or more bits is scaled from 0 … 65,535 to 8 bits, whatever its values are;
    floating-point gray is taken as 0 … 255. TIFF's gray of 12 bits is scaled from 0 … 4,095, its
    signed samples of 8 and 16 bits begin at -128 and -32,768, and where it says that 0 is white,
    0 is white.

    A pixel of a file that costs more to decode than one of a JPEG (see
    `headers.read_claim`) counts for several against `max_pixels`, so that it bounds the
    time and the memory of a row as well: 16 bytes a pixel and what `data` takes.

    Raises RowError: null or empty content, not an image, a kind of image that is not read,
    truncated, corrupt, a single pixel (placeholders and tracking pixels carry no picture), more
    than `max_pixels` pixels. The size is checked from the header, before anything is decompressed,
    and that of what comes out again.
    """
    if data is None:
        raise RowError("null content")
    if not data:
        raise RowError("empty content")
    claim = read_claim(data)
    _check_size(claim, (claim.width, claim.height), max_pixels)
    try:
        image = Image.open(io.BytesIO(claim.data), formats=(claim.format,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError("too many pixels", str(error)) from None
    except UnidentifiedImageError:
        raise RowError("corrupt image", f"no {claim.format} that can be read") from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise _broken(error) from error
    with image:
        _check_size(claim, image.size, max_pixels)
        if image.width * image.height <= 1:
            raise RowError("single pixel image", f"{image.width}x{image.height} {image.format}")
        try:
            image.load()
            upright = _upright(image)
        except Exception as error:  # as above: the pixels are decoded only here
            raise _broken(error) from error
        _check_size(claim, upright.size, max_pixels)
        try:
            return _to_rgb(upright)
        except RowError:
            raise
        except Exception as error:
            raise RowError("unsupported image", f"{image.format} in {image.mode}") from error


def check_shape(image: Image.Image, max_pixels: int) -> None:
    """Raise RowError for a strip: 1 × 9,000 pixels, scaled by the short side, take gigabytes."""
    width, height = image.size
    scaled = 512 * 512 * max(width, height) // min(width, height)
    if scaled > max_pixels:
        raise RowError("too many pixels", f"{width}x{height} is too long a strip to scale")


def _check_size(claim: Claim, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if max(size) > MAX_SIDE:
        raise RowError("too many pixels", f"a side of {width}x{height} is over {MAX_SIDE:,}")
    if width * height * claim.cost > max_pixels:
        counted = width * height * claim.cost
        more = f" counts for {counted:,.0f} ({claim.why}), which" if claim.why else ""
        raise RowError(
            "too many pixels", f"{width}x{height}{more} is over the limit of {max_pixels:,} pixels"
        )


def _broken(error: Exception) -> RowError:
    if isinstance(error, MemoryError):
        return RowError("out of memory", "the picture takes more than the worker may have")
    reason = "truncated image" if "truncated" in str(error).lower() else "corrupt image"
    return RowError(reason, f"{type(error).__name__}: {error}")


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "TIFF":  # Pillow has turned it
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # unreadable EXIF beside sound pixels
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.format == "TIFF" and image.mode[:1] in "LIF" and len(image.getbands()) == 1:
        return Image.fromarray(_tiff_gray(image)).convert("RGB")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips gray of more than 8 bits to 255: a white picture.
        return Image.fromarray(_eight_bits(np.asarray(image), 16)).convert("RGB")
    if image.mode == "RGB":
        return image
    # Dropped before the conversion, which warns of a palette with several transparent colors.
    image.info.pop("transparency", None)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def _tiff_gray(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The samples of a TIFF as its tags mean them, which Pillow's modes do not tell."""
    tags = image.tag_v2
    if image.mode in ("I", "F") and tags.prefix == b"MM" and tags.get(_COMPRESSION, 1) != 1:
        # Pillow swaps the bytes that libtiff has swapped already: noise.
        raise RowError("unsupported image", "compressed big-endian TIFF of signed or float gray")
    bits = tags.get(_BITS, (1,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    if image.mode == "L":  # Pillow has turned and filled these, but for their sign
        gray: npt.NDArray[np.uint8] = np.asarray(image)
        return gray ^ np.uint8(0x80) if signed else gray
    if image.mode == "F":
        gray = np.asarray(image.convert("L"))
    else:
        samples = np.asarray(image)
        if bits == 32 and not signed:
            samples = samples.view(np.uint32)
        elif bits == 16 and signed:
            samples = samples + 0x8000
        gray = _eight_bits(samples, min(bits, 16))
    return ~gray if tags.get(_PHOTOMETRIC, 0) == 0 else gray


def _eight_bits(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    if samples.dtype.itemsize > 2:
        samples = samples.clip(0, (1 << bits) - 1)
    return (samples >> bits - 8).astype(np.uint8)
