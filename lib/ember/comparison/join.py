"""Exact threshold join of tables of embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import FloatType, LongType, StructField, StructType

from ember.comparison import blockwise
from ember.comparison.blocks import Fitter
from ember.comparison.blockwise import Written
from ember.comparison.comparison import Comparison
from ember.errors import InvalidInput, TooManyPairs
from ember.spark.publish import Output
from ember.spark.tasks import task_resources
from ember.worker.vectors.arrays import Stored
from ember.worker.vectors.basis import Basis

__all__ = ["basis_fitter", "check_threshold", "pairs", "write_pairs"]

# More than one, since some find many pairs.
_TASKS_PER_CORE = 2
# A left block, and the right blocks that it is compared with.
_Task = tuple[int, Sequence[int]]


def basis_fitter(metric: str, threshold: float) -> Fitter:
    """For `packing.prepare`: a basis that suits joins at a threshold."""

    def fit(sample: Stored) -> Basis:
        from ember.worker.vectors.threshold import join_basis

        _, threads = task_resources()
        return join_basis(sample, metric, threshold, threads=threads)

    return fit


def check_threshold(threshold: float, metric: str) -> None:
    """Raise InvalidInput for a threshold that is no number, or a negative distance."""
    if not np.isfinite(threshold) or (metric == "euclidean" and threshold < 0):
        raise InvalidInput(
            f"the threshold is {threshold}; give a number, for a distance not a negative one"
        )


def pairs(
    spark: SparkSession, compared: Comparison, threshold: float, max_pairs: int | None = None
) -> DataFrame:
    """All pairs at a threshold, as `ember.join` gives them, of tables that are packed.

    max_pairs: where there are more, at least so many and one.
    """
    tasks = list(enumerate(_tasks(compared, _TASKS_PER_CORE * compared.cores)))
    return blockwise.frame(spark, tasks, _joiner(compared, threshold, max_pairs), _schema(compared))


def write_pairs(
    spark: SparkSession,
    compared: Comparison,
    output: Output,
    threshold: float,
    max_pairs: int,
) -> Written:
    """Stage the result of `pairs`, and take up what an earlier attempt staged.

    The pairs are counted while they are written, so that a join within its ceiling is done once.
    One that exceeds it is stopped, and counted without writing anything.

    Raises TooManyPairs, with the count and a threshold that would do, when there are more than
    `max_pairs`; what was staged is gone then.
    """
    tasks = _tasks(compared, _TASKS_PER_CORE * compared.cores)
    body = _joiner(compared, threshold, max_pairs)
    written = blockwise.write(spark, output, tasks, body, _schema(compared), limit=max_pairs)
    if written.complete:
        return written
    output.discard()
    counts = _count(spark, compared, tasks, threshold)
    total = sum(counts.values())
    raise TooManyPairs(
        f"{total} pairs reach the threshold {threshold:g}, more than limits.max_pairs = "
        f"{max_pairs}; nothing was published. {_suggestion(counts, max_pairs, compared.metric)}"
    )


def _tasks(compared: Comparison, wanted: int) -> list[_Task]:
    """At least `wanted` where there are as many pairs of blocks; with itself, each pair once."""
    partners = [
        [other for other in compared.partners(number) if not compared.itself or other >= number]
        for number in range(len(compared.left.blocks))
    ]
    run = max(1.0, sum(map(len, partners)) / max(1, wanted))
    return [
        (number, some)
        for number, others in enumerate(partners)
        for some in blockwise.divided(others, math.ceil(len(others) / run))
    ]


def _schema(compared: Comparison) -> StructType:
    return StructType(
        [
            StructField("left_id", compared.left.id_type),
            StructField("right_id", compared.right.id_type),
            StructField("score", FloatType()),
        ]
    )


def _joiner(
    compared: Comparison, threshold: float, max_pairs: int | None = None
) -> Callable[[_Task], Iterator[pa.RecordBatch]]:
    """max_pairs: a task that has found more than these leaves it at that; see `write_pairs`."""

    def run(task: _Task) -> Iterator[pa.RecordBatch]:
        from ember.worker.vectors.grouped import meetings, threshold_within
        from ember.worker.vectors.threshold import threshold_pairs

        number, others = task
        _, threads = task_resources()
        left, right = compared.block_caches(threads)
        right.ready(others)
        block, ids = left.block(number), left.ids(number)
        total = 0
        for other in others:
            same = compared.itself and other == number
            partner = block if same else right.block(other)
            how: dict[str, Any] = {"triangle": same, "threads": threads}
            if compared.grouped:
                shared = meetings(left.groups(number), right.groups(other))
                found = threshold_within(block, partner, shared, threshold, **how)
            else:
                found = threshold_pairs(block, partner, threshold, **how)
            there = right.ids(other)
            for chunk in found:
                yield from blockwise.batches(
                    left_id=ids.take(pa.array(chunk.left - left.firsts[number])),
                    right_id=there.take(pa.array(chunk.right - right.firsts[other])),
                    score=pa.array(chunk.score),
                )
                total += len(chunk.score)
                if max_pairs is not None and total > max_pairs:
                    return

    return run


def _count(
    spark: SparkSession, compared: Comparison, tasks: Sequence[_Task], threshold: float
) -> dict[float, int]:
    """How many pairs there are, by the least similarity of a bin; see `count_by_score`."""

    def run(task: _Task) -> Iterator[pa.RecordBatch]:
        from ember.worker.vectors.grouped import count_between

        number, others = task
        _, threads = task_resources()
        left, right = compared.block_caches(threads)
        right.ready(others)
        block = left.block(number)
        for other in others:
            same = compared.itself and other == number
            partner = block if same else right.block(other)
            groups = (left.groups(number), right.groups(other)) if compared.grouped else None
            counts = count_between(
                block, partner, groups, threshold, triangle=same, threads=threads
            )
            yield from blockwise.batches(
                edge=pa.array(list(counts), pa.float32()), pairs=pa.array(list(counts.values()))
            )

    schema = StructType([StructField("edge", FloatType()), StructField("pairs", LongType())])
    found = blockwise.frame(spark, list(enumerate(tasks)), run, schema)
    rows = found.groupBy("edge").agg(F.sum("pairs").alias("pairs")).collect()
    return {row["edge"]: row["pairs"] for row in rows}


def _suggestion(counts: dict[float, int], max_pairs: int, metric: str) -> str:
    """A threshold that few enough pairs reach, from counts by least similarity."""
    total, best = 0, None
    for edge, count in sorted(counts.items(), reverse=True):
        if total + count > max_pairs:
            break
        total, best = total + count, edge
    if best is None:
        return "No threshold is high enough: raise limits.max_pairs, or remove duplicates first"
    score = np.float32(-best if metric == "euclidean" else best)
    return f"About {total} reach {score}: set threshold to that, or raise limits.max_pairs"
