"""Exact top-k search and threshold join of embedding tables, block against block.

Each side is sorted by id and packed into blocks (ember.blocks); every task takes a few pairs of
blocks, reads them from its node, and only ids and scores travel on. The scores and the order of
ties do not depend on blocks, partitions or retries (see ember.similarity).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import FloatType, IntegerType, StructField, StructType

from ember import blocks
from ember.blocks import Packed
from ember.embedding import task_resources
from ember.errors import InvalidInput, TooManyFailures
from ember.publish import Output
from ember.similarity.projection import METRICS
from ember.tables import select_embeddings

__all__ = [
    "Comparison",
    "check_threshold",
    "prepare",
    "refuse_rejected",
    "similarity_join",
    "top_k",
    "wanted_tasks",
]

_TASKS_PER_CORE = 4
_OUTPUT_ROWS = 1 << 16


@dataclass(frozen=True)
class Comparison:
    """Two packed tables, or one with itself (right is left), and the basis they share."""

    left: Packed
    right: Packed
    basis: bytes

    @property
    def itself(self) -> bool:
        return self.right is self.left

    @property
    def rejected(self) -> dict[str, int]:
        """How many rows of each table cannot be compared."""
        return {name: packed.rejected for name, packed in self.sides().items()}

    def sides(self) -> dict[str, Packed]:
        """The tables by name: left and, where it is another one, right."""
        return {"left": self.left} if self.itself else {"left": self.left, "right": self.right}

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        tables = {
            name: {"rows": packed.rows, "blocks": len(packed.files), "rejected": packed.rejected}
            for name, packed in self.sides().items()
        }
        return {"dimension": self.left.dimension, "tables": tables}

    def top_k(self, spark: SparkSession, k: int, exclude_self: bool) -> DataFrame:
        """The k best rows of `right` for each row of `left`; see `ember.top_k`."""
        schema = StructType(
            [
                StructField("query_id", self.left.id_type),
                StructField("neighbor_id", self.right.id_type),
                StructField("rank", IntegerType()),
                StructField("score", FloatType()),
            ]
        )
        tasks = [(number,) for number in range(len(self.left.files))]
        return _run(spark, _searcher(self, tasks, k, exclude_self), len(tasks), schema)

    def pairs(self, spark: SparkSession, threshold: float) -> DataFrame:
        """All pairs that reach the threshold; see `ember.similarity_join`."""
        schema = StructType(
            [
                StructField("left_id", self.left.id_type),
                StructField("right_id", self.right.id_type),
                StructField("score", FloatType()),
            ]
        )
        tasks = self.block_pairs(wanted_tasks(spark))
        return _run(spark, _joiner(self, tasks, threshold), len(tasks), schema)

    def block_pairs(self, wanted: int) -> list[tuple[int, range]]:
        """Tasks of a join: a left block, and the right blocks it meets.

        At least `wanted` tasks where there are as many pairs; with itself, each pair once.
        """
        left, right = len(self.left.files), len(self.right.files)
        starts = [number if self.itself else 0 for number in range(left)]
        total = sum(right - start for start in starts)
        run = max(1, total // max(1, wanted))
        return [
            (number, range(first, min(first + run, right)))
            for number, start in enumerate(starts)
            for first in range(start, right, run)
        ]


def prepare(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    folder: str,
    *,
    left_blocks: int = 1,
    max_failed_fraction: float = 0.01,
) -> Comparison:
    """Pack (id, embedding) tables into blocks under `folder`.

    right: None compares the left table with itself. left_blocks: pack the left table into at
    least so many blocks.
    Raises InvalidInput when the vectors of the two have different lengths.
    """
    sides = [("left", left)] if right is None else [("left", left), ("right", right)]
    sizes = {
        name: blocks.dimension_of(rows, f"the {name} table", max_failed_fraction)
        for name, rows in sides
    }
    known = [size for size in sizes.values() if size]
    if len(set(known)) > 1:
        raise InvalidInput(
            f"the left vectors have {known[0]} dimensions and the right ones {known[1]}; embed "
            "both with one model, or project them to one size"
        )
    dimension = known[0] if known else 1
    basis = blocks.fit(left if right is None else right, metric, dimension)
    limit = max(1, blocks.BLOCK_BYTES // (4 * dimension))
    rows = min(limit, max(256, -(-left.count() // left_blocks)))
    packed = blocks.pack(left, metric, dimension, f"{folder}/left", rows)
    if right is None:
        return Comparison(packed, packed, basis)
    return Comparison(packed, blocks.pack(right, metric, dimension, f"{folder}/right"), basis)


def top_k(
    queries: DataFrame,
    corpus: DataFrame | None,
    k: int,
    metric: str = "cosine",
    *,
    id: str = "id",
    embedding: str = "embedding",
    exclude_self: bool = False,
    folder: str | None = None,
) -> DataFrame:
    """The k most similar rows of `corpus` for each row of `queries`, exactly.

    queries, corpus: an id column of any atomic type and a column array<float>, under the same
        names in both; corpus None searches the queries in themselves.
    metric: cosine, inner_product, or euclidean (whose score is the distance, smallest first).
    exclude_self: leave out the corpus row that has the query's own id.
    folder: where the packed blocks go, reachable by all executors; by default a temporary folder
        of this machine, which serves local mode.

    Returns `query_id`, `neighbor_id`, `rank` int 1..k, `score` float; fewer than k rows for a
    query when the corpus is smaller. Ties go to the smaller id. Rows whose vector is null, of
    another length, not finite, or (for cosine) zero are left out.

    Raises InvalidInput for tables that are not embeddings, lengths that differ, and a k below 1.
    """
    if k < 1:
        raise InvalidInput(f"k is {k}; ask for at least one neighbor")
    left, right = _sides(queries, corpus, metric, id, embedding)
    spark = queries.sparkSession
    compared = prepare(left, right, metric, folder or _folder(), left_blocks=wanted_tasks(spark))
    return compared.top_k(spark, k, exclude_self)


def similarity_join(
    left: DataFrame,
    right: DataFrame | None = None,
    threshold: float = 0.9,
    metric: str = "cosine",
    *,
    id: str = "id",
    embedding: str = "embedding",
    folder: str | None = None,
) -> DataFrame:
    """All pairs of rows with score >= threshold (euclidean: distance <= threshold), exactly.

    left, right, id, embedding, metric, folder: as for `top_k`; right None joins the left table
        with itself, each pair once, the smaller id on the left, without the diagonal.

    Returns `left_id`, `right_id`, `score` float. Raises InvalidInput as `top_k` does.
    """
    check_threshold(threshold, metric)
    rows, others = _sides(left, right, metric, id, embedding)
    compared = prepare(rows, others, metric, folder or _folder())
    return compared.pairs(left.sparkSession, threshold)


def check_threshold(threshold: float, metric: str) -> None:
    """Raise InvalidInput for a threshold that is no number, or a negative distance."""
    if not np.isfinite(threshold) or (metric == "euclidean" and threshold < 0):
        raise InvalidInput(
            f"the threshold is {threshold}; give a number, for a distance not a negative one"
        )


def wanted_tasks(spark: SparkSession) -> int:
    """How many tasks keep the cores of this application evenly busy."""
    return _TASKS_PER_CORE * int(spark.sparkContext.defaultParallelism)


def refuse_rejected(
    spark: SparkSession, compared: Comparison, output: Output, max_failed_fraction: float
) -> None:
    """Keep the rows that cannot be compared beside the output; raise when they are too many.

    Raises TooManyFailures when they are more than `max_failed_fraction` of a table's rows.
    """
    for name, packed in compared.sides().items():
        if not packed.rejected:
            continue
        table = blocks.rejected_rows(spark, packed.folder, packed.id_type)
        table.write.mode("overwrite").parquet(f"{output.rejected}/{name}")
        total = packed.rows + packed.rejected
        if packed.rejected > max_failed_fraction * total:
            raise TooManyFailures(
                f"{packed.rejected} of {total} rows of the {name} table cannot be compared, more "
                f"than limits.max_failed_fraction = {max_failed_fraction:g}; nothing was "
                f"published. The rows and their reasons are in {output.rejected}/{name}"
            )


def _sides(
    left: DataFrame, right: DataFrame | None, metric: str, id: str, embedding: str
) -> tuple[DataFrame, DataFrame | None]:
    if metric not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    rows = select_embeddings(left, id, embedding, "the left table")
    if right is None:
        return rows, None
    return rows, select_embeddings(right, id, embedding, "the right table")


def _folder() -> str:
    return f"file://{tempfile.mkdtemp(prefix='ember-blocks-')}"


Task = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def _run(spark: SparkSession, task: Task, count: int, schema: StructType) -> DataFrame:
    return spark.range(0, count, 1, max(1, count)).mapInArrow(task, schema)


def _task_number() -> int:
    context = TaskContext.get()
    return context.partitionId() if context else 0


def _searcher(
    compared: Comparison, tasks: Sequence[tuple[int]], k: int, exclude_self: bool
) -> Task:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.similarity.neighbours import Neighbours
        from ember.similarity.node import as_queries
        from ember.similarity.topk import search_block

        if not sum(batch.num_rows for batch in batches):
            return  # Spark gives a range without rows one partition
        (number,) = tasks[_task_number()]
        _, threads = task_resources()
        left = compared.left.shelf(compared.basis, threads)
        right = compared.right.shelf(compared.basis, threads)
        queries, ids = left.block(number), left.ids(number)
        found = Neighbours.empty(len(queries), k)
        for other, first in enumerate(right.firsts):
            asked = as_queries(queries, ids, right.ids(other), first) if exclude_self else queries
            found = search_block(
                asked, right.block(other), found, exclude_self=exclude_self, threads=threads
            )
        numbers, scores = found.result(queries.metric)
        row, rank = np.nonzero(numbers >= 0)
        yield from _slices(
            query_id=ids.take(pa.array(row)),
            neighbor_id=right.ids_at(numbers[row, rank]) if right.files else ids.slice(0, 0),
            rank=pa.array((rank + 1).astype(np.int32)),
            score=pa.array(scores[row, rank]),
        )

    return run


def _joiner(compared: Comparison, tasks: Sequence[tuple[int, range]], threshold: float) -> Task:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.similarity.threshold import threshold_pairs

        if not sum(batch.num_rows for batch in batches):
            return
        number, others = tasks[_task_number()]
        _, threads = task_resources()
        left = compared.left.shelf(compared.basis, threads)
        right = compared.right.shelf(compared.basis, threads)
        block, ids = left.block(number), left.ids(number)
        for other in others:
            same = compared.itself and other == number
            there = right.ids(other)
            for pairs in threshold_pairs(
                block,
                block if same else right.block(other),
                threshold,
                triangle=same,
                threads=threads,
            ):
                yield from _slices(
                    left_id=ids.take(pa.array(pairs.left - left.firsts[number])),
                    right_id=there.take(pa.array(pairs.right - right.firsts[other])),
                    score=pa.array(pairs.score),
                )

    return run


def _slices(**columns: Any) -> Iterator[pa.RecordBatch]:
    """Columns as batches of a size that Spark takes well."""
    batch = pa.RecordBatch.from_pydict(columns)
    for start in range(0, batch.num_rows, _OUTPUT_ROWS):
        yield batch.slice(start, _OUTPUT_ROWS)
