"""Are the places that jobs are to read and write there, for the driver and for every executor?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from ember.diagnosis.facts import Place, Rows
from ember.diagnosis.gathering import Silence, seen, within
from ember.errors import EmberError
from ember.spark import read_batches
from ember.spark.explain import cause
from ember.spark.paths import literal
from ember.spark.session import is_local
from ember.spark.storage import Storage

__all__ = ["Probes"]

_TASKS = 64


class Probes:
    """Tries places with Spark's file systems, each within so many seconds.

    tasks: how many are to write at once. answered: do executors run tasks?
    """

    def __init__(
        self, spark: SparkSession, seconds: float, *, tasks: int, answered: bool, run_id: str
    ) -> None:
        self._spark, self._storage = spark, Storage(spark)
        self._seconds, self._answered = seconds, answered
        self._tasks = min(_TASKS, tasks)
        self._name = "".join(c if c.isalnum() or c in "-." else "_" for c in run_id)
        self.rows: Rows | None = None
        """The largest rows of what was read, where they bound batches."""

    def read(self, path: str) -> Place:
        """Is there a table, and can a task read a row of it?"""
        try:
            file = next(self._files(path), None)
            if file is None:
                return Place(path, "read", "there is no file", "look at how the path is spelled")
            if unseen := self._unseen(file):
                return Place(path, "read", unseen=unseen)
            if self._answered:
                within(self._spark, self._seconds, lambda: self._read_row(file))
        except Silence as error:
            return Place(path, "read", str(error))
        except Exception as error:
            return Place(path, "read", _told(error))
        return Place(path, "read")

    def _files(self, path: str) -> Iterator[str]:
        """The files of a table, as they come, with those that Spark passes over left out."""
        for root in self._storage.found(path):
            if self._storage.is_file(root):
                yield root
                continue
            for name, _ in self._storage.below(root):
                if not any(part.startswith(("_", ".")) for part in name.split("/")):
                    yield f"{root.rstrip('/')}/{name}"

    def _read_row(self, file: str) -> None:
        table = self._spark.read.parquet(literal(file))
        table.limit(1).collect()
        if room := read_batches.room(table):
            rows = Rows(*room)
            self.rows = min(filter(None, [self.rows, rows]), key=lambda each: each.at_once)

    def write(self, path: str) -> Place:
        """Can tasks write a table beside `path`, and the driver see and delete what they wrote?"""
        try:
            folder = self._storage.sibling(path, f".{self._storage.name(path)}.doctor-{self._name}")
            with self._made(folder):
                file = f"{folder}/probe"
                self._storage.write_text(file, "ember doctor\n")
                if unseen := self._unseen(file):
                    return Place(path, "write", unseen=unseen)
                if self._answered:
                    within(self._spark, self._seconds, lambda: self._write_rows(f"{folder}/rows"))
        except Silence as error:
            return Place(path, "write", str(error))
        except Exception as error:
            return Place(path, "write", _told(error))
        return Place(path, "write")

    @contextmanager
    def _made(self, folder: str) -> Iterator[None]:
        """A folder that this run makes and deletes, with those above it that were not there."""
        if self._storage.exists(folder):  # of a run with the same id, which is to be looked at
            raise EmberError(f"{folder} is there already; delete it, or give another --run-id")
        above = [each for each in self._storage.parents(folder) if not self._storage.exists(each)]
        try:
            yield
        finally:
            with suppress(Exception):  # what went wrong before is what matters
                self._storage.delete(folder)
                for each in above:
                    self._storage.delete_empty(each)

    def _write_rows(self, folder: str) -> None:
        rows = self._spark.range(0, self._tasks, 1, self._tasks)
        rows.write.option("mapreduce.fileoutputcommitter.algorithm.version", "2").parquet(folder)
        found = self._spark.read.parquet(literal(folder)).count()
        if found != self._tasks:
            raise EmberError(f"tasks wrote {self._tasks} rows, and {found} are there")

    def _unseen(self, file: str) -> dict[str, str]:
        """Hosts that do not see a file of this machine, and why."""
        local = self._storage.local(file)
        if local is None or is_local(self._spark) or not self._answered:
            return {}
        return seen(self._spark, [local], self._seconds)[local]


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, EmberError) else cause(error)
