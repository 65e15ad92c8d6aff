"""Outputs written by numbered tasks, which a later run takes up task by task.

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
from collections.abc import Collection, Sequence

from pyspark.sql import DataFrame

from ember.spark.paths import literal
from ember.spark.publish import Output
from ember.spark.staged_files import name_of

__all__ = ["TaskOutput"]

_TASK = re.compile(r"task-(\d+)-.*\.parquet$")
_PART = re.compile(r"part-(\d+)-.*\.parquet$")


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
