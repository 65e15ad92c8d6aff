"""Outputs written by numbered tasks, which a later run takes up task by task.

Each task of such a run writes one Parquet file, or none when it has no rows. Beside what every
output has (see ember.publish), an attempt holds

    .NAME.staging/shared/            what all attempts use, such as packed blocks
    .NAME.staging/1/tasks.json       the number of the task behind each partition of `new`
    .NAME.staging/1/empty.json       tasks known to have ended without rows
    .NAME.staging/1/new/part-00002-… a finished task, by its partition
    .NAME.staging/2/kept/task-7-…    a task that an earlier attempt finished, by its number

A file appears in one rename, so it is all of its task. A task without rows that ended just before a
kill is done again, which costs time and changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from pyspark.sql import DataFrame

from ember.publish import Output

__all__ = ["TaskOutput"]


class TaskOutput(Output):
    """An output whose tasks have the same numbers in every attempt."""

    @property
    def shared(self) -> str:
        """A folder for what all attempts use; it goes when the run is published."""
        return f"{self._staging}/shared"

    @property
    def finished(self) -> bool:
        """Is a resumed run's table there already? Its settings agree: `check` compared them."""
        return self._mode == "resume" and self._storage.exists(self.path)

    def take_up(self) -> set[int]:
        """Keep what earlier attempts finished, and return the numbers of those tasks."""
        earlier = [n for n in self._attempts() if not self._attempt.endswith(f"/{n}")]
        empty = set().union(*(self._empty(f"{self._staging}/{number}") for number in earlier))
        for number in earlier:
            folder = f"{self._staging}/{number}"
            tasks = self._load(f"{folder}/tasks.json")
            for file in self._storage.files(f"{folder}/kept"):
                if name := re.match(r"task-.*\.parquet$", self._storage.name(file)):
                    self._storage.rename(file, f"{self._kept}/{name[0]}")
            for file in self._storage.files(f"{folder}/new"):
                if name := re.match(r"part-(\d+)-.*\.parquet$", self._storage.name(file)):
                    self._storage.rename(file, f"{self._kept}/task-{tasks[int(name[1])]}-{name[0]}")
        self.note_empty(empty)
        for number in earlier:  # nothing is left in them
            self._storage.delete(f"{self._staging}/{number}")
        kept = (re.match(r"task-(\d+)-", self._storage.name(f)) for f in self._files())
        return empty | {int(name[1]) for name in kept if name}

    def kept_rows(self) -> int:
        """How many rows earlier attempts left."""
        return self._read([self._kept]).count() if self._has_data(self._kept) else 0

    def write_tasks(self, table: DataFrame, tasks: Sequence[int]) -> None:
        """Stage a table whose partitions are these tasks, in this order."""
        self._storage.write_text(f"{self._attempt}/tasks.json", json.dumps(list(tasks)))
        # One file for each task, or a part of one could pass for all of it.
        self.write(table, maxRecordsPerFile="0")

    def note_empty(self, tasks: Collection[int]) -> None:
        """Note which tasks, of all attempts, ended without rows."""
        self._storage.write_text(f"{self._attempt}/empty.json", json.dumps(sorted(tasks)))

    def discard(self) -> None:
        """Give up what this and earlier attempts staged."""
        self._storage.delete(self._staging)

    def _files(self) -> list[str]:
        return self._storage.files(self._kept)

    def _empty(self, folder: str) -> set[int]:
        return set(self._load(f"{folder}/empty.json"))

    def _load(self, file: str) -> list[int]:
        if not self._storage.exists(file):
            return []
        numbers: list[int] = json.loads(self._storage.read_text(file))
        return numbers
