"""Dividing a corpus into lists on the cluster, and measuring what they keep apart.

Samples are drawn by the numbers of rows in id order, so nothing here depends on partitions.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ember.comparison.blocks import sampled
from ember.comparison.comparison import Comparison
from ember.spark import classic
from ember.spark.classic import cores
from ember.spark.tasks import task_resources
from ember.worker.vectors import topk
from ember.worker.vectors.arrays import Int64
from ember.worker.vectors.block import prepare
from ember.worker.vectors.block_cache import BlockCache, own_numbers
from ember.worker.vectors.ivf_lists import ITERATIONS, Lists, count_for, fit_lists
from ember.worker.vectors.neighbors import Neighbors

__all__ = ["Division", "Sizes", "divide", "measure", "tasks"]

_SAMPLED_SHARE = 40
_SAMPLE_QUERIES = (200, 1000)
_SAMPLE_PER_LIST = 32
_SAMPLE_BYTES = 128 << 20
_SEED = 0


@dataclass(frozen=True)
class Division:
    """A corpus in lists.

    owners: the list of each row, by the row's number.
    """

    lists: Lists
    owners: NDArray[np.int32]


@dataclass(frozen=True)
class Sizes:
    """How large the parts of the work are: queries and rows, lists, and what is sampled of both."""

    queries: int
    rows: int
    lists: int
    sampled_queries: int
    sampled_rows: int

    @classmethod
    def of(cls, compared: Comparison) -> Sizes:
        queries, rows = compared.left.rows, compared.right.rows
        affordable = _SAMPLE_BYTES // (4 * compared.right.dimension)
        lists = max(1, count_for(rows, queries, affordable))
        fewest, most = _SAMPLE_QUERIES
        return cls(
            queries,
            rows,
            lists,
            min(queries, most, max(fewest, queries // _SAMPLED_SHARE)),
            min(rows, affordable, _SAMPLE_PER_LIST * lists),
        )

    @property
    def overhead(self) -> float:
        """Pairs scored beside the lists' own rows, as a share of all pairs.

        For the exact search of the sample, for the k-means, and for all rows and queries against
        the centroids.
        """
        measuring = self.sampled_queries * self.rows
        fitting = ITERATIONS * self.sampled_rows * self.lists
        probing = self.lists * (self.queries + self.rows)
        return (measuring + fitting + probing) / max(1, self.queries * self.rows)


def divide(spark: SparkSession, compared: Comparison, sizes: Sizes) -> Division:
    """Lists fitted on a sample in one task, then the list of every row, a task for each block."""
    right = compared.right
    numbers = sampled(sizes.rows, sizes.sampled_rows)

    def fit(cache: BlockCache, _: int, threads: int) -> bytes:
        sample = cache.rows_at(numbers)
        return pickle.dumps(fit_lists(sample, cache.basis.metric, sizes.lists, seed=_SEED))

    lists = pickle.loads(_collect(spark, compared, fit, 1)[0])
    sent = classic.broadcast(spark, lists)

    def assign(cache: BlockCache, number: int, threads: int) -> bytes:
        rows = cache.block(number).rows
        nearest = sent.value.nearest(rows, 1, threads=threads)
        return bytes(nearest.astype(np.int32).tobytes())

    parts = _collect(spark, compared, assign, len(right.blocks))
    return Division(lists, np.concatenate([np.frombuffer(part, np.int32) for part in parts]))


def measure(
    spark: SparkSession,
    compared: Comparison,
    division: Division,
    sizes: Sizes,
    *,
    k: int,
    exclude_self: bool,
) -> tuple[Int64, Int64]:
    """Of sampled queries: places of their exact neighbors' lists, and sizes of their lists.

    (q, k) places as `choose_probes` takes them, and (q, half of the lists) sizes, nearest first.
    """
    left = compared.left
    sample = sampled(sizes.queries, sizes.sampled_queries)
    # Each task reads the whole corpus, so there are no more than cores.
    chunks = np.array_split(sample, min(len(sample), cores(spark)))
    half = max(1, sizes.lists // 2)
    sent = classic.broadcast(spark, division)

    def search(cache: BlockCache, number: int, threads: int) -> bytes:
        from ember.worker.vectors.ivf import list_places

        mine = left.block_cache(compared.basis, threads)
        queries = prepare(
            mine.rows_at(chunks[number]), cache.basis.metric, cache.basis, threads=threads
        )
        if exclude_self:
            own = (
                cache.own_at(chunks[number])
                if compared.itself
                else own_numbers(mine.ids_at(chunks[number]), cache)
            )
            queries = replace(queries, own=own)
        found = Neighbors.empty(len(queries), k)
        cache.ready(range(len(cache.packed)))
        blocks = cache.blocks(range(len(cache.packed)))
        found = topk.search(queries, blocks, found, exclude_self=exclude_self, threads=threads)
        numbers, _ = found.result(queries.metric)
        lists, owners = sent.value.lists, sent.value.owners
        nearest = lists.nearest(queries.rows, half, queries=True, threads=threads)
        lengths = np.bincount(owners, minlength=len(lists))[nearest]
        return pickle.dumps((list_places(numbers, owners, nearest, len(lists)), lengths))

    parts = [pickle.loads(part) for part in _collect(spark, compared, search, len(chunks))]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def tasks(spark: SparkSession, count: int) -> DataFrame:
    """One task for each number below `count`."""
    return spark.range(0, count, 1, max(1, count))


def _collect(
    spark: SparkSession,
    compared: Comparison,
    work: Callable[[BlockCache, int, int], bytes],
    count: int,
) -> list[bytes]:
    """What `work` makes of the corpus's cache, a task's number and its threads, in that order."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        threads = task_resources()[1]
        for batch in batches:
            for number in batch.column(0).to_pylist():
                made = work(compared.right.block_cache(compared.basis, threads), number, threads)
                columns = {"number": pa.array([number]), "made": pa.array([made], pa.binary())}
                yield pa.RecordBatch.from_pydict(columns)

    rows = tasks(spark, count).mapInArrow(run, "number long, made binary").collect()
    return [bytes(row["made"]) for row in sorted(rows, key=lambda row: row["number"])]
