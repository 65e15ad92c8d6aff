"""Image rows to the square of pixels that a model of keras.applications takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError
from ember.worker.spec import KERAS_INPUT_SIZE, ModelSpec

__all__ = ["PixelEncoder", "Pixels", "to_pixels"]

Pixels = npt.NDArray[np.uint8]


def to_pixels(image: Image.Image, size: int) -> Pixels:
    """RGB image to (size, size, 3) uint8, as keras.utils.load_img(target_size=...) does it.

    That is nearest-neighbor, the library's documented recipe for these models.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(image)


class PixelEncoder:
    """What the runtimes of Keras models share: how a row becomes pixels. See `batching.Encoder`.

    paths: where rows may name files; None where they hold their bytes.
    """

    chunk_rows = 8
    truncated = 0

    def __init__(self, spec: ModelSpec, batch_size: int, *, paths: PathRules | None) -> None:
        self.spec = spec
        self.paths = paths
        self.size = KERAS_INPUT_SIZE[spec.architecture]
        self.batch_size = spec.batch_size or batch_size
        self.batch_cost = self.window_rows = self.batch_size

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Pixels, int] | RowError]:
        """Pixels (h, w, 3) uint8 of each row; the preprocessing is done for a batch at once."""
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: bytes | None) -> tuple[Pixels, int] | RowError:
        try:
            data = content_of(raw, self.paths, self.spec.max_bytes)
            return to_pixels(decode(data, self.spec.max_pixels), self.size), 1
        except RowError as error:
            return error
