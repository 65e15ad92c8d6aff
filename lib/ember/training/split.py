"""The division into training, validation and test rows.

A row's part does not depend on other rows, on partitions or on the type of its id. It is decided by

    int(sha256(f"{seed}:{key}").hexdigest()[:13], 16) / 2**52

where key is the id as a string (see ember.spark.ids.text_of), or the row's group: train below
`train`, validation below `train + validation`, else test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.training import SplitConfig
from ember.worker.finetune.rows import PARTS

__all__ = [
    "SHARES",
    "Split",
    "check_parts",
    "check_split",
    "draw_of",
    "part_of",
    "split_settings",
]

_NAMED = 5

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
    return {**told, **dict(zip(PARTS, split, strict=True))}


def check_split(split: SplitConfig) -> None:
    """Raise InvalidConfig when the keys of `split` do not go together."""
    total = split.train + split.validation + split.test
    if split.column is None and abs(total - 1) > 1e-6:
        raise InvalidConfig(f"split: train, validation and test add up to {total:g}; make that 1")
    # A default that a file writes out says nothing.
    shares = split.model_dump(exclude={"column", "seed"}, exclude_defaults=True)
    if split.column is not None and shares:
        raise InvalidConfig(
            f"split.column says which rows train; leave out split.{', split.'.join(sorted(shares))}"
        )


def draw_of(key: Column, seed: object) -> Column:
    """A number in [0, 1) for each key, a string; see the module."""
    digest = F.sha2(F.concat(F.lit(f"{seed}:"), key), 256)
    return F.conv(F.substring(digest, 1, 13), 16, 10).cast("double") / F.lit(float(2**52))


def part_of(key: Column, split: SplitConfig) -> Column:
    """The part that each key, a string, falls to; see the module."""
    drawn = draw_of(key, split.seed)
    held_out = F.when(drawn < split.train + split.validation, "validation").otherwise("test")
    return F.when(drawn < split.train, "train").otherwise(held_out)


def check_parts(joined: DataFrame, split: SplitConfig) -> None:
    """Raise InvalidInput when the column `part` of usable rows holds anything but parts."""
    if split.column is None:
        return
    found = joined.filter("reason is null").select("part").distinct()
    others = [str(row["part"]) for row in found.filter(~F.col("part").isin(*PARTS)).collect()]
    if others:
        raise InvalidInput(
            f"split.column {split.column} has the values {', '.join(sorted(others)[:_NAMED])}; "
            f"write {', '.join(PARTS)}"
        )
