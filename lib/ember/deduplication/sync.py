"""dedup brought up to date: what is known of rows as they were, and what must be found anew.

Which row of a group stays, and the groups, are found anew by every run, from links. Three things
take long, and are taken from the run before where they still hold:

- what was noted of a row's content (`fingerprints`), by the id and a hash of the content;
- the links of a bucket, where its rows are the same, in the same order;
- the pairs of embeddings, where both vectors are the same (ember.comparison.sync_join).

So the tables are those that a run over everything would give, witnesses included.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ember.comparison import sync, sync_join
from ember.deduplication import candidates
from ember.deduplication.sources import Plan, Source
from ember.deduplication.tiers import Tier
from ember.settings.comparison import ComparisonLimits
from ember.spark.checkpoints import stored
from ember.spark.kept import Kept, without
from ember.spark.publish import Output

__all__ = ["Sync", "begin"]

# Keys that decide which rows there are, or which of them stays, or nothing.
_SEEN = {
    "job": "each job reads its own output alone",
    "input": "rows, and the modality, which is a fact",
    "against": "rows",
    "keep": "which row stays is found anew",
    "pairs": "judges what was removed",
    "time_zone": "rows that a where chooses, and their order",
    "limits.max_pairs": "a check, made by every run",
}
_PACKAGES = ("ember-spark", "numpy", "pillow", "imagehash", "datasketch")
_log = logging.getLogger(__name__)


@dataclass
class Sync:
    """What the run before kept of a corpus. whole: why nothing of it is taken up, or None.

    vectors: the tier of embeddings, once it has run.
    """

    kept: Kept
    whole: str | None
    vectors: sync.Sync | None = None

    def before(self, given: Source, name: str) -> DataFrame | None:
        """What the run before noted of a table's content; None where it is to be read again."""
        if self.whole is not None:
            return None
        if given.paths is not None:
            _log.warning("all files are read again: rows name them, and they may have changed")
            return None
        return self.kept.table(name)

    def near_links(self, rows: DataFrame, tier: Tier, folder: str) -> DataFrame:
        """As `candidates.near_links`; buckets whose rows are as they were have their old links."""
        alike, rows = candidates.stand_ins(rows, tier, folder)
        names = {what: f"{tier.name}_{what}" for what in ("rows", "buckets", "links")}
        now = self.kept.made(rows.select("id", *_states(tier)), names["rows"])
        if self.whole is not None:
            buckets = self.kept.made(candidates.buckets(rows, tier), names["buckets"])
            links = candidates.linked(rows, buckets, tier)
            return alike.union(self.kept.made(links, names["links"]).drop("key"))
        was = self.kept.table(names["rows"])
        ids = stored(_changed(was, now), f"{folder}/changed")
        keys = stored(self._dirty(rows, ids, tier, names["buckets"]), f"{folder}/dirty")
        bands = f"{tier.name}_bands"
        in_them = rows.withColumn(bands, F.explode(bands)).join(
            keys.withColumnRenamed("key", bands), bands, "left_semi"
        )
        in_them = stored(in_them.withColumn(bands, F.array(bands)), f"{folder}/met")
        buckets = candidates.buckets(in_them, tier)
        old = self.kept.table(names["buckets"]).join(keys, "key", "left_anti")
        old_links = self.kept.table(names["links"]).join(keys, "key", "left_anti")
        found = stored(buckets, f"{folder}/buckets")
        links = candidates.linked(in_them, found, tier)
        self.kept.made(old.unionByName(found), names["buckets"])
        all_links = old_links.select(links.columns).union(links)
        return alike.union(self.kept.made(all_links, names["links"]).drop("key"))

    def _dirty(self, rows: DataFrame, ids: DataFrame, tier: Tier, buckets: str) -> DataFrame:
        """Keys of buckets that hold, or held, a row that has changed, or the rows of such a one.

        Of buckets with the same rows one has the links of all.
        """
        bands = f"{tier.name}_bands"
        before = self.kept.table("input")
        keys = [
            each.join(ids, "id", "left_semi").select(F.explode(bands).alias("key"))
            for each in (before, rows)
        ]
        touched = keys[0].union(keys[1]).distinct()
        known = self.kept.table(buckets)
        same = known.join(touched, "key", "left_semi").select("n", "x", "y").distinct()
        others = known.join(same, ["n", "x", "y"], "left_semi").select("key")
        return touched.union(others).distinct()

    def pairs(self, here: DataFrame, threshold: float, max_pairs: int) -> DataFrame | None:
        """The pairs of vectors (id, embedding) of rows that are left; None: compare them all."""
        names = ("embedding", "")  # there is no right table
        self.vectors = sync.begin(self.kept, here, None, "cosine", 1.0, names=names)
        if self.vectors.whole is not None:
            return None
        limits = ComparisonLimits(max_failed_fraction=1.0)
        how = sync_join.Joining(threshold, "cosine", limits, max_pairs)
        return sync_join.old_and_new(self.vectors, self.kept.table("pairs"), how)[0]

    def keep(self) -> dict[str, Any]:
        """Stage what the next run needs; for the manifest, how this one came by its rows."""
        return self.kept.put(self.whole, self.vectors.facts() if self.vectors else {})


def begin(
    output: Output, identity: Mapping[str, Any], work: Plan, versions: Mapping[str, str]
) -> Sync:
    """See whether what the run before kept can be taken up.

    versions: of packages; those that a row's fingerprint depends on count.
    """
    settings = without(identity, _SEEN)
    ids = [each.id_type.jsonValue() for each in (work.input, work.against) if each]
    packages = {name: version for name, version in versions.items() if name in _PACKAGES}
    kept = Kept(output, {**settings, "modality": work.modality, "ids": ids, **packages})
    whole = kept.obstacle()
    if whole is not None:
        kept.log("all content is read and compared anew", whole)
    return Sync(kept, whole)


def _states(tier: Tier) -> list[Column]:
    """Two halves of a hash of what the links of a row depend on: its content and its order."""
    columns = (tier.name, "order")
    return [F.xxhash64(F.lit(salt), *columns).alias(f"h{salt}") for salt in (1, 2)]


def _changed(was: DataFrame, now: DataFrame) -> DataFrame:
    """The ids (id) of rows that are not in both tables (id, h1, h2), or not with the same hash."""
    states = ["id", "h1", "h2"]
    both = was.select(*states).unionAll(now.select(*states))
    # Of an id that is in both as it was there are two equal rows.
    same = (F.count("*") == 2) & (F.min("h1") == F.max("h1")) & (F.min("h2") == F.max("h2"))
    return both.groupBy("id").agg(same.alias("same")).filter("NOT same").select("id")
