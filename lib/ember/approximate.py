"""Approximate top-k search of embedding tables: only the lists near a query are looked at.

The corpus, packed as for the exact search (ember.comparison), is divided into lists; sampled
queries are searched exactly, which tells how many lists must be probed; then every query is
searched in so many. Each node writes the corpus once more in the order of the lists, and all its
workers read that file tile by tile, so that neither a long list nor a large corpus takes a worker's
memory; it and the driver hold four bytes for each row of the corpus (the lists' numbers), a worker
maps sixteen more.

Scores, ties and the lists themselves do not depend on partitions or retries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Accumulator, AccumulatorParam, Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import FloatType, IntegerType, StructField, StructType

from ember import comparison
from ember.comparison import Comparison
from ember.division import Division, Sizes, divide, measure, tasks
from ember.embedding import task_resources
from ember.errors import InvalidInput
from ember.similarity.node import own_numbers
from ember.similarity.projection import METRICS
from ember.similarity.recall import Recall, choose_probes
from ember.tables import select_embeddings

__all__ = ["Approximate", "approximate_top_k", "plan", "wanted_tasks"]

MIN_ROWS = 10_000
"""Below this the exact search is as fast."""
WORTHWHILE = 0.3
"""Of all pairs; where more would be scored, the exact search, which skips much, is as fast."""
_OUTPUT_ROWS = 1 << 16


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
        """The neighbours, as `ember.top_k` gives them, for what the search was planned for."""
        if self.division is None or self.recall is None or self.pairs is None:
            return self.compared.top_k(spark, k, exclude_self)
        left, right = self.compared.left, self.compared.right
        schema = StructType(
            [
                StructField("query_id", left.id_type),
                StructField("neighbor_id", right.id_type),
                StructField("rank", IntegerType()),
                StructField("score", FloatType()),
            ]
        )
        sent = spark.sparkContext.broadcast(self.division)
        searcher = _searcher(
            self.compared,
            sent,
            self.recall.probes,
            k=k,
            exclude_self=exclude_self,
            pairs=self.pairs,
        )
        return tasks(spark, len(left.files)).mapInArrow(searcher, schema)

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
        scanned = sum(self.pairs.value.values()) / (self.sizes.queries * self.sizes.rows)
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


def approximate_top_k(
    queries: DataFrame,
    corpus: DataFrame | None,
    k: int,
    metric: str = "cosine",
    recall: float = 0.95,
    *,
    id: str = "id",
    embedding: str = "embedding",
    exclude_self: bool = False,
    folder: str | None = None,
) -> DataFrame:
    """The k most similar rows of `corpus` for each row of `queries`, nearly all of them.

    recall: the share of the exact answer that is found, on average over queries; the lower end of
        its 95% interval, measured on sampled queries, reaches this.

    The other arguments and the result are those of `ember.top_k`; scores are exact. Where the
    tables are small, or so much would have to be scanned that nothing is won, the search is exact.
    Raises InvalidInput as `ember.top_k` does, and for a recall that is not between 0 and 1.
    """
    if k < 1:
        raise InvalidInput(f"k is {k}; ask for at least one neighbor")
    if not 0 < recall < 1:
        raise InvalidInput(f"recall is {recall}; give a share between 0 and 1, or search exactly")
    spark = queries.sparkSession
    if metric not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    left = select_embeddings(queries, id, embedding, "the left table")
    right = None if corpus is None else select_embeddings(corpus, id, embedding, "the right table")
    folder = folder or f"file://{tempfile.mkdtemp(prefix='ember-blocks-')}"
    compared = comparison.prepare(
        left, right, metric, folder, left_blocks=wanted_tasks(spark, "approximate")
    )
    return plan(spark, compared, k, recall, exclude_self).top_k(spark, k, exclude_self)


def wanted_tasks(spark: SparkSession, mode: str) -> int:
    """How many blocks of queries to search: few for approximate search.

    Each of its tasks reads nearly the whole corpus, and has the fewer queries for it.
    """
    cores = int(spark.sparkContext.defaultParallelism)
    return cores if mode == "approximate" else comparison.wanted_tasks(spark)


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
    pairs = spark.sparkContext.accumulator({}, _Latest())
    return exact("", division, chosen, pairs)


def _searcher(
    compared: Comparison,
    sent: Broadcast[Division],
    probes: int,
    *,
    k: int,
    exclude_self: bool,
    pairs: Accumulator[dict[int, int]],
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.similarity.inverted import InvertedFile

        numbers = [row for batch in batches for row in batch.column(0).to_pylist()]
        if not numbers:
            return  # Spark gives a range without rows one partition
        (number,), threads = numbers, task_resources()[1]
        left = compared.left.shelf(compared.basis, threads)
        right = compared.right.shelf(compared.basis, threads)
        queries, ids = left.block(number), left.ids(number)
        if exclude_self and not compared.itself:
            queries = replace(queries, ids=own_numbers(ids, right))
        lists, owners = sent.value.lists, sent.value.owners
        file = InvertedFile.on_node(right, owners, len(lists))
        found, looked = file.search_nearest(
            queries, lists, probes, k, exclude_self=exclude_self, threads=threads
        )
        pairs.add({number: looked})
        rows, scores = found.result(queries.metric)
        row, rank = np.nonzero(rows >= 0)
        columns = {
            "query_id": ids.take(pa.array(row)),
            "neighbor_id": right.ids_at(rows[row, rank]),
            "rank": pa.array((rank + 1).astype(np.int32)),
            "score": pa.array(scores[row, rank]),
        }
        result = pa.RecordBatch.from_pydict(columns)
        for start in range(0, result.num_rows, _OUTPUT_ROWS):
            yield result.slice(start, _OUTPUT_ROWS)

    return run


class _Latest(AccumulatorParam[dict[int, int]]):
    """By task: one that runs twice counts once."""

    def zero(self, value: dict[int, int]) -> dict[int, int]:
        return {}

    def addInPlace(self, value1: dict[int, int], value2: dict[int, int]) -> dict[int, int]:
        return {**value1, **value2}
