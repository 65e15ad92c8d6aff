"""From links to the rows that go: of each group one row stays, and every other has its witness.

A table of a tier's removed rows has id, kept_id, neighbor_id and score: the row of the group that
stays, and the row of a link that shows the copy. Where the two are linked it is one row; in a chain
of links, each neighbor is a step nearer to the row that stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison.components import connected
from ember.deduplication.candidates import best_links
from ember.spark.checkpoints import counted

__all__ = ["all_removed", "direct", "grouped"]

# Rows further from the one that stays have their most similar neighbor as witness.
_MOST_STEPS = 16


def direct(links: DataFrame) -> DataFrame:
    """The right rows of links as removed in favor of the left ones."""
    return links.select(
        F.col("right_id").alias("id"),
        F.col("left_id").alias("kept_id"),
        F.col("left_id").alias("neighbor_id"),
        "score",
    )


def grouped(links: DataFrame, rows: DataFrame, folder: str) -> DataFrame:
    """The rows that go of the groups which links (left_id, right_id, score) connect.

    rows: id, order; the one of the least order in a group stays.
    """
    members = connected(links, f"{folder}/rounds").join(rows.select("id", "order"), "id")
    best = members.groupBy("group_id").agg(F.min("order").alias("best"))
    named = members.join(best, "group_id").select("id", F.col("best.id").alias("kept_id"))
    goes = F.col("id") != F.col("kept_id")
    placed, count = counted(named, f"{folder}/placed", goes)
    todo = placed.filter(goes)
    return todo.join(_neighbors(links, todo, count, f"{folder}/steps"), "id").select(
        "id", "kept_id", "neighbor_id", "score"
    )


def _neighbors(links: DataFrame, todo: DataFrame, count: int, folder: str) -> DataFrame:
    """(id, neighbor_id, score): a step from each of `count` rows toward the row that stays.

    Of several ways as short it is the one of the highest score, then of the smallest id.
    """
    right, left = F.col("right_id"), F.col("left_id")
    both = links.select(right.alias("id"), left.alias("neighbor_id"), "score").union(
        links.select(left.alias("id"), right.alias("neighbor_id"), "score")
    )
    reached = todo.select(F.col("kept_id").alias("neighbor_id")).distinct()
    steps: list[DataFrame] = []
    step_of = ("id", "neighbor_id")
    for number in range(_MOST_STEPS):
        if not count:
            break
        near = both.join(reached, "neighbor_id", "left_semi").join(todo, "id", "left_semi")
        step, taken = counted(best_links(near, *step_of), f"{folder}/{number}")
        steps.append(step)
        count -= taken
        todo = todo.join(step, "id", "left_anti")
        reached = step.select(F.col("id").alias("neighbor_id"))
    if count or not steps:
        steps.append(best_links(both.join(todo, "id", "left_semi"), *step_of))
    return reduce(DataFrame.union, steps)


def all_removed(found: Sequence[tuple[str, DataFrame]], *, against: bool) -> DataFrame:
    """The rows that all tiers removed: id, kept_id, group_id, tier, score, neighbor_id.

    found: by the name of the tier, in the order in which the tiers ran. A row that stayed in one
    tier may go in a later one: kept_id is the row that stays in the end. group_id is the smallest
    id of the whole group; with `against` it is kept_id, an id of the other table.
    """
    whole: DataFrame | None = None
    for name, table in reversed(found):
        rows = table.withColumn("tier", F.lit(name))
        if whole is not None and not against:
            later = whole.select(
                F.col("id").alias("kept_id"), F.col("kept_id").alias("_in_the_end")
            )
            end = F.coalesce("_in_the_end", "kept_id").alias("kept_id")
            rows = rows.join(later, "kept_id", "left").select(
                "id", end, "neighbor_id", "score", "tier"
            )
        whole = rows if whole is None else whole.unionByName(rows)
    if whole is None:
        raise ValueError("there is no tier")
    if against:
        whole = whole.withColumn("group_id", F.col("kept_id"))
    else:
        least = whole.groupBy("kept_id").agg(F.min("id").alias("_least"))
        least = least.withColumn("group_id", F.least("_least", "kept_id")).drop("_least")
        whole = whole.join(least, "kept_id")
    return whole.select("id", "kept_id", "group_id", "tier", "score", "neighbor_id")
