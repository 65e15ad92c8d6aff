"""What a run that follows its input has to do, by ids and hashes of content alone.

Rows of the input are held against the rows that are published, and against those that killed runs
have staged. A row whose id and content are as they were stays. Any other one takes the result of
equal content, whoever's it is; of content that nobody has a result for, one row goes through the
model and the others take what it gets. Nothing here reads content or results, only a hash of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ember.spark.tables import column

__all__ = ["CONTENT_HASH", "NEW", "Changes", "changes", "content_plan"]

CONTENT_HASH = "content_hash"
"""The column of a table in which a row has the hash of its content; null where it had none."""

NEW = -1
"""Where a row's result comes from that this run makes."""

# The reason of a row without content: nothing is gained by trying it again.
_VOID = "null content"


@dataclass(frozen=True)
class Changes:
    """Counts of rows of the input, but for `gone` and `dropped`.

    Each is new (its id was not there), changed (it was, with other content), failed_again (it had
    failed, and is done again) or unchanged; gone are published rows whose id is not there any more.
    And each is kept as it is published, copied from a row of equal content, or runs through the
    model. dropped: ids of published rows that do not stay as they are. repeated: ids with several
    rows of one content, of which one is to run. twins: rows whose result is that of such rows.
    """

    rows: int
    new: int
    changed: int
    unchanged: int
    failed_again: int
    gone: int
    kept: int
    copied: int
    run: int
    dropped: int
    repeated: int
    twins: int

    @property
    def up_to_date(self) -> bool:
        """Is what is published what the input asks for?"""
        return self.kept == self.rows and not self.dropped

    def told(self) -> dict[str, int]:
        """For the manifest: what became of the rows."""
        keys = ("new", "changed", "unchanged", "failed_again", "gone", "copied")
        return {key: count for key, count in asdict(self).items() if key in keys}


def content_plan(
    wanted: DataFrame,
    published: DataFrame | None,
    staged: Sequence[DataFrame],
    id: str,
    part: str | None,
    *,
    retry_failed: bool,
) -> DataFrame:
    """One row for each pair of an id and a hash that is wanted or published.

    wanted: rows (id, hash, place, bare) of the input: where the content is, if not in the row, and
        whether there is none.
    published, staged: tables of rows of the output, of which staged ones may be out of date.
    id, part: the columns of these that name a row, and number its parts (see `publish.Output`).
    retry_failed: whether rows that failed and have not changed are done again.

    Returns columns id, hash, places (of content that is elsewhere, each once), wanted and published
    (how many rows have this id and hash), known (is the id published), stays (is the published
    row taken as it is), failed (the published row is), gone (the id is not wanted), run (one of
    these rows goes through the model) and source: struct (origin, id, times) of the row whose
    result the others take; origin is 0 for published rows, n for those of the n-th staged table,
    `NEW` for those that run; times is how many rows have this id and hash there.
    """
    pairs = _grouped([_of_input(wanted), *([_of_output(published, id, part)] if published else [])])
    of_id = Window.partitionBy("id")
    failed = (F.col("bad") > 0) & (F.col("bare") == F.col("void"))
    kept = _good() | ((failed & F.col("bare")) if retry_failed else failed)
    same = (F.col("wanted") == F.col("published")) & _whole() & kept
    judged = pairs.select(
        *("id", "hash", "places", "wanted", "published"),
        (F.sum("published").over(of_id) > 0).alias("known"),
        F.bool_and(same).over(of_id).alias("stays"),
        (F.col("bad") > 0).alias("failed"),
        (F.sum("wanted").over(of_id) == 0).alias("gone"),
        F.when(_whole() & _good(), _given(0)).alias("given"),
    )
    others = [_of_staged(each, number, id, part) for number, each in enumerate(staged, 1)]
    return _sourced(reduce(_union, [judged, *others]))


def changes(plan: DataFrame) -> Changes:
    """What a plan comes to."""
    rest, kept = ~F.col("stays"), F.col("stays")
    same = F.col("published") > 0
    again = same & rest & F.col("failed")
    run = F.when(F.col("hash").isNull(), F.col("wanted")).otherwise(1)
    counts = {
        "rows": F.sum("wanted"),
        "new": _sum(~F.col("known")),
        "changed": _sum(F.col("known") & ~same),
        "unchanged": _sum(same & ~again),
        "failed_again": _sum(again),
        "gone": F.sum(F.when(F.col("gone"), F.col("published"))),
        "kept": _sum(kept),
        "run": F.sum(F.when(F.col("run"), run)),
        "dropped": F.count_if(same & rest),
        "repeated": F.count_if(F.col("run") & F.col("hash").isNotNull() & (F.col("wanted") > 1)),
        "twins": F.count_if(F.col("source.times") > 1),
    }
    (found,) = plan.agg(*(value.alias(name) for name, value in counts.items())).collect()
    told = {name: value or 0 for name, value in found.asDict().items()}
    return Changes(**told, copied=told["rows"] - told["kept"] - told["run"])


def _sum(condition: Column) -> Column:
    return F.sum(F.when(condition, F.col("wanted")))


def _of_input(wanted: DataFrame) -> DataFrame:
    return wanted.select(
        *("id", "hash", "place", "bare"),
        F.lit(1).alias("wanted"),
        *(F.lit(0).alias(name) for name in ("published", "parts", "bad")),
        F.lit(None).cast("int").alias("last"),
        F.lit(False).alias("void"),
    )


def _of_output(table: DataFrame, id: str, part: str | None) -> DataFrame:
    number = F.col(part) if part else F.lit(0)
    return table.select(
        column(table, id).alias("id"),
        F.col(CONTENT_HASH).alias("hash"),
        F.lit(None).cast("string").alias("place"),
        F.lit(False).alias("bare"),
        F.lit(0).alias("wanted"),
        (number == 0).cast("int").alias("published"),
        F.lit(1).alias("parts"),
        (F.col("status") != "ok").cast("int").alias("bad"),
        number.alias("last"),
        F.coalesce(F.col("error") == _VOID, F.lit(False)).alias("void"),
    )


def _grouped(sides: Sequence[DataFrame]) -> DataFrame:
    """One row for each id and hash, all of an id in one partition."""
    union = reduce(DataFrame.unionByName, sides).repartition("id")
    sums = (F.sum(name).cast("int").alias(name) for name in ("wanted", "published", "parts", "bad"))
    return union.groupBy("id", "hash").agg(
        F.array_sort(F.collect_set("place")).alias("places"),
        *sums,
        F.max("bare").alias("bare"),
        F.max("void").alias("void"),
        F.max("last").alias("last"),
    )


def _whole() -> Column:
    """Are the rows of a pair as many as have to be there, all parts of each?"""
    return F.col("parts") == F.col("published") * (F.col("last") + 1)


def _good() -> Column:
    return (F.col("bad") == 0) & F.col("hash").isNotNull()


def _given(origin: int) -> Column:
    """Whose result it is that others can take, and how many rows have it under that name."""
    return F.struct(F.lit(origin).alias("origin"), "id", F.col("published").alias("times"))


def _of_staged(table: DataFrame, origin: int, id: str, part: str | None) -> DataFrame:
    """Rows of a staged table whose results can be taken."""
    pairs = _grouped([_of_output(table, id, part)])
    good = pairs.filter((F.col("published") > 0) & _whole() & _good())
    return good.select("id", "hash", _given(origin).alias("given"))


def _union(one: DataFrame, other: DataFrame) -> DataFrame:
    return one.unionByName(other, allowMissingColumns=True)


def _sourced(judged: DataFrame) -> DataFrame:
    """Choose for each hash whose result is taken; rows that only give theirs are left out then.

    That is the result of the least of `given` (published before staged), else of the least id among
    the rows to be done, which then runs.
    """
    hashed = F.col("hash").isNotNull()
    # Without a hash each row is for itself; by its id, so that they are not all in one partition.
    key = F.coalesce(F.col("hash"), F.xxhash64("id").cast("string"))
    of_hash = Window.partitionBy(key)
    rest = (F.col("wanted") > 0) & ~F.col("stays")
    own = F.struct(F.lit(NEW).alias("origin"), "id", F.lit(1).alias("times"))
    chosen = judged.withColumn("rest", rest)
    chosen = chosen.withColumn("given", F.min("given").over(of_hash))
    chosen = chosen.withColumn("first", F.min(F.when(F.col("rest"), own)).over(of_hash))
    first = F.col("given").isNull() & (F.col("first") == own)
    return chosen.filter(F.col("wanted").isNotNull()).select(
        *("id", "hash", "places", "wanted", "published", "known", "stays", "failed", "gone"),
        (F.col("rest") & (~hashed | first)).alias("run"),
        F.when(F.col("rest") & hashed, F.coalesce("given", "first")).alias("source"),
    )
