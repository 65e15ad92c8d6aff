"""Numbered tasks over blocks: each makes rows of a table; watched, limited, resumed.

Each task of such a run writes one Parquet file, or none when it has no rows. Beside what every
attempt has (see ember.spark.staging), there is

    tasks.json          the number of the task behind each partition of `new`
    empty.json          tasks known to have ended without rows
    new/part-00002-…    a finished task, by its partition
    kept/task-7-…       a task that an earlier attempt finished, by its number
    shared/             packed blocks

A file appears in one rename, so it is all of its task. A task without rows that ended just before a
kill is done again, which costs time and changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from ember.spark import classic, progress
from ember.spark.accounting import Account, Reports
from ember.spark.paths import literal
from ember.spark.publish import Output
from ember.spark.staged_files import name_of
from ember.worker.garbage import spare_modules
from ember.worker.stats import TaskStats

__all__ = ["TaskOutput", "Written", "batches", "divided", "frame", "write"]

_OUTPUT_ROWS = 1 << 16
_WATCH_SECONDS = 1.0
_TASK = re.compile(r"task-(\d+)-.*\.parquet$")
_PART = re.compile(r"part-(\d+)-.*\.parquet$")
Task = TypeVar("Task")
Body = Callable[[Task], Iterator[pa.RecordBatch]]


def divided(numbers: Sequence[int], parts: int) -> list[list[int]]:
    """At most so many parts of about equal size, in order, none of them empty."""
    each = np.array_split(numbers, min(parts, len(numbers))) if numbers else []
    return [part.tolist() for part in each]


def frame(
    spark: SparkSession,
    tasks: Sequence[tuple[int, Task]],
    body: Body[Task],
    schema: StructType,
    reports: Reports | None = None,
) -> DataFrame:
    """A table whose partitions are what `body` makes of each numbered task, in their order.

    reports: receives the number of each task that has ended, and its rows.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if not sum(batch.num_rows for batch in batches):
            return  # Spark gives a range without rows one partition
        context = TaskContext.get()
        number, task = tasks[context.partitionId() if context else 0]
        stats = TaskStats()
        for batch in body(task):
            stats.rows += batch.num_rows
            yield batch
        if reports is not None:
            reports.add(stats.report(number, None))
        spare_modules()

    count = len(tasks)
    return spark.range(0, count, 1, max(1, count)).mapInArrow(run, schema)


@dataclass(frozen=True)
class Written:
    """How many tasks there are, and how many of them an earlier attempt had finished.

    complete: all was written; the limit was not exceeded.
    """

    tasks: int
    reused: int
    complete: bool

    def describe(self) -> dict[str, int]:
        """For the manifest."""
        return {"tasks": self.tasks, "reused": self.reused}


def write(
    spark: SparkSession,
    output: Output,
    tasks: Sequence[Task],
    body: Body[Task],
    schema: StructType,
    *,
    select: Callable[[DataFrame], DataFrame] = lambda table: table,
    limit: int | None = None,
) -> Written:
    """Stage the rows of all tasks, leaving out those that an earlier attempt finished.

    select: what of the rows is staged; must keep rows and partitions.
    limit: stop when there are more rows than this.
    """
    numbered = TaskOutput(output)
    done = numbered.take_up()
    todo = [(number, task) for number, task in enumerate(tasks) if number not in done]
    account = Account(spark)
    watch = _Watch(spark, numbered, account, limit, numbered.kept_rows(), done)
    shown = progress.shown(len(tasks), lambda: len(done) + account.tasks(), "task")
    with shown, progress.repeated(watch.look, _WATCH_SECONDS), watch.cancellable():
        table = frame(spark, todo, body, schema, account.reports)
        numbered.write_tasks(select(table), [number for number, _ in todo])
    watch.look()
    return Written(len(tasks), len(done), not watch.exceeded)


def batches(**columns: Any) -> Iterator[pa.RecordBatch]:
    """Columns as batches of a size that Spark takes well."""
    batch = pa.RecordBatch.from_pydict(columns)
    for start in range(0, batch.num_rows, _OUTPUT_ROWS):
        yield batch.slice(start, _OUTPUT_ROWS)


@dataclass
class _Watch:
    """Looks at the tasks that have ended: notes the empty ones, stops the run at the limit."""

    spark: SparkSession
    numbered: TaskOutput
    account: Account
    limit: int | None
    rows_before: int
    done_before: set[int]
    noted: int = 0
    exceeded: bool = False

    @property
    def tag(self) -> str:
        return f"ember-{id(self)}"

    def look(self) -> None:
        empty = self.account.empty_tasks()
        if len(empty) > self.noted:
            self.numbered.note_empty(empty | self.done_before)
            self.noted = len(empty)
        rows = self.rows_before + self.account.rows()
        if self.limit is not None and rows > self.limit and not self.exceeded:
            self.exceeded = True
            classic.cancel(self.spark, self.tag)

    @contextmanager
    def cancellable(self) -> Iterator[None]:
        """Run the block's Spark jobs so that they can be stopped, and take a stop as its end."""
        try:
            with classic.tagged(self.spark, self.tag):
                yield
        except Exception:
            if not self.exceeded:
                raise


class TaskOutput:
    """The tasks that make an output, which have the same numbers in every attempt."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._staging, self._storage = output.staging, output.storage
        self._kept = output.staging.kept

    def take_up(self) -> set[int]:
        """Keep what earlier attempts finished, and return the numbers of those tasks."""
        earlier = self._staging.earlier()
        self._storage.make_folder(self._kept)
        empty = set().union(*(self._load(f"{folder}/empty.json") for folder in earlier))
        for folder in earlier:
            tasks = self._load(f"{folder}/tasks.json")
            new = self._staging.own_new(folder)
            files = self._storage.files(f"{folder}/kept") + (
                self._storage.files(new) if new else []
            )
            for file in files:
                if name := _kept_name(name_of(file), tasks):
                    self._storage.rename(file, f"{self._kept}/{name}")
        self.note_empty(empty)
        self._storage.write_text(f"{self._kept}/_SUCCESS", "")
        self._staging.forget_sources()
        kept = (_TASK.match(name_of(file)) for file in self._storage.files(self._kept))
        return empty | {int(name[1]) for name in kept if name}

    def kept_rows(self) -> int:
        """How many rows earlier attempts left."""
        if not self._staging.has_data(self._kept):
            return 0
        return self._output.spark.read.parquet(literal(self._kept)).count()

    def write_tasks(self, table: DataFrame, tasks: Sequence[int]) -> None:
        """Stage a table whose partitions are these tasks, in this order."""
        self._storage.write_text(f"{self._staging.folder}/tasks.json", json.dumps(list(tasks)))
        # One file for each task, or a part of one could pass for all of it.
        self._output.write(table, maxRecordsPerFile="0")

    def note_empty(self, tasks: Collection[int]) -> None:
        """Note which tasks, of all attempts, ended without rows."""
        self._storage.write_text(f"{self._staging.folder}/empty.json", json.dumps(sorted(tasks)))

    def _load(self, file: str) -> list[int]:
        if not self._storage.exists(file):
            return []
        numbers: list[int] = json.loads(self._storage.read_text(file))
        return numbers


def _kept_name(name: str, tasks: Sequence[int]) -> str | None:
    """Under which name a finished task's file is kept; None for any other file."""
    part = _PART.match(name)
    if part and int(part[1]) < len(tasks):
        return f"task-{tasks[int(part[1])]}-{name}"
    return name if _TASK.match(name) else None
