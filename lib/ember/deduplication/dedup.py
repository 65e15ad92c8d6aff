"""Deduplication of a DataFrame: the verb of the public API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pyspark.sql import DataFrame

from ember.comparison.comparison import scratch_folder
from ember.deduplication.deduplication import find_copies
from ember.deduplication.labeled_pairs import select_pairs
from ember.deduplication.sources import Columns, Plan, Source, checked, source
from ember.deduplication.tiers import Keep, chosen_keep, chosen_tiers
from ember.embedding.options import chosen
from ember.errors import InvalidConfig
from ember.settings.deduplication import DedupLimits, KeepConfig, TierConfig
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.settings.tables import ContentIs
from ember.spark import tables
from ember.spark.failed_rows import refuse_failures
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Modality

__all__ = ["DedupResult", "dedup"]


@dataclass(frozen=True, eq=False)
class DedupResult:
    """What `ember.dedup` gives.

    Attributes:
        kept: the rows of the table that stay, all columns of it; lazy.
        removed: `id`, `kept_id` (the row that stays in its place), `group_id` (the smallest id of
            the group; with `against`, kept_id), `tier`, `score` float, `neighbor_id` (the row that
            the score is with).
        unread: `id`, `reason`: rows that could not be read, or had no embedding; `kept` has them.
        facts: for a manifest, JSON values: tiers and counts.
    """

    kept: DataFrame
    removed: DataFrame
    unread: DataFrame
    facts: dict[str, Any]


def dedup(
    df: DataFrame,
    *,
    id: str,
    content: str = "content",
    modality: Modality = "image",
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    tiers: Sequence[TierConfig] | None = None,
    keep: KeepConfig = None,
    time: str | None = None,
    embeddings: DataFrame | None = None,
    embedding: str = "embedding",
    against: DataFrame | None = None,
    against_embeddings: DataFrame | None = None,
    pairs: DataFrame | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    max_pairs: int = 100_000_000,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    folder: str | None = None,
) -> DedupResult:
    """Find the copies among the rows of a DataFrame, exact and near, and keep one of each group.

    A tier sees only the rows that the tiers before it left, one of each group. Groups are what a
    chain of pairs connects. The result does not depend on the order or the partitions of the rows.
    The tables are read at once, and what is found is written to `folder`.

    Args:
        df: A column of ids, none of them twice, a column of content, and any others.
        id: Column that names each row, of any atomic type.
        content: Column of the content: encoded images, paths of image files, or texts.
        modality: What the content is, "image" or "text".
        content_is: What an image column holds, "bytes" or "paths". None stands for bytes.
        root: With paths, the folder or folders under which files may be read.
        tiers: In order: "exact" (bytes of images, normalized texts); of images "perceptual" or
            {"perceptual": 8}, the bits of 64 in which two hashes may differ; of texts "minhash" or
            {"minhash": 0.7}, the share of their shingles that two texts have in common;
            {"embedding": 0.95}, the cosine. None stands for exact, then perceptual or minhash.
        keep: The row of a group that stays: "largest" (pixels, then bytes), "longest" (characters),
            "oldest" or "newest" (by `time`), {"first_by": an expression in SQL}, the smallest
            value; of equal ones the smallest id. None stands for largest or longest.
        time: Column of the rows' times, a timestamp, a date or a number.
        embeddings: Of these rows, with the same id column, for a tier "embedding".
        embedding: The name of the column of the vectors.
        against: Another table with the same columns of ids and content. Then the rows of `df` are
            removed that have a copy there, and no others.
        against_embeddings: Of the rows of `against`.
        pairs: Pairs of rows that somebody has judged: left_id, right_id, and copy, a boolean or 1
            and 0. `facts["pairs"]` then has the recall of this run and of other thresholds.
        max_pixels: Pixels of the largest image; a larger one cannot be read.
        max_bytes: Bytes of the largest image or text; a larger one cannot be read.
        max_pairs: Pairs that a tier "embedding" may find.
        max_failed_fraction: Share of the rows that may be unreadable.
        folder: Where tables go that are made on the way, and `removed`: in a new folder of their
            own, reachable by all executors. None: a temporary folder of this machine, which serves
            local mode, until Spark stops.

    Returns:
        `kept`, `removed`, `unread` and `facts`; see DedupResult.

    Raises:
        InvalidInput: A column, an id twice, an expression that is no value of a row.
        InvalidConfig: Tiers or a policy that do not go with the rest.
        TooManyFailures: More rows than `max_failed_fraction` cannot be read.
        TooManyPairs: More than `max_pairs` pairs of embeddings.

    Example:
        >>> rows = [(1, "A cat."), (2, "a  CAT."), (3, "A dog."), (4, None)]
        >>> texts = spark.createDataFrame(rows, "id int, text string")
        >>> found = ember.dedup(
        ...     texts, id="id", content="text", modality="text", tiers=["exact"],
        ...     max_failed_fraction=0.5
        ... )
        >>> found.removed.select("id", "kept_id", "tier").collect()
        [Row(id=1, kept_id=2, tier='exact')]
        >>> sorted(row.id for row in found.kept.collect())
        [2, 3, 4]
        >>> found.facts["counts"]["reasons"]
        {'null content': 1}
    """
    limits = chosen(DedupLimits, locals(), "dedup")
    wanted = chosen_tiers(tiers, modality, vectors=embeddings is not None)
    policy = chosen_keep(keep, modality, time=time, against=against is not None)
    if (against is not None and embeddings is not None) != (against_embeddings is not None):
        raise InvalidConfig("give embeddings of both tables with against, or of none")

    def made(
        table: DataFrame, keep: Keep | None, time: str | None, vectors: DataFrame | None
    ) -> Source:
        corpus = tables.select_corpus(
            table, id, content, modality, content_is=content_is, root=root
        )
        if vectors is not None:
            vectors = tables.select_embeddings(vectors, id, embedding, "the embeddings")
        columns = Columns(id, content, time)
        return source(table, columns, corpus.paths, keep, vectors)

    first = made(df, policy, time, embeddings)
    second = None if against is None else made(against, None, None, against_embeddings)
    if pairs is not None:
        pairs = select_pairs(pairs, first.id_type)
    work = checked(Plan(first, second, modality, wanted, policy, limits, pairs))
    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds[name] = round(perf_counter() - start, 3)

    def refuse(bad: DataFrame, count: int, total: int, told: str) -> None:
        refuse_failures(count, total, max_failed_fraction, told)

    place = scratch_folder(folder)
    found = find_copies(
        work, shared=f"{place}/read", scratch=f"{place}/made", phase=phase, refuse=refuse
    )
    facts: Mapping[str, Any] = {**found.facts, "seconds": seconds}
    return DedupResult(first.without(found.removed), found.removed, found.unread, dict(facts))
