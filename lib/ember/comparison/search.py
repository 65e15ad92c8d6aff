"""Exact top-k search of one table of embeddings in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, IntegerType, LongType, StructField, StructType

from ember.comparison import blockwise
from ember.comparison.blockwise import Written
from ember.comparison.comparison import Comparison
from ember.comparison.results import Recall
from ember.spark.publish import Output
from ember.spark.tasks import task_resources
from ember.worker.vectors import topk
from ember.worker.vectors.block import Block
from ember.worker.vectors.block_cache import BlockCache, Blocks, shared_keys
from ember.worker.vectors.grouped import meetings, search_within
from ember.worker.vectors.neighbors import Neighbors

__all__ = ["neighbors", "recall_facts", "recall_of", "write_neighbors"]

# A block of queries, and the blocks of the corpus that it is compared with.
_Task = tuple[int, Sequence[int]]


def neighbors(spark: SparkSession, compared: Comparison, k: int, exclude_self: bool) -> DataFrame:
    """The k best of each query, as `ember.search` gives them, of tables that are packed."""
    k = _places(compared, k)
    tasks, body = _tasks(compared, compared.cores), _searcher(compared, k, exclude_self)
    found = blockwise.frame(spark, list(enumerate(tasks)), body, _schema(compared))
    return _merged(found, compared.metric, k) if _is_split(tasks) else _plain(found)


def write_neighbors(
    spark: SparkSession,
    compared: Comparison,
    output: Output,
    k: int,
    exclude_self: bool,
) -> Written:
    """Stage the result of `neighbors`, and take up what an earlier attempt staged.

    A search of few queries, which has to be spread over the corpus and merged, is done in one go.
    """
    tasks = _tasks(compared, compared.cores)
    if _is_split(tasks):
        output.write(neighbors(spark, compared, k, exclude_self))
        return Written(len(tasks), 0, complete=True)
    body = _searcher(compared, _places(compared, k), exclude_self)
    return blockwise.write(spark, output, tasks, body, _schema(compared), select=_plain)


def recall_of(queries: int) -> Recall:
    """Of a search with a wanted recall: whatever is wanted, the exact search takes the least time.

    docs/decisions/0044-approximate-is-exact.md has what was tried and measured.
    """
    return Recall(1.0, 1.0, 1.0, queries)


def recall_facts(queries: int, wanted: float) -> dict[str, Any]:
    """For the manifest of a search with a wanted recall."""
    recall = recall_of(queries)
    told = {
        "measured": recall.mean,
        "interval_95": [recall.low, recall.high],
        "on_queries": recall.queries,
    }
    reason = "to build an index and measure its recall takes longer than to search exactly"
    return {"search": {"wanted_recall": wanted, "mode": "exact", "reason": reason, "recall": told}}


def _places(compared: Comparison, k: int) -> int:
    """How many neighbors a query can have: there are no more than rows."""
    return max(1, min(k, compared.right.rows))


def _tasks(compared: Comparison, wanted: int) -> list[_Task]:
    """One for each block of queries; where these are fewer than `wanted`, the corpus is split.

    A task does some work once for the whole corpus, so that few large ones are the fastest.
    """
    partners = [compared.partners(number) for number in range(len(compared.left.blocks))]
    parts = max(1, wanted // max(1, len(partners)))
    return [
        (number, some)
        for number, others in enumerate(partners)
        for some in blockwise.divided(others, parts)
    ]


def _is_split(tasks: list[_Task]) -> bool:
    return len({number for number, _ in tasks}) < len(tasks)


def _schema(compared: Comparison) -> StructType:
    """The result, with the numbers of its rows, by which parts of it are merged."""
    return StructType(
        [
            StructField("query", LongType()),
            StructField("query_id", compared.left.id_type),
            StructField("neighbor", LongType()),
            StructField("neighbor_id", compared.right.id_type),
            StructField("rank", IntegerType()),
            StructField("score", FloatType()),
        ]
    )


def _plain(found: DataFrame) -> DataFrame:
    """The columns of the result."""
    return found.select("query_id", "neighbor_id", "rank", "score")


def _merged(found: DataFrame, metric: str, k: int) -> DataFrame:
    """The k best over several parts of the corpus; rows are numbered in the order of their ids."""
    best_first = F.asc("score") if metric == "euclidean" else F.desc("score")
    rank = F.row_number().over(Window.partitionBy("query").orderBy(best_first, "neighbor"))
    return _plain(found.withColumn("rank", rank).filter(F.col("rank") <= k))


def _searcher(
    compared: Comparison, k: int, exclude_self: bool
) -> Callable[[_Task], Iterator[pa.RecordBatch]]:
    def run(task: _Task) -> Iterator[pa.RecordBatch]:
        number, others = task
        _, threads = task_resources()
        left, right = compared.block_caches(threads)
        right.ready(others)
        queries = compared.queries(number, left, right, exclude_self=exclude_self)
        found = Neighbors.empty(len(queries), k)
        how: dict[str, Any] = {"exclude_self": exclude_self, "threads": threads}
        if not compared.grouped:
            found = topk.search(queries, right.blocks(others), found, **how)
        for other in others if compared.grouped else ():
            shared = meetings(left.groups(number), right.groups(other))
            asked, block = queries, right.block(other)
            if exclude_self and not compared.itself:
                own, theirs = shared_keys(left.ids(number), right.ids(other))
                asked, block = replace(queries, own=own), replace(block, own=theirs)
            found = search_within(asked, block, shared, found, **how)
        yield from _rows(found, queries, left, number, right)

    return run


def _rows(
    found: Neighbors, queries: Block, left: BlockCache, number: int, right: Blocks
) -> Iterator[pa.RecordBatch]:
    """What was found for the left block `number`, as rows of `_schema`."""
    numbers, scores = found.result(queries.metric)
    row, rank = np.nonzero(numbers >= 0)
    if not len(row):
        return
    chosen = numbers[row, rank]
    yield from blockwise.batches(
        query=pa.array(row + left.firsts[number]),
        query_id=left.ids(number).take(pa.array(row)),
        neighbor=pa.array(chosen),
        neighbor_id=right.ids_at(chosen),
        rank=pa.array((rank + 1).astype(np.int32)),
        score=pa.array(scores[row, rank]),
    )
