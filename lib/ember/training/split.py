"""The division into training, validation and test rows, as the calls for DataFrames take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ember.errors import InvalidConfig

__all__ = ["SHARES", "Split", "split_settings"]

Split = Sequence[float] | str
"""Shares to train, validate and test on, or the name of a column of the labels."""
SHARES = (0.8, 0.1, 0.1)


def split_settings(split: Split, seed: int, group: str | None) -> dict[str, Any]:
    """The section `split` of a configuration. Raises InvalidConfig unless there are three shares.

    group: a column of the labels; rows of one group go to one part.
    """
    told: dict[str, Any] = {"seed": seed, "group": group}
    if isinstance(split, str):
        return {**told, "column": split}
    if len(split) != len(SHARES):
        raise InvalidConfig(
            f"split has {len(split)} shares; give those to train, to validate and to test on"
        )
    return {**told, **dict(zip(("train", "validation", "test"), split, strict=True))}
