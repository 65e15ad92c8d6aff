"""The points of a map: a sample drawn by hashes of ids, laid out by one task, with its colors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, IntegerType, StringType, StructField, StructType

from ember.maps.sources import Plan, Values
from ember.spark.ids import text_of
from ember.spark.persisted import kept
from ember.worker.vectors.plane import plane_batches
from ember.worker.vectors.sample import CANDIDATES, candidates, unusable_batches

__all__ = ["Sample", "colored", "draw", "lay_out", "published", "rejected_rows"]

_HASH = "_ember_hash"
_POINT = ("id", "position", "x", "y")


@dataclass(frozen=True)
class Sample:
    """Which rows are on the map: those whose hash is at most `last`, and `rows` of them at most.

    usable: of how many rows. reasons: rows that cannot be on a map, by reason.
    """

    rows: int
    usable: int
    reasons: dict[str, int]
    last: int | None

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())


def draw(work: Plan, metric: str, dimension: int, count: int, seed: int) -> Sample:
    """Draw at most `count` of the usable rows; the same ones whatever the partitions."""
    hashed = work.rows.select(_hash(seed), "embedding")
    look = partial(candidates, metric=metric, dimension=dimension, count=count)
    with kept(hashed.mapInArrow(look, CANDIDATES)) as noted:
        found = noted.filter("reason IS NOT NULL").groupBy("reason").agg(F.sum("rows"))
        reasons = {row[0]: row[1] for row in found.collect() if row[1]}
        smallest = noted.filter("hash IS NOT NULL").orderBy("hash").limit(count)
        rows, last = smallest.agg(F.count("*"), F.max("hash")).collect()[0]
        noted.unpersist()
    usable = reasons.pop("", 0)
    return Sample(rows, usable, dict(sorted(reasons.items(), key=lambda each: -each[1])), last)


def lay_out(work: Plan, drawn: Sample, metric: str, dimension: int, seed: int) -> DataFrame:
    """The points of the sample: id, position (from 0, by hash), x, y. All by one task."""
    hashed = work.rows.select("id", _hash(seed), "embedding")
    chosen = hashed.filter(F.col(_HASH) <= F.lit(drawn.last)).repartition(1)
    place = partial(plane_batches, metric=metric, dimension=dimension, count=drawn.rows)
    kinds = {"position": IntegerType(), "x": FloatType(), "y": FloatType()}
    fields = [StructField(name, kind) for name, kind in kinds.items()]
    return chosen.mapInArrow(place, StructType([work.rows.schema["id"], *fields]))


def _hash(seed: int) -> Column:
    """Of a row without an id null."""
    return F.when(F.col("id").isNotNull(), F.xxhash64(F.lit(seed), "id")).alias(_HASH)


def rejected_rows(work: Plan, metric: str, dimension: int) -> DataFrame:
    """The rows that cannot be on a map, as (id, reason)."""
    schema = StructType([work.rows.schema["id"], StructField("reason", StringType())])
    look = partial(unusable_batches, metric=metric, dimension=dimension)
    return work.rows.mapInArrow(look, schema)


def colored(work: Plan, points: DataFrame) -> DataFrame:
    """The points with a column for each of `work.colors`, c0, c1, …

    Null where its table has no such id. Of an id that occurs several times in a table, the smallest
    value counts.
    """
    table = points
    for each in work.values:
        table = _joined(table, each)
    if work.agree:
        places = [work.colors.index(name) for name in work.agree]
        one, other = (text_of(F.col(f"c{n}"), table.schema[f"c{n}"].dataType) for n in places)
        same = F.when(one == other, "agree").when(one != other, "differ")
        table = table.withColumn(f"c{len(work.colors) - 1}", same)
    return table


def _joined(points: DataFrame, values: Values) -> DataFrame:
    first = len(points.columns) - len(_POINT)
    names = [f"c{number}" for number in range(first, first + len(values.names))]
    plain = values.rows.toDF("_ember_id", *names)
    ids = F.broadcast(points.select("id").distinct())
    there = plain.join(ids, F.col("_ember_id") == F.col("id"), "left_semi").groupBy("_ember_id")
    smallest = there.agg(*(F.min(name).alias(name) for name in names))
    return points.join(smallest, F.col("id") == F.col("_ember_id"), "left").drop("_ember_id")


def published(work: Plan, table: DataFrame) -> DataFrame:
    """What is published of the points: id, x, y and the colors, in the order of the sample."""
    named = {"id": work.id, "x": "x", "y": "y"}
    named |= {f"c{number}": name for number, name in enumerate(work.colors)}
    ordered = table.repartition(1).sortWithinPartitions("position")
    return ordered.select(*(F.col(own).alias(name) for own, name in named.items()))
