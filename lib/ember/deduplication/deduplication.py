"""Tier after tier: the rows of a corpus that are copies, with their witnesses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison.rejects import count_reasons
from ember.deduplication import candidates, groups
from ember.deduplication.fingerprints import fingerprints
from ember.deduplication.sources import Plan, Source
from ember.deduplication.sync import Sync
from ember.deduplication.tiers import Tier
from ember.deduplication.vectors import vector_links
from ember.spark.checkpoints import stored

__all__ = ["Found", "Refuse", "find_copies"]

_MOST_SIZES = 1000


class Refuse(Protocol):
    """Raises TooManyFailures where rows (id, reason) that cannot be used are too many of all."""

    def __call__(self, bad: DataFrame, count: int, total: int, told: str) -> None: ...


@dataclass(frozen=True)
class Found:
    """What was found in a corpus.

    removed: as `groups.all_removed` gives it, in a file. unread: (id, reason), the rows that could
    not be read or, for a tier of embeddings, had no vector; they stay. facts: for the manifest.
    """

    removed: DataFrame
    unread: DataFrame
    facts: dict[str, Any]


@dataclass
class _Search:
    """The rows that are left of both tables, and what the tiers so far have found."""

    work: Plan
    scratch: str
    rows: DataFrame
    others: DataFrame | None
    found: list[tuple[str, DataFrame]]
    update: Sync | None

    def by(self, tier: Tier) -> DataFrame:
        """The removed rows of a tier by fingerprints."""
        rows, others, folder = self.rows, self.others, f"{self.scratch}/{tier.name}"
        if tier.name == "exact":
            if others is None:
                return groups.direct(candidates.equal_links(rows, "exact"))
            return _other_way(candidates.copies_of(rows, others, "exact"))
        if others is None:
            find = self.update.near_links if self.update else candidates.near_links
            links = stored(find(rows, tier, folder), f"{folder}/links")
            return groups.grouped(links, rows, folder)
        return _other_way(candidates.near_copies_of(rows, others, tier, folder))

    def note(self, tier: Tier, removed: DataFrame) -> int:
        """Take the removed rows of a tier out of those that are left; how many they are."""
        table = stored(removed, f"{self.scratch}/{tier.name}/removed")
        self.found.append((tier.name, table))
        self.rows = self.rows.join(table.select("id"), "id", "left_anti")
        return table.count()


def find_copies(
    work: Plan,
    *,
    shared: str,
    scratch: str,
    phase: Callable[[str], AbstractContextManager[None]],
    refuse: Refuse,
    update: Sync | None = None,
) -> Found:
    """All rows of the input that go.

    shared: a folder whose fingerprints a resumed run takes up. scratch: a folder for what is made
    on the way. phase: times a part of the run, by its name. refuse: is told of the rows that cannot
    be used, and raises where they are too many. update: what a run before found of the same rows.

    Raises TooManyFailures, TooManyPairs, and InvalidInput for vectors of two lengths.
    """
    counts: dict[str, Any] = {}
    unread = []
    with phase("read"):
        noted = _noted(work, work.input, shared, "input", update)
        rows, bad, total = _readable(noted, refuse, "rows")
        unread.append(bad)
        others = None
        if work.against is not None:
            noted = _noted(work, work.against, shared, "against", update)
            others, _, counts["against"] = _readable(noted, refuse, "rows of the other table")
    search = _Search(work, scratch, rows, others, [], update)
    by_tier = {}
    for tier in work.tiers:
        with phase(tier.name):
            if tier.name == "embedding":
                removed, bad = _by_vectors(search, tier, refuse)
                unread.append(bad)
            else:
                removed = search.by(tier)
            by_tier[tier.name] = search.note(tier, removed)
    with phase("groups"):
        against = work.against is not None
        whole = groups.all_removed(search.found, against=against)
        removed = stored(whole, f"{scratch}/removed")
        reasons = count_reasons(unread[0])
        counts |= {"input_rows": total, "removed": sum(by_tier.values()), "by_tier": by_tier}
        counts |= {"unread": sum(reasons.values()), "reasons": reasons}
        if len(unread) > 1:
            counts["without_embedding"] = count_reasons(unread[1])
        if not against:
            counts |= _sizes(removed)
    facts = {"tiers": [tier.describe() for tier in work.tiers], "counts": counts}
    bad = unread[0] if len(unread) == 1 else unread[0].union(unread[1])
    return Found(removed, bad, facts)


def _noted(work: Plan, given: Source, shared: str, name: str, update: Sync | None) -> DataFrame:
    """The fingerprints of a table's rows."""
    folder = f"{shared}/{name}"
    if update is None:
        return fingerprints(work, given, folder)
    update.kept.take(name, folder)
    return fingerprints(work, given, folder, digests=True, before=update.before(given, name))


def _readable(noted: DataFrame, refuse: Refuse, told: str) -> tuple[DataFrame, DataFrame, int]:
    """The rows that can be read, those that cannot (id, reason), and how many there are in all."""
    bad = noted.filter("error IS NOT NULL").select("id", F.col("error").alias("reason"))
    total, count = noted.count(), bad.count()
    refuse(bad, count, total, f"{told} cannot be read")
    return noted.filter("error IS NULL"), bad, total


def _by_vectors(search: _Search, tier: Tier, refuse: Refuse) -> tuple[DataFrame, DataFrame]:
    """The removed rows of a tier by embeddings, and those without a vector (id, reason)."""
    work, folder = search.work, f"{search.scratch}/{tier.name}"
    vectors = work.input.vectors
    if vectors is None:  # `chosen_tiers` has seen to it
        raise ValueError("there are no embeddings")
    compared = vector_links(
        search.rows,
        vectors,
        work.against.vectors if work.against else None,
        threshold=tier.least_score,
        folder=folder,
        max_pairs=work.limits.max_pairs,
        update=search.update,
    )
    bad = stored(compared.bad, f"{folder}/bad")
    refuse(bad, bad.count(), search.rows.count(), "rows have no usable embedding")
    if work.against is not None:
        return _other_way(candidates.best_links(compared.links)), bad
    return groups.grouped(compared.links, search.rows, folder), bad


def _other_way(links: DataFrame) -> DataFrame:
    """The left rows of links as removed, for copies in another table."""
    return groups.direct(
        links.select(
            F.col("right_id").alias("left_id"), F.col("left_id").alias("right_id"), "score"
        )
    )


def _sizes(removed: DataFrame) -> dict[str, Any]:
    """Groups, the rows in them, the largest, and how many groups there are of each size."""
    sizes = removed.groupBy("kept_id").agg((F.count("*") + 1).alias("size"))
    rows = sizes.groupBy("size").count().orderBy("size").limit(_MOST_SIZES).collect()
    found = {row["size"]: row["count"] for row in rows}
    told = {
        "groups": sum(found.values()),
        "rows": sum(size * count for size, count in found.items()),
        "largest": max(found, default=0),
    }
    return {"groups": told, "groups_by_size": {str(size): n for size, n in found.items()}}
