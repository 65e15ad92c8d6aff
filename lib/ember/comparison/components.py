"""Near-duplicate groups: the connected components of a table of pairs, found on the cluster."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import InvalidConfig
from ember.settings.comparison import JoinConfig
from ember.spark.paths import literal
from ember.spark.publish import Output

__all__ = ["near_duplicates", "output", "summary"]

# Alternating stars need O(log^2 n) rounds; a billion rows would take some dozens.
_MAX_ROUNDS = 200


def near_duplicates(pairs: DataFrame, folder: str) -> DataFrame:
    """Groups of rows that a chain of pairs connects.

    pairs: (left_id, right_id, …) of one type; each pair at least once, in either order.
    folder: for the table of each round, reachable by all executors.

    Returns (id, group_id, representative), one row for each id in a pair, also where it is paired
    with itself alone, as two rows of one id that are near-duplicates are; a null names no row and
    is in no group. group_id is the smallest id of the group; representative is true for one row of
    each group, the one in most pairs, of several the one with the smallest id.

    Algorithm: alternating large-star and small-star steps on edges (id, smaller id) until all
    point at the smallest id of their group; Kiveris et al., Connected Components in MapReduce and
    Beyond, SoCC 2014, section 3.
    """
    edges = pairs.select(
        F.greatest("left_id", "right_id").alias("id"), F.least("left_id", "right_id").alias("to")
    )
    edges = _stored(edges.filter(F.col("id") != F.col("to")).distinct(), f"{folder}/0")
    for number in range(1, _MAX_ROUNDS):
        stars = _stored(_small_star(_large_star(edges)), f"{folder}/{number}")
        if _same(edges, stars):
            break
        edges = stars
    members = edges.select("id", F.col("to").alias("group_id"))
    both = F.array_compact(F.array_distinct(F.array("left_id", "right_id")))
    degree = pairs.select(F.explode(both).alias("id")).groupBy("id")
    # What points at nothing is the smallest id of its group.
    rows = degree.agg(F.count("*").alias("degree")).join(members, "id", "left")
    rows = rows.withColumn("group_id", F.coalesce("group_id", "id"))
    # Of the largest degree the smallest id: the degree is negated, since least takes the smallest.
    best = rows.groupBy("group_id").agg(F.min(F.struct(-F.col("degree"), "id")).alias("best"))
    return rows.join(best, "group_id").select(
        "id", "group_id", (F.col("id") == F.col("best.id")).alias("representative")
    )


def output(
    spark: SparkSession, config: JoinConfig, identity: dict[str, Any], run_id: str
) -> Output | None:
    """Where the groups of a join go, checked; None where they are not wanted.

    Raises InvalidConfig for a join of two tables, whose ids need not be of one kind.
    """
    if config.groups.path is None:
        return None
    if config.right is not None:
        raise InvalidConfig("groups.path needs a join of one table with itself: set right to null")
    # A resumed join makes its groups again, also where an earlier attempt had come so far.
    mode = config.output.mode
    groups = Output(
        spark,
        config.groups.path,
        mode,
        identity,
        job="join",
        run_id=run_id,
        holds="table of groups",
    )
    groups.check()
    return groups


def summary(groups: DataFrame) -> dict[str, int]:
    """For the manifest: the number of groups, of rows in them, and of the largest one's."""
    sizes = groups.groupBy("group_id").count()
    found = sizes.agg(F.count("*"), F.sum("count"), F.max("count")).collect()[0]
    return dict(zip(("groups", "rows", "largest"), (int(n or 0) for n in found), strict=True))


def _large_star(edges: DataFrame) -> DataFrame:
    """Connect the larger neighbors of each id to the smallest of its neighbors and itself."""
    both = edges.union(edges.select(F.col("to").alias("id"), F.col("id").alias("to")))
    least = both.groupBy("id").agg(F.least("id", F.min("to")).alias("least"))
    larger = edges.select(F.col("to").alias("id"), F.col("id").alias("larger"))
    return larger.join(least, "id").select(F.col("larger").alias("id"), F.col("least").alias("to"))


def _small_star(edges: DataFrame) -> DataFrame:
    """Connect each id and its smaller neighbors to the smallest of them."""
    least = edges.groupBy("id").agg(F.min("to").alias("least"))
    smaller = edges.join(least, "id").filter(F.col("to") != F.col("least"))
    return (
        smaller.select(F.col("to").alias("id"), F.col("least").alias("to"))
        .union(least.select("id", F.col("least").alias("to")))
        .distinct()
    )


def _stored(edges: DataFrame, path: str) -> DataFrame:
    """The table by way of a file: without it each round would do all earlier ones again."""
    edges.write.mode("overwrite").parquet(path)
    return edges.sparkSession.read.parquet(literal(path))


def _same(one: DataFrame, other: DataFrame) -> bool:
    """Do both hold the same edges?"""
    return _digest(one) == _digest(other)


def _digest(edges: DataFrame) -> tuple[Any, ...]:
    mixed = F.xxhash64("id", "to")
    halves = mixed.bitwiseAND(0xFFFFFFFF), F.shiftrightunsigned(mixed, 32)
    return tuple(edges.agg(F.count("*"), *(F.sum(half) for half in halves)).collect()[0])
