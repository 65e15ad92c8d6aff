"""Image rows to the pixels that a model takes whose numbers are made inside of it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.models.pictures import processing
from ember.worker.models.pixel_plan import PixelPlan, Pixels
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["PixelEncoder"]


class PixelEncoder:
    """What runtimes share that take pixels: how a row becomes them. See `encoder.Encoder`.

    plan: to pixels of one size.
    paths: where rows may name files; None where they hold their bytes.
    """

    chunk_rows = 8
    most_padding: int | None = None

    def __init__(
        self, spec: ModelSpec, plan: PixelPlan, batch_size: int, *, paths: PathRules | None
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.paths = paths
        self.batch_size = spec.batch_size or batch_size
        self.batch_cost = self.window_rows = self.batch_size

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Pixels, int] | RowError]:
        """Pixels (h, w, 3) uint8 of each row; the numbers are made for a batch at once."""
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: bytes | None) -> tuple[Pixels, int] | RowError:
        try:
            image = self._picture(raw)
            with processing():
                return self.plan(image), 1
        except RowError as error:
            return error

    def _picture(self, raw: bytes | None) -> Image.Image:
        """The picture of a row. Raises RowError."""
        return decode(content_of(raw, self.paths, self.spec.max_bytes), self.spec.max_pixels)
