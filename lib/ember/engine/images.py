"""Encoded images to upright RGB, with a reason for every one that cannot be."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ember.engine.rows import RowError

__all__ = ["decode"]


def decode(data: bytes | None, max_pixels: int) -> Image.Image:
    """One encoded image (any format Pillow reads) as an upright RGB image.

    The EXIF orientation is applied; of an animation the first frame is taken; transparency is
    dropped; 16-bit grey is scaled to 8 bits.

    Raises RowError: null or empty content, not an image, truncated, corrupt, a single pixel
    (placeholders and tracking pixels carry no picture), more than `max_pixels` pixels. The size
    is checked from the header, before anything is decompressed.
    """
    if data is None:
        raise RowError("null content")
    if not data:
        raise RowError("empty content")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise RowError("not an image", f"{len(data)} bytes of no known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError("too many pixels", str(error)) from None
    except Exception as error:  # decoders raise almost anything on hostile bytes
        raise _broken(error) from error
    with image:
        if image.format == "EPS":  # a program, which Pillow would hand to Ghostscript
            raise RowError("not an image", "EPS is a page description")
        width, height = image.size
        if width * height > max_pixels:
            raise RowError(
                "too many pixels", f"{width}x{height} is over the limit of {max_pixels:,} pixels"
            )
        if width * height <= 1:
            raise RowError("single pixel image", f"{width}x{height} {image.format}")
        try:
            return _to_rgb(_upright(image))
        except Exception as error:  # as above: the pixels are decoded only here
            raise _broken(error) from error


def _broken(error: Exception) -> RowError:
    reason = "truncated image" if "truncated" in str(error).lower() else "corrupt image"
    return RowError(reason, f"{type(error).__name__}: {error}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF beside sound pixels; broken pixels raise again later
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey to 255, which leaves a white picture.
        grey = np.asarray(image)
        if grey.max(initial=0) > 255:
            grey = grey >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode != "RGB":
        # Dropped before the conversion, which warns of a palette with several transparent colours.
        image.info.pop("transparency", None)
        return image.convert("RGB")
    image.load()
    return image
