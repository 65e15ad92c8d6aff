"""A threshold join brought up to date: new pairs of what changed, old ones of all else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison import join, packing
from ember.comparison.changes import Changes
from ember.comparison.sync import Sync
from ember.errors import TooManyPairs
from ember.settings.comparison import ComparisonLimits, JoinConfig
from ember.spark.checkpoints import counted
from ember.spark.publish import Output

__all__ = ["Joining", "old_and_new", "write_pairs"]

_PAIR = ("left_id", "right_id", "score")


@dataclass(frozen=True)
class Joining:
    """What is joined: at which score, in blocks of how many rows.

    max_pairs: a task that has found more leaves it at that.
    """

    threshold: float
    metric: str
    limits: ComparisonLimits
    max_pairs: int


def write_pairs(sync: Sync, output: Output, config: JoinConfig) -> dict[str, int]:
    """Stage all pairs of a join of which only some rows have changed; counts for the manifest.

    Raises TooManyPairs where there are more than `limits.max_pairs`.
    """
    # Rows that cannot be compared are counted already.
    limits = ComparisonLimits(max_failed_fraction=1.0, rows_per_block=config.limits.rows_per_block)
    how = Joining(config.threshold, config.metric, limits, config.limits.max_pairs)
    pairs, new = old_and_new(sync, sync.kept.rows(), how)
    output.write(pairs)
    rows = output.count()
    if rows > how.max_pairs:
        output.discard()
        raise TooManyPairs(
            f"{rows} pairs or more reach the threshold {how.threshold:g}, more than "
            f"limits.max_pairs = {how.max_pairs}; nothing was published. Raise limits.max_pairs, "
            "or the threshold, with which all rows are compared anew"
        )
    return {"new_pairs": new}


def old_and_new(sync: Sync, pairs: DataFrame, how: Joining) -> tuple[DataFrame, int]:
    """All pairs (left_id, right_id, score) that there are now, and how many of them are new.

    pairs: those that the run before found.
    """
    folder = f"{sync.kept.scratch}/pairs"
    found = [counted(each, f"{folder}/{n}") for n, each in enumerate(_new(sync, how))]
    for column, changes in (("left_id", sync.left_changes), ("right_id", sync.right_changes)):
        if changes.was:
            pairs = _without(pairs, column, changes)
    for each, _ in found:
        pairs = pairs.unionByName(each)
    return pairs.select(*_PAIR), sum(count for _, count in found)


def _without(pairs: DataFrame, column: str, changes: Changes) -> DataFrame:
    gone = changes.ids.filter("was").select(F.col("id").alias(column))
    return pairs.join(gone, column, "left_anti").select(*_PAIR)


def _new(sync: Sync, how: Joining) -> Iterator[DataFrame]:
    """The pairs with a row that is new or has changed, each once."""
    left, right = sync.left_changes, sync.right_changes
    ids = left.ids.filter("now")
    if sync.itself:
        if left.now:
            yield _with_itself(_compared(sync, how, sync.left.fitting(ids), sync.left.fitting()))
        return
    if left.now:
        yield _compared(sync, how, sync.left.fitting(ids), sync.right.fitting(), "left")
    if right.now:
        others = sync.right.fitting(right.ids.filter("now"))
        as_they_were = sync.left.fitting(ids, "left_anti")
        yield _compared(sync, how, as_they_were, others, "right")


def _with_itself(pairs: DataFrame) -> DataFrame:
    """Pairs of some rows of a table with all of it, each once, the smaller id on the left."""
    least, greatest = (each("left_id", "right_id") for each in (F.least, F.greatest))
    named = pairs.filter("left_id != right_id").select(
        least.alias("left_id"), greatest.alias("right_id"), "score"
    )
    return named.distinct()  # two of these rows have met twice


def _compared(
    sync: Sync, how: Joining, left: DataFrame, right: DataFrame, name: str = "changed"
) -> DataFrame:
    compared = packing.prepare(
        left,
        right,
        how.metric,
        f"{sync.kept.scratch}/packed/{name}",
        fitter=join.basis_fitter(how.metric, how.threshold),
        limits=how.limits,
    )
    return join.pairs(left.sparkSession, compared, how.threshold, how.max_pairs)
