"""Sizes of files, as a configuration gives them: in bytes, or as a text such as 256 MB."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

__all__ = ["FileSize", "in_bytes"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(?:I?B)?)?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def in_bytes(size: int | str) -> int:
    """The bytes of a size. Units are powers of 1,024, as in Spark's own settings.

    Raises:
        ValueError: it is no size.

    >>> in_bytes("256 MB"), in_bytes("1.5g"), in_bytes("1000"), in_bytes(1000)
    (268435456, 1610612736, 1000, 1000)
    """
    found = _SIZE.fullmatch(str(size).strip())
    if found is None:
        raise ValueError(f"{size} is no size")
    return int(float(found[1]) * 1024 ** _POWERS[(found[2] or "").upper()])


def _checked(size: int | str) -> int | str:
    try:
        positive = in_bytes(size) > 0
    except (ValueError, OverflowError):
        positive = False
    if not positive:
        raise PydanticCustomError("size", "Give bytes, or a size such as 256 MB or 1 GB")
    return size


FileSize = Annotated[int | str, AfterValidator(_checked)]
