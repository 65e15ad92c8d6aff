"""From a row to a picture, and from a picture to what a model's own processor makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from ember.worker.images.decoding import check_shape, decode
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["picture_of", "processing"]


def picture_of(raw: bytes | None, paths: PathRules | None, spec: ModelSpec) -> Image.Image:
    """The picture of a row, in bytes or, with `paths`, in the file that it names.

    Raises RowError for one that cannot be read, or is of a shape that processors cannot scale.
    """
    image = decode(content_of(raw, paths, spec.max_bytes), spec.max_pixels)
    check_shape(image, spec.max_pixels)
    return image


@contextmanager
def processing(reason: str = "unusable image") -> Iterator[None]:
    """Whatever a processor raises for one picture (an odd shape, say) becomes a RowError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise RowError(reason, f"the model's processor says: {error}") from error
