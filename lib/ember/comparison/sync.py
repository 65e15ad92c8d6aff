"""A comparison brought up to date: decides what is compared anew, all or what has changed.

The score of a pair depends on its two rows alone, and so does whether a row can be compared, once
the length of the vectors is known. So what the run before published of rows that are as they were
holds, and is equal to what a run over everything would find.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from ember.comparison.changes import Changes, Side, changes_of, made_of, side
from ember.spark.kept import Kept
from ember.spark.publish import Output

__all__ = ["Sync", "begin", "kept_by", "share_of_pairs"]

# Of all pairs. With more of them to compare anew, a run over everything reads and merges less.
_MOST_SHARE = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sync:
    """What a run with output.mode sync has to do.

    left, right: the tables; one with itself is both. whole: why everything is compared anew; None
    where only what has changed is. changes: by the name of a side, where something was kept.
    """

    kept: Kept
    left: Side
    right: Side
    whole: str | None
    changes: Mapping[str, Changes]

    @property
    def itself(self) -> bool:
        return self.right is self.left

    @property
    def sides(self) -> list[Side]:
        return [self.left] if self.itself else [self.left, self.right]

    @property
    def left_changes(self) -> Changes:
        return self.changes[self.left.name]

    @property
    def right_changes(self) -> Changes:
        return self.changes[self.right.name]

    @property
    def rejected(self) -> dict[str, int]:
        """How many rows of each table cannot be compared."""
        return {each.name: each.rejected for each in self.sides}

    def refuse_rejected(self, output: Output, max_failed_fraction: float) -> None:
        """As `comparison.refuse_rejected`."""
        for each in self.sides:
            total = each.usable + each.rejected
            output.refuse_rejected(each.bad, each.rejected, total, max_failed_fraction, each.name)

    def describe(self) -> dict[str, Any]:
        """For the manifest, as `Comparison.describe`."""
        tables = {each.name: each.describe() for each in self.sides}
        return {"dimension": self.left.dimension or 1, "tables": tables}

    def facts(self) -> dict[str, Any]:
        """For the manifest: how many rows have changed, and the dimension, which holds for all."""
        changes = {name: each.describe() for name, each in self.changes.items()}
        return {**changes, "dimension": self.left.dimension}

    def keep(self) -> dict[str, Any]:
        """Stage what the next run needs; for the manifest, how this one came by its rows."""
        return self.kept.put(self.whole, self.facts())


def kept_by(
    output: Output,
    identity: Mapping[str, Any],
    left: DataFrame,
    right: DataFrame | None,
    versions: Mapping[str, str],
) -> Kept:
    """What the run before kept of a comparison. versions: of packages; Ember's own counts."""
    given = [left] if right is None else [left, right]
    return Kept(output, made_of(identity, given, versions.get("ember-spark")))


def begin(
    kept: Kept,
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    max_failed_fraction: float,
    *,
    names: tuple[str, str] = ("left", "right"),
) -> Sync:
    """Read and hash all rows, and see what has changed since the run before.

    right: None compares the left table with itself. names: under which their states are kept.

    Raises InvalidInput where a table mixes vectors of several lengths.
    """
    how: dict[str, Any] = {"kept": kept, "max_failed_fraction": max_failed_fraction}
    one = side(names[0], left, metric, **how)
    other = one if right is None else side(names[1], right, metric, **how)
    whole, changes = kept.obstacle(), {}
    if whole is None:
        sides = [one] if right is None else [one, other]
        changes = {each.name: changes_of(each, kept) for each in sides}
        whole = _obstacle(kept, one, other, changes)
    if whole is None:
        shown = "; ".join(f"{name}: {each.describe()}" for name, each in changes.items())
        _log.info("only what changed is compared anew: %s", shown)
    else:
        kept.log("everything is compared anew", whole)
    return Sync(kept, one, other, whole, changes)


def _obstacle(kept: Kept, left: Side, right: Side, changes: Mapping[str, Changes]) -> str | None:
    """Why everything must, or had better, be compared anew."""
    for name, each in changes.items():
        if each.repeated:
            return f"ids of the {name} table are null or occur twice, so that rows have no name"
    was = kept.told.get("dimension")
    for one in (left, right):
        if one.dimension != was or not was:
            return f"vectors have {one.dimension} dimensions and had {was}"
    share = share_of_pairs(*((each.usable, changes[each.name].now) for each in (left, right)))
    if share > _MOST_SHARE:
        return f"{share:.0%} of all pairs are new, and above {_MOST_SHARE:.0%} it takes longer"
    return None


def share_of_pairs(left: tuple[int, int], right: tuple[int, int]) -> float:
    """Of the pairs of two tables, or one with itself, those with a row that is new or changed.

    left, right: how many rows there are, and how many of them are new or changed.

    Example:
        >>> share_of_pairs((100, 10), (100, 0))
        0.1
        >>> round(share_of_pairs((100, 10), (100, 10)), 2)
        0.19
    """
    as_they_were = 1.0
    for rows, now in (left, right):
        as_they_were *= 1 - min(1.0, now / max(1, rows))
    return round(1 - as_they_were, 6)
