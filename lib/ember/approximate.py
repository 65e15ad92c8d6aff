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

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Accumulator, AccumulatorParam, Broadcast
from pyspark.sql import DataFrame, SparkSession

from ember import blockwise, comparison, search
from ember.blockwise import Written, wanted_tasks
from ember.comparison import Comparison
from ember.embedding import task_resources
from ember.errors import InvalidConfig, InvalidInput
from ember.resumable import TaskOutput
from ember.similarity.block import Int64, prepare
from ember.similarity.lists import ITERATIONS, Lists, count_for, fit_lists
from ember.similarity.neighbours import Neighbours
from ember.similarity.node import Shelf, own_numbers
from ember.similarity.recall import Recall, choose_probes
from ember.similarity.topk import search_block

__all__ = ["Approximate", "approximate_top_k", "check", "plan", "wanted_blocks"]

MIN_ROWS = 10_000
"""Below this the exact search is as fast."""
WORTHWHILE = 0.3
"""Of all pairs; where more would be scored, the exact search, which skips much, is as fast."""
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
        body = self._body(spark, k, exclude_self)
        if body is None:
            return search.neighbors(spark, self.compared, k, exclude_self)
        tasks = list(enumerate(range(len(self.compared.left.files))))
        return search.plain(blockwise.frame(spark, tasks, body, search.schema(self.compared)))

    def write_neighbors(
        self, spark: SparkSession, output: TaskOutput, k: int, exclude_self: bool
    ) -> Written:
        """Stage the neighbours, and take up what an earlier attempt staged."""
        body = self._body(spark, k, exclude_self)
        if body is None:
            return search.write_neighbors(spark, self.compared, output, k, exclude_self)
        tasks = range(len(self.compared.left.files))
        rows = search.schema(self.compared)
        return blockwise.write(spark, output, tasks, body, rows, select=search.plain)

    def _body(
        self, spark: SparkSession, k: int, exclude_self: bool
    ) -> Callable[[int], Iterator[pa.RecordBatch]] | None:
        """What a task does with a block of queries; None where the search is exact."""
        if self.division is None or self.recall is None or self.pairs is None:
            return None
        sent = spark.sparkContext.broadcast(self.division)
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
    left, right = comparison.sides(queries, corpus, metric, id=id, embedding=embedding, within=())
    where = folder or comparison.scratch_folder()
    blocks = wanted_blocks(spark, "approximate")
    compared = comparison.prepare(left, right, metric, where, left_blocks=blocks)
    return plan(spark, compared, k, recall, exclude_self).top_k(spark, k, exclude_self)


def check(mode: str, within: Sequence[str]) -> None:
    """Raise InvalidConfig when groups are to be searched approximately."""
    if mode == "approximate" and within:
        raise InvalidConfig(
            "within goes with mode: exact; a search within groups compares little as it is"
        )


def wanted_blocks(spark: SparkSession, mode: str) -> int:
    """Into how many blocks to pack the queries: few for approximate search.

    Each of its tasks reads nearly the whole corpus, and has the fewer queries for it.
    """
    cores = int(spark.sparkContext.defaultParallelism)
    return cores if mode == "approximate" else wanted_tasks(spark)


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
    division = _divide(spark, compared, sizes)
    places, lengths = _measure(spark, compared, division, sizes, k=k, exclude_self=exclude_self)
    chosen = choose_probes(places, sizes.lists, recall)
    scanned = float(lengths[:, : chosen.probes].sum(axis=1).mean()) / sizes.rows
    if chosen.probes > lengths.shape[1] or scanned > WORTHWHILE:
        return exact(
            f"a recall of {recall:g} takes {chosen.probes} of {sizes.lists} lists; the exact "
            "search, which skips much, is as fast"
        )
    pairs = spark.sparkContext.accumulator({}, _Latest())
    return exact("", division, chosen, pairs)


def _divide(spark: SparkSession, compared: Comparison, sizes: Sizes) -> Division:
    """Lists fitted on a sample in one task, then the list of every row, a task for each block."""
    right = compared.right
    numbers = _sampled(sizes.rows, sizes.sampled_rows)

    def fit(shelf: Shelf, _: int, threads: int) -> bytes:
        sample = shelf.rows_at(numbers)
        return pickle.dumps(fit_lists(sample, shelf.basis.metric, sizes.lists, seed=_SEED))

    lists = pickle.loads(_collect(spark, compared, fit, 1)[0])
    sent = spark.sparkContext.broadcast(lists)

    def assign(shelf: Shelf, number: int, threads: int) -> bytes:
        rows = shelf.block(number).rows
        nearest = sent.value.nearest(rows, 1, threads=threads)
        return bytes(nearest.astype(np.int32).tobytes())

    parts = _collect(spark, compared, assign, len(right.files))
    return Division(lists, np.concatenate([np.frombuffer(part, np.int32) for part in parts]))


def _measure(
    spark: SparkSession,
    compared: Comparison,
    division: Division,
    sizes: Sizes,
    *,
    k: int,
    exclude_self: bool,
) -> tuple[Int64, Int64]:
    """Of sampled queries: places of their exact neighbours' lists, and sizes of their lists.

    (q, k) places as `choose_probes` takes them, and (q, half of the lists) sizes, nearest first.
    """
    left = compared.left
    sample = _sampled(sizes.queries, sizes.sampled_queries)
    chunks = np.array_split(sample, min(len(sample), wanted_tasks(spark)))
    half = max(1, sizes.lists // 2)
    sent = spark.sparkContext.broadcast(division)

    def measure(shelf: Shelf, number: int, threads: int) -> bytes:
        from ember.similarity.inverted import list_places

        mine = left.shelf(compared.basis, threads)
        queries = prepare(
            mine.rows_at(chunks[number]), shelf.basis.metric, shelf.basis, threads=threads
        )
        if exclude_self:
            own = (
                chunks[number]
                if compared.itself
                else own_numbers(mine.ids_at(chunks[number]), shelf)
            )
            queries = replace(queries, ids=own)
        found = Neighbours.empty(len(queries), k)
        for other in range(len(shelf.files)):
            found = search_block(
                queries, shelf.block(other), found, exclude_self=exclude_self, threads=threads
            )
        numbers, _ = found.result(queries.metric)
        lists, owners = sent.value.lists, sent.value.owners
        nearest = lists.nearest(queries.rows, half, queries=True, threads=threads)
        lengths = np.bincount(owners, minlength=len(lists))[nearest]
        return pickle.dumps((list_places(numbers, owners, nearest, len(lists)), lengths))

    parts = [pickle.loads(part) for part in _collect(spark, compared, measure, len(chunks))]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
        from ember.similarity.inverted import InvertedFile

        threads = task_resources()[1]
        left, right = compared.shelves(threads)
        queries, ids = left.block(number), left.ids(number)
        if exclude_self and not compared.itself:
            queries = replace(queries, ids=own_numbers(ids, right))
        lists, owners = sent.value.lists, sent.value.owners
        file = InvertedFile.on_node(right, owners, len(lists))
        found, looked = file.search_nearest(
            queries, lists, probes, k, exclude_self=exclude_self, threads=threads
        )
        pairs.add({number: looked})
        yield from search.rows(found, queries, left, number, right)

    return run


def _tasks(spark: SparkSession, count: int) -> DataFrame:
    """One task for each number below `count`."""
    return spark.range(0, count, 1, max(1, count))


def _collect(
    spark: SparkSession,
    compared: Comparison,
    work: Callable[[Shelf, int, int], bytes],
    count: int,
) -> list[bytes]:
    """What `work` makes of the corpus's shelf, a task's number and its threads, in that order."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        threads = task_resources()[1]
        for batch in batches:
            for number in batch.column(0).to_pylist():
                made = work(compared.right.shelf(compared.basis, threads), number, threads)
                columns = {"number": pa.array([number]), "made": pa.array([made], pa.binary())}
                yield pa.RecordBatch.from_pydict(columns)

    rows = _tasks(spark, count).mapInArrow(run, "number long, made binary").collect()
    return [bytes(row["made"]) for row in sorted(rows, key=lambda row: row["number"])]


def _sampled(rows: int, size: int) -> Int64:
    """Numbers of rows drawn without replacement, rising: the same in every run."""
    return np.sort(np.random.default_rng(_SEED).choice(rows, size, replace=False))


class _Latest(AccumulatorParam[dict[int, int]]):
    """By task: one that runs twice counts once."""

    def zero(self, value: dict[int, int]) -> dict[int, int]:
        return {}

    def addInPlace(self, value1: dict[int, int], value2: dict[int, int]) -> dict[int, int]:
        return {**value1, **value2}
