"""What a deduplication makes of pairs that people have judged: copies found, others merged.

A sample of labeled pairs says nothing of how many pairs of a corpus are copies, so there is no
precision here: it would be that of the sample's mixture. Recall and the share of others that are
merged are each of pairs of one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, DataType, IntegralType

from ember.deduplication.candidates import PAYLOADS
from ember.deduplication.tiers import Tier
from ember.errors import InvalidInput
from ember.spark.checkpoints import stored
from ember.spark.ids import check_can_be_equal
from ember.spark.tables import column
from ember.worker.duplicates.pictures import BITS

__all__ = ["judged", "select_pairs"]

_PAIR = ("left_id", "right_id")
_NULL = "left_id IS NULL OR right_id IS NULL OR copy IS NULL"
_SAME = "left_id <=> right_id AND left_id IS NOT NULL AND copy IS NOT NULL"
# Thresholds that are tried beside the run's own.
_TRIED = {
    "perceptual": [1 - bits / BITS for bits in range(0, 21, 2)],
    "minhash": [share / 20 for share in range(6, 21)],
    "embedding": [share / 50 for share in range(35, 51)],
}


def select_pairs(
    table: DataFrame,
    id_type: DataType,
    left_id: str = "left_id",
    right_id: str = "right_id",
    label: str = "copy",
) -> DataFrame:
    """Pairs (left_id, right_id, copy boolean) of two ids, null where the table says nothing.

    Raises InvalidInput for a missing column, ids that cannot be those of the rows, and a label that
    is neither a boolean nor an integer.
    """
    ids = [
        column(table, name).alias(what)
        for name, what in zip((left_id, right_id), _PAIR, strict=True)
    ]
    for each in ids:
        kind = table.select(each).schema[0].dataType
        check_can_be_equal(kind, id_type, "the ids of the labeled pairs and of the rows")
    given = column(table, label)
    kind = table.select(given).schema[0].dataType
    if not isinstance(kind, BooleanType | IntegralType):
        raise InvalidInput(
            f"the labels of pairs are {kind.simpleString()}; give a boolean, or 1 for copies and 0 "
            "for others"
        )
    copy = given if isinstance(kind, BooleanType) else F.when(given.isin(0, 1), given == 1)
    return table.select(*ids, copy.alias("copy"))


def judged(
    pairs: DataFrame,
    rows: DataFrame,
    vectors: DataFrame | None,
    removed: DataFrame,
    *,
    tiers: Sequence[Tier],
    total: int,
    folder: str,
) -> dict[str, Any]:
    """For the manifest: how many pairs were of use, what the run made of them, and each threshold.

    pairs: as `select_pairs` gives them. rows: the fingerprints of all rows that can be read.
    vectors: (id, embedding). removed: as `groups.all_removed` gives it, of `total` rows. folder:
    for the pairs, each once.

    recall: the share of the copies that are in one group; of a threshold, that reach it in this
    tier. wrong: the same share of the others. removed: the rows that this tier removed by a witness
    that reaches the threshold, as a share of all; null below the tier's own. A pair is used once,
    in whichever order it is given; of no use are those with a null, of a row with itself, of rows
    that were not read, and those that are both a copy and none.
    """
    ends = F.least(*_PAIR).alias("left_id"), F.greatest(*_PAIR).alias("right_id")
    facts = {"copy": F.min("copy"), "also": F.max("copy"), "n": F.count("*")}
    known = pairs.filter(f"NOT ({_NULL}) AND NOT ({_SAME})").groupBy(*ends)
    once = stored(known.agg(*(each.alias(key) for key, each in facts.items())), folder)
    tried = {tier.name: _thresholds(tier) for tier in tiers if tier.name in _TRIED}
    found = _counts(_scored(once.filter("copy = also"), rows, vectors, removed, tiers), tried)
    unused = _unused(pairs, once, found["pairs"])
    copies, others = found["copies"], found["pairs"] - found["copies"]
    gone = _removed(removed, tried) if tried else {}
    told: dict[str, Any] = {"copies": copies, "others": others, "unused": unused}
    told |= _shares(found, "together", copies, others)
    told["thresholds"] = []
    for tier in tiers:
        for least in tried.get(tier.name, []):
            key = f"{tier.name} {least}"
            row = {"tier": tier.name, "threshold": least, **_shares(found, key, copies, others)}
            row["removed"] = gone[key] / max(total, 1) if least >= tier.least_score else None
            told["thresholds"].append(row)
    return told


def _unused(pairs: DataFrame, once: DataFrame, used: int) -> dict[str, int]:
    """How many pairs are of no use, by reason."""
    given = pairs.agg(F.count("*"), F.count_if(F.expr(_NULL)), F.count_if(F.expr(_SAME)))
    count, null, same = given.collect()[0]
    known = once.agg(F.sum(F.col("n") - 1), F.count_if(F.expr("copy != also"))).collect()[0]
    repeated, both = (int(each or 0) for each in known)
    reasons = {"null": null, "one row": same, "repeated": repeated, "copies and others": both}
    reasons["rows not read"] = count - used - sum(reasons.values())
    return {reason: n for reason, n in reasons.items() if n}


def _thresholds(tier: Tier) -> list[float]:
    return sorted({*_TRIED[tier.name], tier.least_score})


def _scored(
    pairs: DataFrame,
    rows: DataFrame,
    vectors: DataFrame | None,
    removed: DataFrame,
    tiers: Sequence[Tier],
) -> DataFrame:
    """Pairs of rows (copy, together, and by the name of each tier the pair's score)."""
    facts = rows.select("id", *(PAYLOADS[tier.name] for tier in tiers if tier.name in PAYLOADS))
    stays = removed.select(F.col("id").alias("_gone"), "kept_id")
    facts = facts.join(stays, F.col("id") == F.col("_gone"), "left").drop("_gone")
    facts = facts.withColumn("kept_id", F.coalesce("kept_id", "id"))
    if vectors is not None:
        embedding = F.transform("embedding", lambda value: value.cast("double"))
        facts = facts.join(vectors.select("id", embedding.alias("embedding")), "id", "left")
    left, right = (
        facts.select(F.col("id").alias(f"{side}_id"), F.struct("*").alias(side))
        for side in ("left", "right")
    )
    both = pairs.join(left, "left_id").join(right, "right_id")
    scores = [_SCORES[tier.name]().alias(tier.name) for tier in tiers if tier.name in _SCORES]
    together = F.col("left.kept_id") == F.col("right.kept_id")
    return both.select("copy", together.alias("together"), *scores)


def _bits() -> Column:
    apart = F.col("left.perceptual").bitwiseXOR(F.col("right.perceptual"))
    return 1 - F.bit_count(apart) / F.lit(BITS)


def _jaccard() -> Column:
    sides = F.col("left.shingles"), F.col("right.shingles")
    common, all_ = F.size(F.array_intersect(*sides)), F.size(F.array_union(*sides))
    return F.when(all_ > 0, common / all_)


def _cosine() -> Column:
    left, right = F.col("left.embedding"), F.col("right.embedding")

    def product(one: Column, other: Column) -> Column:
        products = F.zip_with(one, other, lambda x, y: x * y)
        return F.aggregate(products, F.lit(0.0), lambda total, each: total + each)

    size = F.sqrt(product(left, left) * product(right, right))
    return F.when(size > 0, product(left, right) / size)


_SCORES = {"perceptual": _bits, "minhash": _jaccard, "embedding": _cosine}


def _counts(scored: DataFrame, tried: Mapping[str, Sequence[float]]) -> Mapping[str, int]:
    """Copies and others that are together, and whose score reaches each threshold."""
    reached = {"together": F.col("together")} | {
        f"{name} {least}": F.col(name) >= least for name, each in tried.items() for least in each
    }
    counts = {"pairs": F.count("*"), "copies": F.count_if("copy")}
    for key, holds in reached.items():
        counts[f"{key} copies"] = F.count_if(F.col("copy") & holds)
        counts[f"{key} others"] = F.count_if(~F.col("copy") & holds)
    return _one(scored, counts)


def _one(rows: DataFrame, facts: Mapping[str, Column]) -> Mapping[str, int]:
    found: Row = rows.agg(*(each.alias(key) for key, each in facts.items())).collect()[0]
    return found.asDict()


def _removed(removed: DataFrame, tried: Mapping[str, Sequence[float]]) -> Mapping[str, int]:
    """How many rows each tier removed by a witness whose score reaches each threshold."""
    facts = {}
    for name, thresholds in tried.items():
        for least in thresholds:  # in 4 bytes, as the scores of witnesses are kept
            reaches = F.col("score") >= F.lit(least).cast("float")
            facts[f"{name} {least}"] = F.count_if((F.col("tier") == name) & reaches)
    return _one(removed, facts)


def _shares(found: Mapping[str, int], key: str, copies: int, others: int) -> dict[str, Any]:
    """Recall among the copies, and the share of the others that are taken for copies."""
    return {
        **_share("recall", found[f"{key} copies"], copies),
        **_share("wrong", found[f"{key} others"], others),
    }


def _share(name: str, count: int, of: int) -> dict[str, float | None]:
    """A share with its 95% interval, as of pairs drawn independently (Wilson 1927)."""
    from scipy.stats import binomtest

    if not of:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    ends = binomtest(count, of).proportion_ci(method="wilson")
    return {name: count / of, f"{name}_low": float(ends.low), f"{name}_high": float(ends.high)}
