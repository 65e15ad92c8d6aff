"""Approximate top-k search of embedding tables: only the lists near a query are looked at.

The corpus, packed as for the exact search (ember.comparison.comparison), is divided into lists;
sampled queries are searched exactly, which tells how many lists must be probed; then every query is
searched in so many. Each node writes the corpus once more in the order of the lists, and all its
workers read that file tile by tile, so that neither a long list nor a large corpus takes a worker's
memory; it and the driver hold four bytes for each row of the corpus (the lists' numbers), a worker
maps sixteen more.

Scores, ties and the lists themselves do not depend on partitions or retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from ember.comparison import blockwise, search
from ember.comparison.blockwise import Written
from ember.comparison.comparison import Comparison
from ember.comparison.ivf import Division, Sizes, divide, measure
from ember.errors import InvalidConfig
from ember.spark import classic
from ember.spark.classic import Accumulator, Broadcast
from ember.spark.publish import Output
from ember.spark.tasks import task_resources
from ember.worker.vectors.ivf_recall import Recall, choose_probes

__all__ = ["Approximate", "check", "plan"]

MIN_ROWS = 10_000
"""Below this the exact search is as fast."""
WORTHWHILE = 0.3
"""Of all pairs; where more would be scored, the exact search, which skips much, is as fast."""


@dataclass(frozen=True)
class Approximate:
    """A planned search. division: None, with a reason, where the search is exact."""

    compared: Comparison
    target: float
    sizes: Sizes
    reason: str
    division: Division | None = None
    recall: Recall | None = None
    pairs: Accumulator[dict[int, int]] | None = None

    def top_k(self, spark: SparkSession, k: int, exclude_self: bool) -> DataFrame:
        """The neighbors, as `ember.search` gives them, for what the search was planned for."""
        body = self._body(spark, k, exclude_self)
        if body is None:
            return search.neighbors(spark, self.compared, k, exclude_self)
        tasks = list(enumerate(range(len(self.compared.left.blocks))))
        return search.plain(blockwise.frame(spark, tasks, body, search.schema(self.compared)))

    def write_neighbors(
        self, spark: SparkSession, output: Output, k: int, exclude_self: bool
    ) -> Written:
        """Stage the neighbors, and take up what an earlier attempt staged."""
        body = self._body(spark, k, exclude_self)
        if body is None:
            return search.write_neighbors(spark, self.compared, output, k, exclude_self)
        tasks = range(len(self.compared.left.blocks))
        rows = search.schema(self.compared)
        return blockwise.write(spark, output, tasks, body, rows, select=search.plain)

    def _body(
        self, spark: SparkSession, k: int, exclude_self: bool
    ) -> Callable[[int], Iterator[pa.RecordBatch]] | None:
        """What a task does with a block of queries; None where the search is exact."""
        if self.division is None or self.recall is None or self.pairs is None:
            return None
        sent = classic.broadcast(spark, self.division)
        k = search.places(self.compared, k)
        how: dict[str, Any] = {"k": k, "exclude_self": exclude_self, "pairs": self.pairs}
        return _searcher(self.compared, sent, self.recall.probes, **how)

    def describe(self) -> dict[str, Any]:
        """For the manifest, once the search has run."""
        told = self.compared.describe()
        facts: dict[str, Any] = {"wanted_recall": self.target, "mode": "exact"}
        if self.recall is not None:
            facts["recall"] = {
                "measured": self.recall.mean,
                "interval_95": [self.recall.low, self.recall.high],
                "on_queries": self.recall.queries,
            }
        if self.division is None or self.recall is None or self.pairs is None:
            return {**told, "search": {**facts, "reason": self.reason}}
        # In a resumed run its own tasks stand for all of them.
        starts = [*self.compared.left.firsts, self.sizes.queries]
        mine = sum(starts[number + 1] - starts[number] for number in self.pairs.value)
        scanned = sum(self.pairs.value.values()) / max(1, mine * self.sizes.rows)
        return {
            **told,
            "search": {
                **facts,
                "mode": "approximate",
                "lists": self.sizes.lists,
                "probes": self.recall.probes,
                "fraction_scanned": scanned,
                "fraction_of_pairs_scored": scanned + self.sizes.overhead,
            },
        }


def check(mode: str, within: Sequence[str]) -> None:
    """Raise InvalidConfig when groups are to be searched approximately."""
    if mode == "approximate" and within:
        raise InvalidConfig(
            "within goes with mode: exact; a search within groups compares little as it is"
        )


def plan(
    spark: SparkSession, compared: Comparison, k: int, recall: float, exclude_self: bool
) -> Approximate:
    """Divide the corpus and measure how many lists a recall takes, or say why not."""
    sizes = Sizes.of(compared)
    exact = partial(Approximate, compared, recall, sizes)
    if sizes.rows < MIN_ROWS:
        return exact(
            f"the corpus has {sizes.rows} rows; below {MIN_ROWS} the exact search is as fast"
        )
    if k * sizes.lists > sizes.rows:
        return exact(f"{k} neighbors are more rows than one of {sizes.lists} lists has")
    if sizes.overhead > WORTHWHILE:
        return exact(
            f"for {sizes.queries} queries, dividing the corpus and measuring the recall would "
            f"score {sizes.overhead:.0%} as many pairs as the exact search"
        )
    division = divide(spark, compared, sizes)
    places, lengths = measure(spark, compared, division, sizes, k=k, exclude_self=exclude_self)
    chosen = choose_probes(places, sizes.lists, recall)
    scanned = float(lengths[:, : chosen.probes].sum(axis=1).mean()) / sizes.rows
    if chosen.probes > lengths.shape[1] or scanned > WORTHWHILE:
        return exact(
            f"a recall of {recall:g} takes {chosen.probes} of {sizes.lists} lists; the exact "
            "search, which skips much, is as fast"
        )
    pairs = classic.accumulator(spark, _latest)
    return exact("", division, chosen, pairs)


def _searcher(
    compared: Comparison,
    sent: Broadcast[Division],
    probes: int,
    *,
    k: int,
    exclude_self: bool,
    pairs: Accumulator[dict[int, int]],
) -> Callable[[int], Iterator[pa.RecordBatch]]:
    def run(number: int) -> Iterator[pa.RecordBatch]:
        from ember.worker.vectors.ivf import InvertedFile

        threads = task_resources()[1]
        left, right = compared.block_caches(threads)
        queries = compared.queries(number, left, right, exclude_self=exclude_self)
        lists, owners = sent.value.lists, sent.value.owners
        file = InvertedFile.on_node(right, owners, len(lists))
        found, looked = file.search_nearest(
            queries, lists, probes, k, exclude_self=exclude_self, threads=threads
        )
        pairs.add({number: looked})
        yield from search.rows(found, queries, left, number, right)

    return run


def _latest(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    """By task: one that runs twice counts once."""
    return {**left, **right}
