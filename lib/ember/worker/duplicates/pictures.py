"""Pictures as copies of one another: perceptual hashes of 64 bits, and the bands they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["BITS", "perceptual_hash", "picture_bands"]

BITS = 64
_SIDE = 32  # that of imagehash.phash, whose transform is taken of so many pixels squared
# Standard deviation of the brightness, of 255, below which a picture has nothing to compare.
_FLAT = 2.0


def perceptual_hash(image: Image.Image) -> int | None:
    """The hash of a picture's brightness (imagehash.phash), as a signed number of 64 bits.

    The signs of its lowest frequencies: scaling, recompression and small marks change few of them.
    Color counts for nothing. None for a picture of one brightness, whose hash would be noise.
    """
    import imagehash

    gray = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if np.asarray(gray).std() < _FLAT:
        return None
    bits = np.packbits(imagehash.phash(gray).hash.ravel()).tobytes()
    return int.from_bytes(bits, "big", signed=True)


def picture_bands(hashes: Sequence[int], distance: int) -> npt.NDArray[np.int64]:
    """The keys (n, distance + 1) of the buckets that n hashes are in.

    Two hashes that differ in at most `distance` bits agree in one of that many bands and one more,
    so that they are in a bucket together. None (n, 0) for distance 0, where hashes are equal.
    """
    values = np.array(hashes, np.int64).view(np.uint64)
    if not distance:
        return np.zeros((len(values), 0), np.int64)
    ends = np.linspace(0, BITS, distance + 2).round().astype(np.uint64)
    keys = np.zeros((len(values), distance + 1), np.uint64)
    for band, (first, end) in enumerate(pairwise(ends)):
        mask = (np.uint64(1) << (end - first)) - np.uint64(1)
        keys[:, band] = (np.uint64(band) << np.uint64(BITS // 2)) | ((values >> first) & mask)
    return keys.view(np.int64)
