"""What the header of an image says of it, and the errors of headers that cannot be believed."""

from __future__ import annotations

from dataclasses import dataclass

from ember.worker.rows import RowError

__all__ = ["MAX_SIDE", "Claim", "corrupt", "unsupported"]

# As far as JPEG goes. Longer ones of other formats are strips whose rows cost more than pixels.
MAX_SIDE = 65_535


@dataclass(frozen=True)
class Claim:
    """The format as Pillow names it, the size, and the bytes to decode.

    cost: what a pixel takes in time and memory, in pixels of an ordinary JPEG. why: what makes it
    cost more, for the error.
    """

    format: str
    width: int
    height: int
    cost: float
    data: bytes
    why: str = ""


def corrupt(detail: str) -> RowError:
    return RowError("corrupt image", detail)


def unsupported(detail: str) -> RowError:
    return RowError("unsupported image", detail)
