"""Near copies by perceptual hash or MinHash: buckets of rows that may be near, and their links.

Rows of one hash (or one set of shingles) are linked with the best of them and stand aside; what is
left meets in buckets, one for each band. A bucket that holds the same rows as another is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StructField, StructType

from ember.deduplication.tiers import Tier
from ember.spark.checkpoints import counted, stored
from ember.spark.together import together
from ember.worker.duplicates.links import bucket_links
from ember.worker.garbage import spare_modules

__all__ = [
    "PAYLOADS",
    "best_links",
    "buckets",
    "copies_of",
    "equal_links",
    "linked",
    "near_copies_of",
    "near_links",
    "stand_ins",
]

PAYLOADS = {"perceptual": "perceptual", "minhash": "shingles"}
"""The column that rows are compared by, of a tier by likeness."""


def equal_links(rows: DataFrame, column: str) -> DataFrame:
    """(left_id, right_id, score 1): each row with the best of those that are equal in `column`."""
    best = rows.groupBy(column).agg(F.min("order").alias("best"), F.count("*").alias("equal"))
    best = best.filter("equal > 1").select(column, F.col("best.id").alias("left_id"))
    found = rows.select(column, F.col("id").alias("right_id")).join(best, column)
    return found.filter("right_id != left_id").select("left_id", "right_id", _one())


def near_links(rows: DataFrame, tier: Tier, folder: str) -> DataFrame:
    """(left_id, right_id, score): enough links for the groups of the rows; see `bucket_links`."""
    alike, rows = stand_ins(rows, tier, folder)
    return alike.union(linked(rows, buckets(rows, tier), tier).drop("key"))


def stand_ins(rows: DataFrame, tier: Tier, folder: str) -> tuple[DataFrame, DataFrame]:
    """The links of rows that are equal, and a row for each of them, with what it is compared by."""
    equal = equal_links(rows.filter(F.col(tier.name).isNotNull()), tier.name)
    alike, count = counted(equal, f"{folder}/0")
    if count:
        rows = _without(rows, alike.select(F.col("right_id").alias("id")))
    return alike, rows.select("id", "order", *_columns(tier))


def copies_of(rows: DataFrame, others: DataFrame, column: str) -> DataFrame:
    """(left_id, right_id, score 1): each row with the smallest id of the others equal to it."""
    first = others.groupBy(column).agg(F.min("id").alias("right_id"))
    found = rows.select(F.col("id").alias("left_id"), column).join(first, column)
    return found.select("left_id", "right_id", _one())


def near_copies_of(rows: DataFrame, others: DataFrame, tier: Tier, folder: str) -> DataFrame:
    """(left_id, right_id, score): each row with the most similar of the others, where one is near.

    Of those of one score it is the one with the smallest id.
    """
    alike = stored(copies_of(rows, others, tier.name), f"{folder}/0")
    rows = _without(rows, alike.select(F.col("left_id").alias("id")))
    # One row for each hash, on both sides; what it finds is found for all.
    first = [F.min(name).alias(name) for name in ("id", *_columns(tier)) if name != tier.name]
    one, other = (
        each.filter(F.col(tier.name).isNotNull()).groupBy(tier.name).agg(*first)
        for each in (rows, others)
    )
    own, theirs = rows.schema["id"], others.schema["id"]
    left = one.select("id", F.lit(None).cast(theirs.dataType).alias("other_id"), *_columns(tier))
    right = other.select(
        F.lit(None).cast(own.dataType).alias("id"), F.col("id").alias("other_id"), *_columns(tier)
    )
    both = left.union(right)
    links = linked(both, buckets(both, tier), tier, [own, theirs])
    best = stored(best_links(links), f"{folder}/1")
    hashes = one.select(F.col("id").alias("left_id"), tier.name)
    by_hash = best.join(hashes, "left_id").drop("left_id")
    named = rows.select(F.col("id").alias("left_id"), tier.name).join(by_hash, tier.name)
    return alike.union(named.select("left_id", "right_id", "score"))


def best_links(found: DataFrame, one: str = "left_id", other: str = "right_id") -> DataFrame:
    """Of links (one, other, score) the best of each row in `one`; of equal ones the least id."""
    order = F.struct((-F.col("score")).alias("worse"), other)
    best = found.groupBy(one).agg(F.min(order).alias("best"))
    score = (-F.col("best.worse")).alias("score")
    return best.select(one, F.col(f"best.{other}").alias(other), score)


def _one() -> Column:
    return F.lit(1.0).cast("float").alias("score")


def _columns(tier: Tier) -> list[str]:
    """The hash, its bands, and what rows are compared by, of which the hash may be one."""
    return list(dict.fromkeys([tier.name, f"{tier.name}_bands", PAYLOADS[tier.name]]))


def _without(rows: DataFrame, ids: DataFrame) -> DataFrame:
    return rows.join(ids, "id", "left_anti")


def buckets(rows: DataFrame, tier: Tier) -> DataFrame:
    """(key, n, x, y) of each bucket with several rows (id, bands), or rows of both tables.

    Buckets with the same rows have the same n, x and y.
    """
    against = "other_id" in rows.columns
    ids = ["id", "other_id"] if against else ["id"]
    meetings = rows.select(*ids, F.explode(f"{tier.name}_bands").alias("key"))
    # The members of a bucket as two numbers. Null does not change a hash, so the side counts, too.
    side = F.col("id").isNull()
    members = [F.bit_xor(F.xxhash64(*ids, side, F.lit(salt))) for salt in (1, 2)]
    facts = [F.count("*").alias("n"), members[0].alias("x"), members[1].alias("y")]
    if against:
        facts += [F.min(side).alias("only_theirs"), F.max(side).alias("theirs")]
    found = meetings.groupBy("key").agg(*facts).filter("n > 1")
    if against:
        found = found.filter("theirs AND NOT only_theirs")
    return found.select("key", "n", "x", "y")


def linked(
    rows: DataFrame, found: DataFrame, tier: Tier, kinds: list[StructField] | None = None
) -> DataFrame:
    """The links (left_id, right_id, score, key) that workers find in buckets, as `buckets` gives
    them, of rows (id, order, bands, payload): of those that hold the same rows, in one.

    With other_id in place of order, one of the two ids null, those are of two tables. kinds: the
    fields of the ids on the left and the right of a link, where they are of two.
    """
    against = "other_id" in rows.columns
    ids = ["id", "other_id"] if against else ["id"]
    bands, payload = f"{tier.name}_bands", PAYLOADS[tier.name]
    once = found.groupBy("n", "x", "y").agg(F.min("key").alias("key")).select("key")
    order = ["key", *([F.col("id").isNull(), "other_id"] if against else ["order"])]
    columns = [*ids, *([] if against else ["order"]), payload]
    met = rows.select(*columns, F.explode(bands).alias("key")).join(once, "key")
    met = together(met, "key").sortWithinPartitions(*order).select("key", *ids, payload)
    least = tier.least_score

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from bucket_links(batches, least, against=against)
        spare_modules()

    names = ("left_id", "right_id")
    kinds = kinds or [rows.schema["id"]] * 2
    fields = [StructField(name, kind.dataType) for name, kind in zip(names, kinds, strict=True)]
    schema = [*fields, StructField("score", FloatType()), StructField("key", LongType())]
    return met.mapInArrow(run, StructType(schema))
