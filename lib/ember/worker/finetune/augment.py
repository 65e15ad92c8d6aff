"""Pictures as a training step sees them: another crop and another side each time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Augmentation"]

_RATIO = (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """A random part of the picture, resized, and every other time mirrored.

    The crop is that of Szegedy et al., Going Deeper with Convolutions (2015), as torchvision's
    RandomResizedCrop: an area between `min_area` and 1 of the picture's, a ratio of sides between
    3/4 and 4/3 drawn on a logarithmic scale, and the middle where ten draws do not fit.
    """

    flip: bool = True
    min_area: float = 0.35

    def apply(
        self, image: Image.Image, size: tuple[int, int], rng: np.random.Generator
    ) -> Image.Image:
        """The picture at `size` (width, height)."""
        part = image.resize(size, Image.Resampling.BILINEAR, box=self._box(image.size, rng))
        if self.flip and rng.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return part

    def _box(
        self, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[float, float, float, float]:
        width, height = size
        for _ in range(_TRIES):
            area = width * height * rng.uniform(self.min_area, 1)
            ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return left, top, left + w, top + h
        w, h = min(width, height * _RATIO[1]), min(height, width / _RATIO[0])
        left, top = (width - w) / 2, (height - h) / 2
        return left, top, left + w, top + h
