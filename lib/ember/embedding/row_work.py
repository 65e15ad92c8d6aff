"""Rows that become one row each: what such work is to a job, and how workers are given the rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Literal, Protocol

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    StructField,
    StructType,
)

from ember.spark import classic, footers, gpu
from ember.spark.accounting import Reports
from ember.spark.column_types import TYPES
from ember.spark.content_plan import CONTENT_HASH
from ember.spark.publish import Output
from ember.spark.tables import column
from ember.worker.garbage import spare_modules
from ember.worker.spec import Modality, Task
from ember.worker.stats import TaskStats, WorkerRecord

__all__ = ["HASH", "Body", "RowWork", "map_rows", "reported", "spread"]

# Column of hashes that rows may have beside their content; see `ember.embedding.content_hashes`.
HASH = "_ember_hash"

# Rows that a killed task loses at most, unless the user says how many.
_ROWS_PER_TASK = {"image": 1000, "text": 2000}
# Writing a text takes a model as long as some dozens of embeddings.
_TEXTS_PER_TASK = 200
# A GPU does in a second what a core does in a minute.
_GPU_FACTOR = 16
_TASKS_PER_CORE = 4

# What a worker makes of the batches of a partition, counting in the stats. It returns the record of
# the model that it ran; None without one.
Body = Callable[
    [Iterable[pa.RecordBatch], TaskStats],
    Generator[pa.RecordBatch, None, WorkerRecord | None],
]


class RowWork(Protocol):
    """What is to be done with the rows of an input, one by one."""

    @property
    def rows(self) -> DataFrame:
        """All rows, the id first."""
        ...

    @property
    def id(self) -> str:
        """Name of the id column."""
        ...

    @property
    def part(self) -> str | None:
        """Column that numbers, from 0, the output's rows of one input row; None: one for each."""
        ...

    @property
    def identity(self) -> dict[str, str | None]:
        """What the output depends on besides the settings; see `ember.spark.identity`."""
        ...

    def try_out(self) -> str:
        """Load the model, if any, in a task. Returns a sentence; raises what loading raises."""
        ...

    def spread(self, rows: DataFrame, total: int | None = None) -> tuple[DataFrame, int]:
        """Some of the rows in partitions that keep all cores busy, and how many rows there are.

        total: see `spread`.
        """
        ...

    def run(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        """The output's rows for some of the rows, lazily. `reports` gets the stats of each task."""
        ...

    def describe(self, output: Output) -> dict[str, Any]:
        """Facts for the manifest, once all rows of the output are staged."""
        ...


def map_rows(
    rows: DataFrame, body: Body, columns: Iterable[str], reports: Reports | None = None
) -> DataFrame:
    """Run `body` in a worker on each partition of `rows`, whose first column is the id.

    Returns the id and `columns`, each with its type in `TYPES`. Of rows with a column `HASH` the
    body is not given it, and it stands behind the id as `content_hash`.
    reports: gets the stats and the worker's record of each task.
    """
    name = rows.columns[0]
    # Under plain names meanwhile: mapInArrow takes no column with a dot or a backtick in its name.
    plain = rows.toDF("id", *(f"c{number}" for number in range(1, len(rows.columns))))
    hashed = HASH in rows.columns
    if hashed:  # the worker hands on the first column as it is, so the hash is a part of it
        place = f"c{rows.columns.index(HASH)}"
        plain = plain.withColumn("id", F.struct("id", F.col(place).alias("hash"))).drop(place)
    key = plain.schema[0]
    fields = [StructField(each, TYPES[each]) for each in columns]
    schema = StructType([StructField("id", key.dataType, key.nullable), *fields])
    made = plain.mapInArrow(reported(body, reports), schema)
    if not hashed:
        return made.toDF(name, *schema.names[1:])
    flat = made.select("id.id", "id.hash", *schema.names[1:])
    return flat.toDF(name, CONTENT_HASH, *schema.names[1:])


def reported(
    body: Body, reports: Reports | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """`body` as a task runs it, for mapInArrow; `reports` gets what it counted."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        stats = TaskStats()
        record = yield from body(batches, stats)
        context = TaskContext.get()
        if reports is not None and context is not None and stats.rows:
            reports.add(stats.report(context.partitionId(), record))
        spare_modules()

    return run


def spread(
    rows: DataFrame,
    modality: Modality,
    rows_per_task: int | Literal["auto"],
    task: Task = "embed",
    total: int | None = None,
) -> tuple[DataFrame, int]:
    """Rows (id, content, …) in partitions that keep all cores busy and lose little when killed.

    rows_per_task: the most rows of a partition, on average; "auto" goes by modality and task.
    total: how many rows there are, where that is known and they are to be shuffled.
    Returns also how many rows there are.

    Left as it is when its partitions are small and even enough; else shuffled by id and size of
    the content, which does not depend on how the input was partitioned and spreads repeated ids.
    """
    session = rows.sparkSession
    bound = rows_per_task
    if bound == "auto":
        bound = _TEXTS_PER_TASK if task == "generate" else _ROWS_PER_TASK[modality]
        bound *= _GPU_FACTOR if gpu.scheduled(session) else 1
    cores = classic.cores(session)
    total, largest = (total, total) if total is not None else _sizes(rows)
    if not total:
        return rows, 0
    tasks = max(-(-total // bound), min(total, _TASKS_PER_CORE * cores))
    if largest <= min(bound, -(-2 * total // tasks)):
        return rows, total
    key, content = (column(rows, name) for name in rows.columns[:2])
    return rows.repartition(tasks, key, F.length(content)), total


def _sizes(rows: DataFrame) -> tuple[int, int]:
    """How many rows there are in all, and in the largest partition."""
    counts = footers.partition_rows(rows)
    if counts is not None:
        return sum(counts), max(counts, default=0)
    parts = rows.groupBy(F.spark_partition_id()).count().agg(F.sum("count"), F.max("count"))
    total, largest = parts.collect()[0]
    return total or 0, largest or 0
