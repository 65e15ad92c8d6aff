"""What numbers an image processor makes of pixels, found by trying it: colors, times and plus.

Where it is no more than that, workers hand on bytes, a fourth of the numbers, and the numbers are
made for a batch at once where the model is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ember.worker.models.pixel_plan import PixelPlan

__all__ = ["SHAPES", "PixelNumbers", "find_numbers"]

# Width and height of pictures to try: of what is scaled down, up, cropped, and is too small for it.
SHAPES = ((64, 64), (500, 375), (300, 1024), (225, 227), (33, 90))
_RGB, _BGR = (0, 1, 2), (2, 1, 0)
_COLORS = ("black", "red", "lime", "blue")
# Of what the processor makes; its numbers are near 1.
_SAME = 1e-5


@dataclass(frozen=True)
class PixelNumbers:
    """Three numbers of each pixel: the colors at `order`, times `scale`, plus `shift`."""

    order: tuple[int, ...]
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def of(self, pixels: Any, scale: Any, shift: Any) -> Any:
        """Tensors (n, h, w, 3) uint8 to (n, 3, h, w) float32, channels last in memory.

        scale, shift: those of `self` as tensors (3,) float32 where the pixels are.
        """
        if self.order == _BGR:
            pixels = pixels.flip(-1)
        elif self.order != _RGB:
            pixels = pixels[..., list(self.order)]
        return (pixels.float() * scale + shift).permute(0, 3, 1, 2)

    @property
    def needs_no_index(self) -> bool:
        """Are the colors as they were or turned round, for which no index goes to a device?"""
        return self.order in (_RGB, _BGR)


def find_numbers(
    processed: Callable[[Image.Image], npt.NDArray[Any]], plan: PixelPlan
) -> PixelNumbers | None:
    """Read off pictures of one color; None where a processor does more than the plan and these.

    processed: a picture to the numbers (3, h, w) that the processor makes of it.
    """
    solid = [Image.new("RGB", SHAPES[0], color) for color in _COLORS]
    made = [processed(each) for each in solid]
    # In the middle: around what is too small for a crop there is black.
    black, *colors = (each[:, each.shape[1] // 2, each.shape[2] // 2] for each in made)
    black = black.astype(np.float64)
    by_color = np.stack([each - black for each in colors], axis=1) / 255  # (3, 3): number, color
    order = np.abs(by_color).argmax(axis=1)
    scale = by_color[np.arange(3), order]
    rng = np.random.default_rng(0)
    for width, height in SHAPES:
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        expected = processed(noise)
        found = np.moveaxis(plan(noise)[..., order] * scale + black, -1, 0)
        if found.shape != expected.shape or np.abs(found - expected).max() > _SAME:
            return None
    return PixelNumbers(tuple(order.tolist()), tuple(scale.tolist()), tuple(black.tolist()))
