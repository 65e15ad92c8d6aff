"""Copies by embeddings: the exact join of the rows that are left, as the `join` job makes it."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison import join, packing
from ember.deduplication.sync import Sync
from ember.errors import TooManyPairs
from ember.settings.comparison import ComparisonLimits
from ember.spark.checkpoints import counting, stored

__all__ = ["Compared", "vector_links"]


@dataclass(frozen=True)
class Compared:
    """links: (left_id, right_id, score), all pairs. bad: (id, reason), rows without a vector."""

    links: DataFrame
    bad: DataFrame


def vector_links(
    rows: DataFrame,
    vectors: DataFrame,
    others: DataFrame | None,
    *,
    threshold: float,
    folder: str,
    max_pairs: int,
    update: Sync | None = None,
) -> Compared:
    """The pairs of rows whose vectors have a cosine of `threshold`, or of rows with the others.

    rows: with the ids of those that are left. vectors: (id, embedding). others: the same of another
    table; None: the rows with themselves. update: has pairs of a run before, and keeps these.

    Raises TooManyPairs, and InvalidInput for vectors of two lengths.
    """
    spark = rows.sparkSession
    here = vectors.join(rows.select("id"), "id", "left_semi").select("id", "embedding")
    update = update if others is None else None
    pairs = update.pairs(here, threshold, max_pairs) if update else None
    if pairs is None:
        compared = packing.prepare(
            here,
            others,
            "cosine",
            f"{folder}/packed",
            fitter=join.basis_fitter("cosine", threshold),
            # How many of them are too many is for the caller to say, who also knows of rows
            # without.
            limits=ComparisonLimits(max_failed_fraction=1.0),
        )
        bad = compared.left.rejected_rows(spark)
        pairs = join.pairs(spark, compared, threshold, max_pairs)
        pairs = pairs.filter("left_id != right_id") if others is None else pairs
    pairs, count = counting(pairs)
    links = update.kept.made(pairs, "pairs") if update else stored(pairs, f"{folder}/0")
    if update and update.vectors:
        bad = update.vectors.left.bad()
    found = count()
    if found > max_pairs:
        raise TooManyPairs(
            f"at least {found} pairs of embeddings reach {threshold:g}, more than "
            f"limits.max_pairs = {max_pairs}; nothing was published. Raise the threshold of the "
            "tier or limits.max_pairs, or let an earlier tier take the nearest"
        )
    return Compared(links, _missing(rows, vectors).union(bad.select("id", "reason")))


def _missing(rows: DataFrame, vectors: DataFrame) -> DataFrame:
    missing = rows.join(vectors.select("id"), "id", "left_anti")
    return missing.select("id", F.lit("no embedding").alias("reason"))
