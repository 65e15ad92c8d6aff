"""Delta and Iceberg tables, whose own transactions publish what a run has staged.

What commits a run's rows also says which run it was (Delta: the user metadata of the commit;
Iceberg: the properties of the snapshot), so that nothing has to be written after it: a run that is
killed has committed all of its rows, or none, and a later one can tell which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import InvalidInput
from ember.spark import catalog
from ember.spark.older_versions import error_condition
from ember.spark.overrides import overridden

__all__ = ["Commit", "LakeTable", "Mark"]

Mark = Mapping[str, str]
_PREFIX = "ember."
# What others may do to a table without touching its rows: Delta's names of operations.
_KEEPS_ROWS = {
    *("OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES"),
    *("ADD COLUMNS", "CHANGE COLUMN", "UPGRADE PROTOCOL", "ADD CONSTRAINT", "DROP CONSTRAINT"),
    *("COMPUTE STATS", "FSCK", "CLUSTER BY", "REORG", "MANUAL UPDATE"),
}
_DELTA = "spark.databricks.delta."
_ICEBERG = "spark.sql.iceberg.snapshot-property."


@dataclass(frozen=True)
class Commit:
    """A commit to a table. mark: what a run of Ember's says in it, without the prefix."""

    version: str
    operation: str
    mark: Mark
    changed_rows: bool


class LakeTable:
    """A table that a job's rows are committed to.

    name: as SQL takes it. shown: as messages have it.
    """

    def __init__(self, spark: SparkSession, name: str, shown: str, format: str) -> None:
        self._spark = spark
        self._name = name
        self._format = format
        self.shown = shown

    def exists(self) -> bool:
        try:
            self._spark.table(self._name)
        except AnalysisException as error:
            condition = error_condition(error)  # Delta has one of its own for its folders
            if "NOT_FOUND" in condition or "DELTA" in condition:
                return False
            raise
        return True

    def location(self) -> str | None:
        """Where its files lie; None where it is not there, or nobody says."""
        found = catalog.sources(self._spark.table(self._name)) if self.exists() else []
        return next((each for source in found for each in source.locations), None)

    def rows(self) -> DataFrame:
        """Its rows, at the version that it has now."""
        return catalog.read(self._spark, self._name)

    def check(self, mode: str, job: str | None, holds: str) -> None:
        """Raise InvalidInput unless a run in this mode may put its rows there. See `places`."""
        if not self.exists():
            return
        self.check_format()
        told = self.properties()
        if f"{_PREFIX}job" not in told:
            raise InvalidInput(
                f"{self.shown} exists and was not written by Ember (it has no property "
                f"{_PREFIX}job); give another output.table, or drop it yourself"
            )
        if mode == "fail":
            raise InvalidInput(
                f"{self.shown} exists; set output.mode to overwrite (replace its rows) or, where "
                "the job knows it, resume (keep the rows that are done), or give another "
                "output.table"
            )
        by, kind = told[f"{_PREFIX}job"], told.get(f"{_PREFIX}holds", holds)
        if job is not None and (by, kind) != (job, holds):
            raise InvalidInput(
                f"{self.shown} exists and is a {kind} that {by} wrote; a {holds} of {job} replaces "
                "only such a one: give another output.table, or drop it yourself"
            )
        last = self.last()
        if last is not None and not last.mark:
            raise InvalidInput(
                f"{self.shown} was changed in version {last.version} ({last.operation}) by "
                "something other than Ember, whose rows would go; give another output.table, or "
                "drop it yourself"
            )

    def check_format(self) -> None:
        """Raise InvalidInput where the table is of another format than it is said to be."""
        found = catalog.sources(self._spark.table(self._name))
        formats = {each.format for each in found}
        if not self._name.startswith("`delta`.") and catalog.is_view(self._spark, self._name):
            formats = {"a view"}
        if formats != {self._format}:
            raise InvalidInput(
                f"{self.shown} exists and is {' and '.join(sorted(formats))}, not {self._format}; "
                "set output.format, or give another output.table"
            )

    def last(self) -> Commit | None:
        """The last commit that changed rows; None where the history that is kept has none."""
        if not self.exists():
            return None
        return next((each for each in self.commits() if each.changed_rows), None)

    def is_current(self, manifest: Mapping[str, Any]) -> bool:
        """Does a manifest tell of what the table holds?"""
        last = self.last()
        return last is not None and last.mark.get("attempt") == manifest.get("attempt")

    def committed(self, run_id: str, job: str | None) -> Commit | None:
        """The commit of a run, where the table has one."""
        if not self.exists():
            return None
        named = (each for each in self.commits() if each.mark.get("run_id") == run_id)
        return next((each for each in named if each.mark.get("job") == job), None)

    def commits(self) -> Iterator[Commit]:
        """What is kept of its history, the newest first. Raises as `check_format` does."""
        self.check_format()
        return self._delta_commits() if self._format == "delta" else self._iceberg_commits()

    def _delta_commits(self) -> Iterator[Commit]:
        for row in self._spark.sql(f"DESCRIBE HISTORY {self._name}").toLocalIterator():
            try:
                told = json.loads(row.userMetadata or "{}")
            except ValueError:
                told = {}
            mark = _own(told if isinstance(told, dict) else {})
            yield Commit(str(row.version), row.operation, mark, row.operation not in _KEEPS_ROWS)

    def _iceberg_commits(self) -> Iterator[Commit]:
        rows = self._spark.table(f"{self._name}.snapshots").collect()
        named = {row.snapshot_id: row for row in rows}
        # RTAS begins a lineage of its own: by time then, all that the table still knows.
        current = self.properties().get("current-snapshot-id", "none")
        if current == "none" or int(current) not in named:
            return
        until = named[int(current)].committed_at
        for row in sorted(rows, key=lambda each: each.committed_at, reverse=True):
            if row.committed_at <= until:
                mark = _own(row.summary or {})
                changed = row.operation != "replace"  # which is the compaction of files
                yield Commit(str(row.snapshot_id), row.operation, mark, changed)

    def properties(self) -> dict[str, str]:
        rows = self._spark.sql(f"SHOW TBLPROPERTIES {self._name}").collect()
        return {row.key: row.value for row in rows}

    def commit(self, rows: DataFrame, mark: Mark) -> None:
        """Make `rows` the table's, in one transaction that carries the mark.

        The table keeps its properties, its partitions and its name; columns become those of `rows`.

        Raises:
            InvalidInput: somebody has made a table of this name meanwhile.
        """
        with self.marked(mark):
            writer = rows.writeTo(self._name)
            if not self.exists():
                writer = writer.using(self._format)
                for key in ("job", "holds"):
                    writer = writer.tableProperty(f"{_PREFIX}{key}", mark[key])
                try:
                    writer.create()
                except AnalysisException as error:
                    if "ALREADY_EXISTS" not in error_condition(error):
                        raise
                    raise InvalidInput(f"{self.shown} was made meanwhile; run again") from None
            elif self._format == "delta":
                writer.option("overwriteSchema", "true").overwrite(F.lit(True))
            elif _columns(rows) == _columns(self._spark.table(self._name)):
                writer.overwrite(F.lit(True))
            else:  # Iceberg replaces columns only with all that says how the table is laid out
                writer.using(self._format).replace()

    @contextmanager
    def marked(self, mark: Mark) -> Iterator[None]:
        """Have what the block commits say which run it is; Delta commits a run once."""
        named = {f"{_PREFIX}{key}": value for key, value in mark.items()}
        settings = {f"{_ICEBERG}{key}": value for key, value in named.items()}
        if self._format == "delta":
            settings = {
                f"{_DELTA}commitInfo.userMetadata": json.dumps(named),
                f"{_DELTA}write.txnAppId": f"ember {mark['job']} {mark['run_id']}",
                f"{_DELTA}write.txnVersion": "1",
            }
        with overridden(self._spark, settings):
            yield


def _own(told: Mapping[str, Any]) -> dict[str, str]:
    """What of a commit's metadata is Ember's."""
    return {
        key.removeprefix(_PREFIX): str(value)
        for key, value in told.items()
        if key.startswith(_PREFIX)
    }


def _columns(table: DataFrame) -> list[tuple[str, str]]:
    return [(each.name, each.dataType.simpleString()) for each in table.schema]
