"""Publishing: staged beside the output, whole or not at all, and taken up again after a kill.

A run writes into a hidden folder beside its output:

    .NAME.staging/identity.json      what the rows depend on; a resumed run must agree
    .NAME.staging/1/kept/            rows taken over from earlier runs (complete with _SUCCESS)
    .NAME.staging/1/new/             rows of this run, a file for each finished task
    .NAME.staging/2/…                the next attempt, after a kill

A task's file appears in `new` by one rename when the task commits (the file output committer's
algorithm 2), so what a killed run had finished is found by the next one. The attempt with the
highest number whose `kept` is complete, together with the `new` of the later ones, holds all that
was done; older attempts can go. Publishing moves `kept` into `new`, writes the manifest there and
puts the folder in the place of the output.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import EmberError, InvalidInput, OtherSettings, TooManyFailures
from ember.storage import Storage
from ember.tables import column

__all__ = ["MANIFEST", "Counts", "Output", "read_manifest"]

MANIFEST = "_manifest.json"
_log = logging.getLogger(__name__)

Counts = dict[str, Any]


def read_manifest(storage: Storage, folder: str) -> dict[str, Any] | None:
    """What a run left beside the output at `folder`; None where there is nothing of the kind."""
    file = f"{folder}/{MANIFEST}"
    if not storage.exists(file):
        return None
    try:
        found = json.loads(storage.read_text(file))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Output:
    """One run's way to one published table.

    identity: what the rows depend on (model, columns); compared when a run is resumed.
    """

    def __init__(
        self, spark: SparkSession, path: str, mode: str, identity: Mapping[str, Any]
    ) -> None:
        self._spark = spark
        self._storage = Storage(spark)
        self._mode = mode
        self._identity = dict(identity)
        self.path = self._storage.qualify(path)
        name = self._storage.name(self.path)
        self._staging = self._storage.sibling(self.path, f".{name}.staging")
        self.failures = self._storage.sibling(self.path, f"{name}.failures")
        self.rejected = self._storage.sibling(self.path, f"{name}.rejected")
        self._attempt = ""
        # Of which tables this run keeps rejected rows; None where it looks for none.
        self._sides: set[str] | None = None

    def check(self) -> None:
        """Raise InvalidInput when the mode does not allow a run here. Writes nothing."""
        if self._mode == "fail" and self._storage.exists(self.path):
            raise InvalidInput(
                f"{self.path} exists; set output.mode to overwrite (replace it) or resume (keep "
                "the rows that are done), or give another output.path"
            )
        if self._mode == "resume":
            for path, found in self._identities():
                self._compare(path, found)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make room for this attempt; leave no trace of one that fails before it has any row.

        Work left by a killed run goes unless it is resumed.
        """
        self._begin()
        try:
            yield
        except Exception:
            if not self._has_data(self._new) and not self._has_data(self._kept):
                self._storage.delete(self._attempt)
                if not self._attempts():
                    self._storage.delete(self._staging)
            raise

    def _begin(self) -> None:
        self._storage.recover(self.path)
        self.check()
        if self._mode != "resume" and self._storage.exists(self._staging):
            _log.warning("discarding the unpublished rows of an earlier run at %s", self._staging)
            self._storage.delete(self._staging)
        numbers = self._attempts()
        self._attempt = f"{self._staging}/{max(numbers, default=0) + 1}"
        self._storage.write_text(f"{self._staging}/identity.json", json.dumps(self._identity))
        if not (self._mode == "resume" and self._sources(numbers)):
            self._storage.write_text(f"{self._kept}/_SUCCESS", "")

    def resume(self, rows: DataFrame, id: str) -> tuple[DataFrame, int]:
        """The rows still to do, and how many were done before and are kept.

        A row counts as done when its status is ok and its id occurs once here and once among the
        rows done: with repeated ids nobody can tell which of them it was.
        """
        numbers = [
            number for number in self._attempts() if not self._attempt.endswith(f"/{number}")
        ]
        sources = self._sources(numbers)
        if self._mode != "resume" or not sources:
            return rows, 0
        done = self._read(sources).filter(F.col("status") == "ok")
        key = column(rows, id)
        here = rows.select(key.alias("_id")).groupBy("_id").count().filter("count = 1")
        there = done.select(column(done, id).alias("_id")).groupBy("_id").count()
        once = there.filter("count = 1").select(F.col("_id").alias("_done"))
        usable = here.join(once, F.col("_id").eqNullSafe(F.col("_done"))).select("_id")
        kept = done.join(usable, column(done, id).eqNullSafe(F.col("_id")), "left_semi")
        kept.write.mode("overwrite").parquet(self._kept)
        for number in numbers:  # all they hold is in `kept` now
            self._storage.delete(f"{self._staging}/{number}")
        stored = self._spark.read.parquet(self._kept)
        ids = stored.select(column(stored, id).alias("_id"))
        todo = rows.join(ids, column(rows, id).eqNullSafe(F.col("_id")), "left_anti")
        return todo, ids.count()

    def write(self, table: DataFrame, part: str | None = None, **options: str) -> None:
        """Stage the rows of this attempt; each task's rows are safe as soon as it ends.

        part: the output is a folder of several tables, and this is the one of that name. Such an
        output is made in one piece: what a killed run wrote of it is not taken up again.
        """
        writer = table.write.option("mapreduce.fileoutputcommitter.algorithm.version", "2")
        target = f"{self._new}/{part}" if part else self._new
        writer.options(**options).mode("append").parquet(target)

    def staged(self) -> DataFrame:
        """All rows that would be published: those kept and those of this attempt."""
        return self._read([self._kept, self._new])

    @property
    def scratch(self) -> str:
        """A folder for what this attempt makes on the way; it goes when the run is published."""
        return f"{self._attempt}/scratch"

    def count(self) -> int:
        """How many rows would be published."""
        return self.staged().count()

    def counts(self, expected: int) -> Counts:
        """Rows by status, and failed rows by reason (what stands before the colon).

        Raises EmberError when they are not `expected` rows in all: better no table than one that
        lacks rows.
        """
        reason = F.substring_index("error", ":", 1).alias("reason")
        rows = self.staged().groupBy("status", reason).count().collect()
        status: dict[str, int] = {}
        for row in rows:
            status[row["status"]] = status.get(row["status"], 0) + row["count"]
        reasons = {row["reason"]: row["count"] for row in rows if row["status"] == "error"}
        total = sum(status.values())
        if total != expected:
            raise EmberError(
                f"{expected} rows were to be written and {total} are there; nothing was published. "
                "Did the input change during the run?"
            )
        return {
            "rows": total,
            "status": dict(sorted(status.items())),
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        }

    def refuse_failures(self, counts: Counts, max_failed_fraction: float) -> None:
        """Keep the failed rows beside the output and raise TooManyFailures when over the ceiling.

        The rows that were done stay staged, so that a resumed run need not repeat them.
        """
        failed, rows = counts["status"].get("error", 0), counts["rows"]
        if failed <= max_failed_fraction * rows:
            return
        table = self.staged().filter(F.col("status") == "error")
        table = table.drop(table.columns[1])  # the result, which is null
        table.coalesce(1).write.mode("overwrite").parquet(self.failures)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["reasons"].items())
        raise TooManyFailures(
            f"{failed} of {rows} rows failed ({reasons}), more than limits.max_failed_fraction = "
            f"{max_failed_fraction:g}; nothing was published. Look at {self.failures}; then mend "
            "the input or raise the limit, and run again with output.mode=resume to keep the rest"
        )

    def refuse_rejected(
        self,
        bad: Callable[[], DataFrame],
        rejected: int,
        total: int,
        max_failed_fraction: float,
        side: str = "",
    ) -> None:
        """Keep the rows (id, reason) that were left out of the table beside the output.

        Those that an earlier run left out go when the output is published.

        bad: makes the table of them, which takes time, where there are any.
        rejected, total: how many they are, of how many. side: which of several tables they are of.
        Raises TooManyFailures, and gives up what is staged, when they are more than
        `max_failed_fraction` of all.
        """
        self._sides = self._sides or set()
        if not rejected:
            return
        self._sides.add(side)
        folder = f"{self.rejected}/{side}" if side else self.rejected
        bad().write.mode("overwrite").parquet(folder)
        if rejected > max_failed_fraction * total:
            self._storage.delete(self._staging)
            of_side = f" of the {side} table" if side else ""
            raise TooManyFailures(
                f"{rejected} of {total} rows{of_side} have no usable vector, more than "
                f"limits.max_failed_fraction = {max_failed_fraction:g}; nothing was published. The "
                f"rows and their reasons are in {folder}"
            )

    def add(self, local: str, name: str) -> None:
        """Stage a file of the driver's machine under a name of its own."""
        self._storage.upload(local, f"{self._new}/{name}")

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Put the staged rows and the manifest in the place of the output."""
        for file in self._storage.files(self._kept):
            if not self._storage.name(file).startswith(("_", ".")):
                self._storage.rename(file, f"{self._new}/{self._storage.name(file)}")
        text = json.dumps({**manifest, "identity": self._identity}, indent=2, ensure_ascii=False)
        self._storage.write_text(f"{self._new}/{MANIFEST}", text + "\n")
        if self._mode == "fail" and self._storage.exists(self.path):
            raise InvalidInput(f"{self.path} was made by another run meanwhile; it is left alone")
        self._storage.publish(self._new, self.path)
        self._storage.delete(self._staging)
        self._storage.delete(self.failures)
        if self._sides is not None:
            for folder in self._storage.folders(self.rejected) if self._sides else [self.rejected]:
                if self._storage.name(folder) not in self._sides:
                    self._storage.delete(folder)

    @property
    def _kept(self) -> str:
        return f"{self._attempt}/kept"

    @property
    def _new(self) -> str:
        return f"{self._attempt}/new"

    def _attempts(self) -> list[int]:
        names = (self._storage.name(folder) for folder in self._storage.folders(self._staging))
        return sorted(int(name) for name in names if name.isdigit())

    def _sources(self, numbers: list[int]) -> list[str]:
        """The folders that hold the rows done before, each row in one of them."""
        based = [
            number
            for number in numbers
            if self._storage.exists(f"{self._staging}/{number}/kept/_SUCCESS")
        ]
        if based:
            later = [number for number in numbers if number >= based[-1]]
            folders = [f"{self._staging}/{number}/new" for number in later]
            folders.append(f"{self._staging}/{based[-1]}/kept")
        else:
            folders = [f"{self._staging}/{number}/new" for number in numbers] + [self.path]
        return [folder for folder in folders if self._has_data(folder)]

    def _has_data(self, folder: str) -> bool:
        return any(file.endswith(".parquet") for file in self._storage.files(folder))

    def _read(self, folders: list[str]) -> DataFrame:
        return self._spark.read.parquet(*(each for each in folders if self._has_data(each)))

    def _identities(self) -> list[tuple[str, dict[str, Any]]]:
        """What earlier work here depended on: the killed run's, the published table's."""
        found = []
        staged = f"{self._staging}/identity.json"
        if self._storage.exists(staged):
            found.append((self._staging, json.loads(self._storage.read_text(staged))))
        if self._storage.exists(self.path):
            manifest = f"{self.path}/{MANIFEST}"
            if not self._storage.exists(manifest):
                raise InvalidInput(
                    f"{self.path} has no {MANIFEST}, so it cannot be resumed; set output.mode to "
                    "overwrite, or give another output.path"
                )
            published = json.loads(self._storage.read_text(manifest))
            found.append((self.path, published.get("identity", {})))
        return found

    def _compare(self, path: str, found: Mapping[str, Any]) -> None:
        differing = [key for key, value in self._identity.items() if found.get(key) != value]
        if differing:
            shown = "; ".join(f"{key} was {found.get(key)}" for key in differing)
            raise OtherSettings(
                f"the rows at {path} were made with other settings ({shown}); set output.mode to "
                "overwrite, or give another output.path"
            )
