"""How a picture becomes the pixels that a model takes, as plain data that needs no framework.

What transformers' image processors and Keras do before they calculate with numbers is to scale and
to crop with Pillow. A plan says so in words that travel to workers, which then import neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["PixelPlan", "Pixels", "plan_of", "to_size"]

Pixels = npt.NDArray[np.uint8]
"""A picture for a model: (h, w, 3), red first."""

# Sizes below this ConvNeXt's processor scales larger and crops; the number is its own.
_WARPED = 384


@dataclass(frozen=True)
class PixelPlan:
    """Steps with Pillow, in order.

    steps: ("shorter", n, n) scales the shorter side to n and keeps the shape; ("exact", h, w)
        scales to a size; ("crop", h, w) takes the middle, with black around what is too small.
    resample: Pillow's number of the filter.
    """

    steps: tuple[tuple[str, int, int], ...]
    resample: int

    def __call__(self, image: Image.Image) -> Pixels:
        """The pixels of an RGB picture, (h, w, 3) as the last step has them."""
        pixels = image
        for kind, height, width in self.steps:
            if kind == "crop":
                pixels = _middle(pixels, height, width)
                continue
            size = _shorter(pixels.size, height) if kind == "shorter" else (width, height)
            if size != pixels.size:
                pixels = pixels.resize(size, Image.Resampling(self.resample))
        return np.asarray(pixels)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of all pictures; None where pictures keep their shapes."""
        kind, height, width = self.steps[-1] if self.steps else ("shorter", 0, 0)
        return None if kind == "shorter" else (height, width)

    def to_json(self) -> dict[str, Any]:
        return {"steps": [list(step) for step in self.steps], "resample": self.resample}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> PixelPlan:
        """A plan from what `to_json` made."""
        steps = tuple((str(kind), int(height), int(width)) for kind, height, width in said["steps"])
        return cls(steps, int(said["resample"]))


def to_size(size: int) -> PixelPlan:
    """To a square by the nearest pixel, as keras.utils.load_img(target_size=...) does it.

    That is the library's documented recipe for the models of keras.applications.
    """
    return PixelPlan((("exact", size, size),), int(Image.Resampling.NEAREST))


def plan_of(processor: Any) -> PixelPlan | None:
    """What an image processor of transformers says of itself; None where no plan can say it.

    Whether the processor does no more than that has to be tried: a class may do anything.
    """
    steps: list[tuple[str, int, int]] = []
    size = _sizes(processor.size)
    if getattr(processor, "do_resize", False):
        cropped = getattr(processor, "crop_pct", None)
        shorter = size.get("shortest_edge")
        if shorter and cropped and shorter < _WARPED:
            larger = int(shorter / cropped)
            steps += [("shorter", larger, larger), ("crop", shorter, shorter)]
        elif shorter and cropped:
            steps.append(("exact", shorter, shorter))
        elif size.keys() == {"shortest_edge"}:
            steps.append(("shorter", size["shortest_edge"], size["shortest_edge"]))
        elif size.keys() == {"height", "width"}:
            steps.append(("exact", size["height"], size["width"]))
        else:
            return None
    if getattr(processor, "do_center_crop", False):
        cut = _sizes(processor.crop_size)
        if cut.keys() != {"height", "width"}:
            return None
        steps.append(("crop", cut["height"], cut["width"]))
    plan = PixelPlan(tuple(steps), int(processor.resample or Image.Resampling.BILINEAR))
    return plan if plan.size else None


def _sizes(said: Any) -> dict[str, int]:
    """The sizes that are set, of a dictionary or an object of transformers."""
    return {name: int(value) for name, value in dict(said or {}).items() if value}


def _shorter(size: tuple[int, int], length: int) -> tuple[int, int]:
    """Width and height with the shorter of the two at `length`, the longer rounded down."""
    width, height = size
    longer = int(length * max(size) / min(size))
    return (length, longer) if width <= height else (longer, length)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture. Of odd margins the larger one is at the bottom and at the right.

    Where the picture is too small, black is put around it, and then the other way round.
    """
    left, top = _margin(image.width, width), _margin(image.height, height)
    return image.crop((left, top, left + width, top + height))


def _margin(length: int, kept: int) -> int:
    """What is left out before the middle; negative: what is put there."""
    return (length - kept) // 2
