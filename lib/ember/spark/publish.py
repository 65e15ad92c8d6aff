"""Publishing: rows staged beside the output (see ember.spark.staging), whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import EmberError, InvalidInput
from ember.redaction import redact, redact_all
from ember.settings.outputs import TableOutputConfig
from ember.spark import classic, contents, merged_files, places
from ember.spark.bad_rows import BadRows
from ember.spark.content_plan import CONTENT_HASH
from ember.spark.contents import MANIFEST
from ember.spark.destinations import Destination
from ember.spark.done_rows import DoneRows
from ember.spark.failed_rows import refuse_failures
from ember.spark.file_table import FileTable
from ember.spark.lake_merge import LakeMerge
from ember.spark.lake_table import LakeTable
from ember.spark.parquet_options import parquet_options
from ember.spark.paths import literal
from ember.spark.staged_files import read_manifest
from ember.spark.staged_rows import StagedRows
from ember.spark.staging import Staging
from ember.spark.storage import Storage
from ember.spark.tables import check_unique

__all__ = ["MANIFEST", "Output", "complete", "read_manifest"]

# Each task's files appear when it ends, whatever the user's committer does with other tables: the
# S3A committers let all of a job's files appear when the job ends.
_BY_TASK = {
    "mapreduce.fileoutputcommitter.algorithm.version": "2",
    "fs.s3a.committer.name": "file",
}
_log = logging.getLogger(__name__)


class Output:
    """One run's way to one published table.

    Args:
        identity: what the rows depend on (model, columns); compared when a run is resumed.
        job: the only one whose output may be replaced; None: any of Ember's.
        run_id: names the run where another one meets it.
        holds: what the output is, where a job writes several kinds: a "table", "projection" or
            "table of groups".
        part: a column that numbers, from 0, the rows that stand for one row of the input; None:
            each stands for one.
        new: where in the run's own folder the output grows.
        table: the table as which the rows are published, where they are more than files at `path`;
            where it is a LakeTable, that folder has the manifest and the pages alone.

    Attributes:
        staging: the run's own folder, for a run that keeps more in it than rows to publish.
        storage: the file system that it lies in.
        rows: what would be published.
        done: what of it was done before.
        bad: the tables of rows that cannot be used, beside the output.
    """

    def __init__(
        self,
        spark: SparkSession,
        path: str,
        mode: str,
        identity: Mapping[str, Any],
        *,
        job: str | None = None,
        run_id: str | None = None,
        holds: str = places.TABLE,
        part: str | None = None,
        new: str = "new",
        table: LakeTable | FileTable | None = None,
    ) -> None:
        self.spark = spark
        self._lake = table if isinstance(table, LakeTable) else None
        self._registered = table if isinstance(table, FileTable) else None
        self.storage = Storage(spark)
        self._mode = mode
        self._job = job
        self._holds = holds
        self._given = path
        self._run_id = run_id or classic.application_id(spark)
        self._part = part
        self.path = self.storage.resolve(path)
        self.shown = table.shown if table else self.path
        beside = dict(places.beside(self.storage, "output.path", self.path))
        self.staging = Staging(
            self.storage,
            beside["the staged rows of output.path"],
            self.path,
            run_id=self._run_id,
            mode=mode,
            identity=_shown(identity),
            new=new,
            held=partial(self._is_current, self._lake) if self._lake else None,
        )
        published = self._lake.rows if self._lake else None
        self.rows = StagedRows(
            spark, self.storage, self.staging, part=part, at=self.path, published=published
        )
        self.done = DoneRows(spark, self.staging, self.rows, part)
        self.bad = BadRows(self.storage, self.staging, self.path, job=job, run_id=self._run_id)

    def check(self) -> None:
        """Raise InvalidInput when no run in this mode may write here. Writes nothing."""
        self._check_target()
        self.bad.check()
        self.staging.check()

    def check_ids(self, rows: DataFrame, id: str) -> None:
        """Raise InvalidInput where the ids of the input cannot be those of a table to merge into.

        They have to be unique, which takes a Spark job, and of the type that the table has.
        """
        if isinstance(self._lake, LakeMerge):
            self._lake.check_id_type(rows.schema[id].dataType)
            check_unique(rows, id)

    def _check_target(self) -> None:
        mode = self._mode
        if self._registered:
            self._registered.check(self._given)
        if self._lake:
            self._lake.check(mode, self._job, self._holds)
            mode = "overwrite"  # the manifest in the folder goes with each commit to the table
        given = (self._given, mode, self._job, self._holds)
        places.check_target(self.storage, *given, underway=self.staging.underway())

    def _is_current(self, table: LakeTable) -> bool:
        """Does the manifest tell of what the table holds?"""
        return table.is_current(read_manifest(self.storage, self.path) or {})

    def complete(self) -> None:
        """Do what a run that was killed right after its commit has left to do."""
        if self._registered:
            self._registered.register(self.path)
        last = self._lake.last() if self._lake else None
        if last and "attempt" in last.mark:
            self.staging.complete(last.mark["attempt"])

    @contextmanager
    def attempt(self, worth: Callable[[], bool] | None = None) -> Iterator[None]:
        """Make room for this attempt; leave no trace of one that fails before it is worth it.

        Work left by a killed run goes unless it is resumed.
        worth: is there anything for a resumed run to go on with? By default, any row.
        """
        if self._lake:
            self.complete()
            self._insist_on_manifest(self._lake)
        lent = classic.files_lent(self.spark, self.staging.folder)
        with lent, self.staging.run(self.check, worth):
            yield

    def _insist_on_manifest(self, table: LakeTable) -> None:
        """Raise InvalidInput where a run is to resume rows of which nobody says how they came."""
        unknown = self._mode == "resume" and read_manifest(self.storage, self.path) is None
        if unknown and table.exists():
            raise InvalidInput(
                f"the manifest of {self.shown} is not at {self.path}, so that nobody knows how its "
                "rows were made; set output.staging as it was, or output.mode to overwrite"
            )

    @property
    def finished(self) -> bool:
        """Is what a resumed run would make there already, whole? `check` compared its settings."""
        whole = self._mode == "resume" and self.staging.is_finished()
        return whole and (self._lake is None or self._is_current(self._lake))

    def published(self) -> DataFrame:
        """The rows that are published."""
        return self._lake.rows() if self._lake else self.spark.read.parquet(literal(self.path))

    def resume(self, rows: DataFrame, id: str) -> tuple[DataFrame, int]:
        """The rows still to do, and how many were done before and are kept; see `DoneRows`."""
        return self.done.resume(rows, id) if self._mode == "resume" else (rows, 0)

    def comparable(self) -> tuple[DataFrame | None, str]:
        """The published rows, where this run may go by them; else None, and why not, if they are.

        It may where they are of its own identity.
        """
        told = read_manifest(self.storage, self.path)
        if told is None:
            there = self._lake is not None and self._lake.exists()
            return None, f"its manifest is not at {self.path}" if there else ""
        found = told.get("identity", {})
        if CONTENT_HASH not in found:
            return None, "they have no content hashes, which a run in another mode does not leave"
        if shown := self.staging.differing(found):
            return None, f"they were made with other settings ({shown})"
        if self._lake and not self._is_current(self._lake):
            return None, "they have been changed since"
        there = self._lake is not None or self.staging.has_data(self.path)
        return (self.published() if there else None), ""

    def renew(self, manifest: Mapping[str, Any]) -> bool:
        """Publish what is published already, under a manifest of this run.

        False, and nothing is done, where the manifest cannot be replaced in one step, or the table
        is not whole.
        """
        told = read_manifest(self.storage, self.path) or {}
        if contents.lacking(self.storage, self.path, told):
            return False
        self._check_target()
        facts = {"job": self._job, **manifest, "holds": self._holds}
        if not self.staging.renew(told, facts, self.storage.replace_text):
            return False
        if self._registered:
            self._registered.register(self.path)
        self._clean_up()
        return True

    def write(self, table: DataFrame, part: str | None = None, **options: str) -> None:
        """Stage the rows of this attempt; each task's rows are safe as soon as it ends.

        part: the output is a folder of several tables, and this is the one of that name. Such an
        output is made in one piece: what a killed run wrote of it is not taken up again.
        """
        writer = table.write.options(**parquet_options(self.spark), **_BY_TASK)
        target = f"{self.staging.new}/{part}" if part else self.staging.new
        if self._part:  # all parts of a row in one file, which appears in one step
            writer = writer.option("maxRecordsPerFile", "0")
        writer.options(**options).mode("append").parquet(target)

    def staged(self) -> DataFrame:
        """All rows that would be published: those kept and those of this attempt."""
        return self.rows.frame()

    @property
    def scratch(self) -> str:
        """A folder for what this attempt makes on the way; it goes when the run is published."""
        return self.staging.scratch

    @property
    def shared(self) -> str:
        """A folder for what all attempts use; it goes when the run is published."""
        return self.staging.shared

    @property
    def is_folder(self) -> bool:
        """Are the rows published as the files of a folder, in which other files may lie?"""
        return self._lake is None

    @property
    def folder(self) -> str:
        """What is to become the output; after `merge` it is another one."""
        return self.staging.table

    def merge(self, given: TableOutputConfig, by: Sequence[str], rows: int) -> None:
        """Put the staged rows into files of about the size that is asked for, sorted if it is.

        by: the columns that name a row, the id first. rows: how many there are.
        Raises EmberError when afterwards there are not so many.
        """
        merging = merged_files.plan(self.storage, self.staging, given)
        if merging is None:
            return
        together = [by[0], self._part] if self._part else []
        merging.write(self.staged(), by, together, self.staging.merged)
        self.staging.take_merged()
        if (found := self.count()) != rows:
            raise EmberError(
                f"{rows} rows were staged and {found} are in the merged files; nothing was "
                "published, and a run with output.mode=resume goes on with those that were staged"
            )

    def discard(self) -> None:
        """Give up what this and earlier attempts staged."""
        self.staging.discard()

    def count(self) -> int:
        """How many rows would be published."""
        return self.rows.count()

    def vector_length(self) -> int | None:
        """The length of the vectors in the column `embedding`; None where there is none."""
        return self.rows.vector_length()

    def counts(self, expected: int) -> dict[str, Any]:
        """Rows by status and by reason, if they stand for as many of the input's."""
        return self.rows.counts(expected)

    def refuse_failures(self, counts: Mapping[str, Any], max_failed_fraction: float) -> None:
        """Keep the failed rows beside the output and raise TooManyFailures when over the ceiling.

        The rows that were done stay staged, so that a resumed run need not repeat them.
        """

        def keep() -> str:
            table = self.staged().filter(F.col("status") == "error")
            table = table.drop(table.columns[-3])  # the result, which is null
            return self.keep_failures(table.coalesce(1))

        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["reasons"].items())
        again = "sync" if self._mode == "sync" else "resume"
        refuse_failures(
            counts["status"].get("error", 0),
            counts["input_rows"] if self._part else counts["rows"],
            max_failed_fraction,
            f"rows failed ({reasons})",
            keep,
            otherwise=f", and run again with output.mode={again} to keep the rest",
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
        folder = self.bad.reject(bad, rejected, side)

        def give_up() -> str:
            self.staging.discard()
            return folder

        of_side = f" of the {side} table" if side else ""
        told = f"rows{of_side} have no usable vector"
        refuse_failures(rejected, total, max_failed_fraction, told, give_up)

    def add(self, local: str, name: str) -> None:
        """Stage a file of the driver's machine under a name of its own."""
        folder = self.staging.record if self._lake else self.staging.table
        self.storage.upload(local, f"{folder}/{name}")

    def keep_failures(self, table: DataFrame) -> str:
        """Write rows that failed beside the output; where."""
        self.bad.keep(table, self.bad.failures)
        return self.bad.failures

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Put the staged rows and the manifest in the place of the output.

        Raises InvalidInput when the place is taken meanwhile, by another run or anybody else.
        """
        facts = {"job": self._job, **manifest, "holds": self._holds}
        if self._lake:
            self._commit(self._lake, facts)
        else:
            self.staging.publish(facts, self._check_target)
        if self._registered:
            self._registered.register(self.path)
        try:
            self._clean_up()
        except Exception as error:  # the table is there all the same
            _log.warning("%s is published; old files beside it remain: %s", self.shown, error)

    def _commit(self, table: LakeTable, facts: Mapping[str, Any]) -> None:
        mark = {
            "run_id": self._run_id,
            "job": str(self._job),
            "holds": self._holds,
            "attempt": self.staging.attempt,
            "manifest": redact(f"{self.path}/{MANIFEST}"),
        }
        commit = partial(table.commit, self.staged(), mark)
        self.staging.commit(facts, self._check_target, commit)

    def _clean_up(self) -> None:
        """Delete what this run, and an earlier one's bad rows, have left beside the output."""
        self.bad.clean_up()
        self.staging.discard()


def complete(spark: SparkSession, place: Destination, run_id: str) -> None:
    """Do what a run that was killed right after its commit to a table has left to do."""
    Output(spark, place.path, "fail", {}, run_id=run_id, table=place.table).complete()


def _shown(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it may be written beside the rows: what is hidden counts by its hash."""
    shown: dict[str, Any] = redact_all(identity)
    if shown != identity:
        text = json.dumps(identity, sort_keys=True, default=str)
        shown["hidden"] = hashlib.sha256(text.encode()).hexdigest()
    return shown
