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
from ember.deduplication.fingerprints import Noted, fingerprints
from ember.deduplication.labeled_pairs import judged
from ember.deduplication.sources import Plan, Source
from ember.deduplication.sync import Sync
from ember.deduplication.tiers import Tier
from ember.deduplication.vectors import vector_links
from ember.spark.checkpoints import counted, stored

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
    """The rows that are left of both tables, and what the tiers so far have found.

    count: of the rows. without: rows without a vector (id, reason), once those were compared.
    """

    work: Plan
    scratch: str
    rows: DataFrame
    count: int
    others: DataFrame | None
    found: list[tuple[str, DataFrame]]
    update: Sync | None
    without: DataFrame | None = None

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
        table, count = counted(removed, f"{self.scratch}/{tier.name}/removed")
        self.found.append((tier.name, table))
        if count:
            self.rows = self.rows.join(table.select("id"), "id", "left_anti")
            self.count -= count
        return count


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
    with phase("read"):
        noted = _noted(work, work.input, shared, "input", update)
        refuse(noted.unread, noted.failed, noted.total, "rows cannot be read")
        others = None
        if work.against is not None:
            other = _noted(work, work.against, shared, "against", update)
            told = "rows of the other table cannot be read"
            refuse(other.unread, other.failed, other.total, told)
            others, counts["against"] = other.rows, other.total
    count = noted.total - noted.failed
    search = _Search(work, scratch, noted.rows, count, others, [], update)
    by_tier: dict[str, int] = {}
    for tier in work.tiers:
        with phase(tier.name):
            if tier.name == "embedding":
                removed = _by_vectors(search, tier, refuse)
            else:
                removed = search.by(tier)
            by_tier[tier.name] = search.note(tier, removed)
    with phase("groups"):
        against = work.against is not None
        removed = stored(groups.all_removed(search.found, against=against), f"{scratch}/removed")
        counts |= {"input_rows": noted.total, "removed": sum(by_tier.values()), "by_tier": by_tier}
        reasons = count_reasons(noted.unread) if noted.failed else {}
        counts |= {"unread": noted.failed, "reasons": reasons}
        if search.without is not None:
            counts["without_embedding"] = count_reasons(search.without)
        counts |= _sizes(removed, against=against)
    facts = {"tiers": [tier.describe() for tier in work.tiers], "counts": counts}
    if work.pairs is not None:
        with phase("pairs"):
            facts["pairs"] = judged(
                work.pairs,
                noted.rows,
                work.input.vectors,
                removed,
                tiers=work.tiers,
                total=noted.total,
                folder=f"{scratch}/pairs",
            )
    bad = noted.unread if search.without is None else noted.unread.union(search.without)
    return Found(removed, bad, facts)


def _noted(work: Plan, given: Source, shared: str, name: str, update: Sync | None) -> Noted:
    """The fingerprints of a table's rows."""
    folder = f"{shared}/{name}"
    if update is None:
        return fingerprints(work, given, folder)
    update.kept.take(name, folder)
    return fingerprints(work, given, folder, digests=True, before=update.before(given, name))


def _by_vectors(search: _Search, tier: Tier, refuse: Refuse) -> DataFrame:
    """The removed rows of a tier by embeddings."""
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
    search.without, count = counted(compared.bad, f"{folder}/bad")
    refuse(search.without, count, search.count, "rows have no usable embedding")
    if work.against is not None:
        return _other_way(candidates.best_links(compared.links))
    return groups.grouped(compared.links, search.rows, folder)


def _other_way(links: DataFrame) -> DataFrame:
    """The left rows of links as removed, for copies in another table."""
    return groups.direct(
        links.select(
            F.col("right_id").alias("left_id"), F.col("left_id").alias("right_id"), "score"
        )
    )


def _sizes(removed: DataFrame, *, against: bool) -> dict[str, Any]:
    """How many groups there are of each of the largest sizes; of all sizes, the rows in them.

    against: groups are the rows that one row of the other table stands for, without it.
    """
    size = F.count("*") if against else F.count("*") + 1
    sizes = removed.groupBy("kept_id").agg(size.alias("size"))
    # A billion rows have some forty thousand sizes at most.
    found = dict(sorted(tuple(row) for row in sizes.groupBy("size").count().collect()))
    largest = list(found.items())[-_MOST_SIZES:]
    by_size = {"groups_by_size": {str(size): n for size, n in largest}}
    if against:
        return by_size
    told = {
        "groups": sum(found.values()),
        "rows": sum(size * count for size, count in found.items()),
        "largest": max(found, default=0),
    }
    return {"groups": told, **by_size}
