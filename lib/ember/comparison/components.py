"""Near-duplicate groups: the connected components of a table of pairs, found on the cluster."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from ember.errors import InvalidConfig
from ember.settings.comparison import JoinConfig
from ember.spark.checkpoints import counted, stored
from ember.spark.publish import Output
from ember.worker.duplicates.components import component_batches

__all__ = ["connected", "near_duplicates", "output", "summary"]

# Alternating stars need O(log^2 n) rounds; a billion rows would take some dozens.
_MAX_ROUNDS = 200
# Pairs of which a task makes groups in about a second.
_ONE_TASK = 500_000


def near_duplicates(pairs: DataFrame, folder: str) -> DataFrame:
    """Groups of rows that a chain of pairs connects.

    pairs: (left_id, right_id, …) of one type; each pair at least once, in either order.
    folder: for the table of each round, reachable by all executors.

    Returns (id, group_id, representative), one row for each id in a pair, also where it is paired
    with itself alone, as two rows of one id that are near-duplicates are; a null names no row and
    is in no group. group_id is the smallest id of the group; representative is true for one row of
    each group, the one in most pairs, of several the one with the smallest id.
    """
    members = connected(pairs, folder)
    both = F.array_compact(F.array_distinct(F.array("left_id", "right_id")))
    degree = pairs.select(F.explode(both).alias("id")).groupBy("id")
    # What no pair connects with another id is a group of its own.
    rows = degree.agg(F.count("*").alias("degree")).join(members, "id", "left")
    rows = rows.withColumn("group_id", F.coalesce("group_id", "id"))
    # Of the largest degree the smallest id: the degree is negated, since least takes the smallest.
    best = F.min(F.struct(-F.col("degree"), "id")).alias("best")
    groups = rows.groupBy("group_id").agg(best, F.min("id").alias("least"))
    return rows.join(groups, "group_id").select(
        "id",
        F.col("least").alias("group_id"),
        (F.col("id") == F.col("best.id")).alias("representative"),
    )


def connected(pairs: DataFrame, folder: str) -> DataFrame:
    """(id, group_id) of each id that a pair connects with another; the arguments' as above.

    group_id is one id of the group, the same for all of it.

    Algorithm: alternating large-star and small-star steps on edges (id, smaller id) until all
    point at the smallest id of their group; Kiveris et al., Connected Components in MapReduce and
    Beyond, SoCC 2014, section 3. Where a task makes the groups in about a second, one does, since
    rounds over the cluster take longer.
    """
    edges = pairs.select(
        F.greatest("left_id", "right_id").alias("id"), F.least("left_id", "right_id").alias("to")
    )
    edges = edges.filter(F.col("id") != F.col("to")).distinct()
    edges, count = counted(edges, f"{folder}/0")
    if count <= _ONE_TASK:
        kind = edges.schema["id"].dataType
        schema = StructType([StructField("id", kind), StructField("group_id", kind)])
        return stored(edges.coalesce(1).mapInArrow(component_batches, schema), f"{folder}/1")
    for number in range(1, _MAX_ROUNDS):
        stars = stored(_small_star(_large_star(edges)), f"{folder}/{number}")
        if _same(edges, stars):
            break
        edges = stars
    # What points at nothing is the smallest id of its group.
    least = edges.select(F.col("to").alias("id"), "to").distinct()
    return edges.union(least).select("id", F.col("to").alias("group_id"))


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


def _same(one: DataFrame, other: DataFrame) -> bool:
    """Do both hold the same edges?"""
    return _digest(one) == _digest(other)


def _digest(edges: DataFrame) -> tuple[Any, ...]:
    mixed = F.xxhash64("id", "to")
    halves = mixed.bitwiseAND(0xFFFFFFFF), F.shiftrightunsigned(mixed, 32)
    return tuple(edges.agg(F.count("*"), *(F.sum(half) for half in halves)).collect()[0])
