"""Copies by embeddings: the exact join of the rows that are left, as the `join` job makes it."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison import join, packing
from ember.comparison.comparison import Comparison
from ember.errors import TooManyPairs
from ember.settings.comparison import ComparisonLimits
from ember.spark.checkpoints import stored

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
) -> Compared:
    """The pairs of rows whose vectors have a cosine of `threshold`, or of rows with the others.

    rows: with the ids of those that are left. vectors: (id, embedding). others: the same of another
    table; None: the rows with themselves.

    Raises TooManyPairs, and InvalidInput for vectors of two lengths.
    """
    spark = rows.sparkSession
    here = vectors.join(rows.select("id"), "id", "left_semi").select("id", "embedding")
    compared = packing.prepare(
        here,
        others,
        "cosine",
        f"{folder}/packed",
        fitter=join.basis_fitter("cosine", threshold),
        # How many of them are too many is for the caller to say, who also knows of rows without.
        limits=ComparisonLimits(max_failed_fraction=1.0),
    )
    pairs = join.pairs(spark, compared, threshold, max_pairs)
    links = stored(pairs.filter("left_id != right_id") if others is None else pairs, f"{folder}/0")
    found = links.count()
    if found > max_pairs:
        raise TooManyPairs(
            f"at least {found} pairs of embeddings reach {threshold:g}, more than "
            f"limits.max_pairs = {max_pairs}; nothing was published. Raise the threshold of the "
            "tier or limits.max_pairs, or let an earlier tier take the nearest"
        )
    return Compared(links, _bad(rows, vectors, compared))


def _bad(rows: DataFrame, vectors: DataFrame, compared: Comparison) -> DataFrame:
    spark = rows.sparkSession
    missing = rows.join(vectors.select("id"), "id", "left_anti")
    missing = missing.select("id", F.lit("no embedding").alias("reason"))
    return missing.union(compared.left.rejected_rows(spark).select("id", "reason"))
