"""The fingerprints of a corpus: one pass over its content, noted in a table that is read often."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.deduplication.sources import Plan, Source
from ember.embedding.row_work import Body, reported, spread
from ember.spark.accounting import Account
from ember.spark.checkpoints import counting, stored
from ember.spark.paths import literal
from ember.spark.storage import Storage
from ember.worker.duplicates.fingerprints import Fingerprinting, fingerprint_batches
from ember.worker.stats import TaskStats

__all__ = ["Noted", "fingerprints"]

# A text takes a third of a millisecond.
_TEXTS_PER_TASK = 20_000
_NULL_ID = "null id"
_UNREAD = "error IS NOT NULL OR id IS NULL"
_BESIDE = ("preferred", "digest")


@dataclass(frozen=True)
class Noted:
    """What is known of a table's rows.

    rows: those that can be read, as `fingerprint_batches` notes them, with `order`, a struct that
    is smaller for a row that is kept rather, and for no two rows the same. unread: (id, reason),
    those that cannot; `failed`, how many they are. total: how many rows there are in all.
    """

    rows: DataFrame
    unread: DataFrame
    failed: int
    total: int


def fingerprints(
    work: Plan,
    given: Source,
    folder: str,
    *,
    digests: bool = False,
    before: DataFrame | None = None,
) -> Noted:
    """What is noted of each row's content, in a table at `folder`.

    A table that an earlier attempt has written there is taken as it is.

    digests: note a hash of each row's content as `digest`. before: such a table of a run before;
    what it has of rows that could be read, and whose content is the same, is taken from there.
    """
    spark = given.table.sparkSession
    if not Storage(spark).exists(f"{folder}/_SUCCESS"):
        rows, known = given.rows, None
        if digests:
            digest = F.unhex(F.sha2(F.col("content").cast("binary"), 256)).alias("digest")
            rows = rows.withColumn("preferred", F.struct("preferred", digest))
        if before is not None:
            known, rows = _known(rows, before, f"{folder}-rows")
        bound = work.limits.rows_per_task
        if bound == "auto" and work.modality == "text":
            bound = _TEXTS_PER_TASK
        rows, expected = spread(rows, work.modality, bound)
        account = Account(spark)
        body = _body(_fingerprinting(work, given))
        noted = rows.mapInArrow(reported(body, account.reports), _schema(rows))
        if digests:
            others = [name for name in noted.columns if name != "preferred"]
            noted = noted.select(*others, *(F.col(f"preferred.{name}") for name in _BESIDE))
        noted = noted if known is None else noted.unionByName(known)
        noted, total = counting(noted)
        noted, failed = counting(noted, F.expr(_UNREAD))
        with account.progress(expected):
            noted = stored(noted, folder)
        return _noted(work, noted, failed(), total())
    noted = spark.read.parquet(literal(folder))
    counts = noted.agg(F.count_if(F.expr(_UNREAD)), F.count("*")).collect()[0]
    return _noted(work, noted, *counts)


def _noted(work: Plan, table: DataFrame, failed: int, total: int) -> Noted:
    error = F.when(F.col("id").isNull(), F.lit(_NULL_ID)).otherwise(F.col("error"))
    unread = table.select("id", error.alias("reason")).filter("reason IS NOT NULL")
    rows = table.filter(~F.expr(_UNREAD))
    return Noted(rows.withColumn("order", _order(work)), unread, failed, total)


def _known(rows: DataFrame, before: DataFrame, folder: str) -> tuple[DataFrame, DataFrame]:
    """What is known of rows (id, content, preferred with its digest), and the rows that are left.

    folder: for a table of the rows without their content, which is hashed once.
    """
    named = stored(rows.select("id", *(F.col(f"preferred.{name}") for name in _BESIDE)), folder)
    read = before.filter("error IS NULL").drop("preferred")
    known = named.join(read, ["id", "digest"])
    left = named.join(
        known.select(F.col("id").alias("_known")), F.col("id") == F.col("_known"), "left_anti"
    )
    left = left.select(F.col("id").alias("_left"))
    return known, rows.join(left, F.col("id").eqNullSafe(F.col("_left")), "left_semi")


def _body(what: Fingerprinting) -> Body:
    def body(
        batches: Iterable[pa.RecordBatch], stats: TaskStats
    ) -> Generator[pa.RecordBatch, None, None]:
        yield from fingerprint_batches(batches, what, stats)

    return body


def _fingerprinting(work: Plan, given: Source) -> Fingerprinting:
    thresholds = {tier.name: tier.threshold for tier in work.tiers}
    bits = thresholds.get("perceptual")
    return Fingerprinting(
        modality=work.modality,
        paths=given.paths,
        perceptual=None if bits is None else int(bits),
        minhash=thresholds.get("minhash"),
        max_bytes=work.limits.max_bytes,
        max_pixels=work.limits.max_pixels,
    )


def _schema(rows: DataFrame) -> StructType:
    kinds: dict[str, DataType] = {
        "error": StringType(),
        "size": LongType(),
        "bytes": LongType(),
        "exact": BinaryType(),
    }
    lists = ArrayType(LongType())
    kinds |= {"perceptual": LongType(), "perceptual_bands": lists}
    kinds |= {"minhash": BinaryType(), "shingles": lists, "minhash_bands": lists}
    own = [rows.schema[name] for name in ("id", "preferred")]
    return StructType([*own, *(StructField(name, kind) for name, kind in kinds.items())])


def _order(work: Plan) -> Column:
    """Of images the pixels decide, then the bytes; of texts the characters; else `preferred`."""
    by: list[Column] = [F.col("preferred").isNull(), F.col("preferred")]
    if work.keep.name == "largest":
        by = [-F.col("size"), -F.col("bytes")]
    elif work.keep.name == "longest":
        by = [-F.col("size")]
    named = [column.alias(f"by{number}") for number, column in enumerate(by)]
    return F.struct(*named, F.col("id"))
