"""Results merged into a Delta or Iceberg table that is there: columns of the rows with their ids.

Only columns that Ember has added are written, and only in rows whose result has changed. Which they
are is a property of the table.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from ember.errors import InvalidInput
from ember.spark import catalog
from ember.spark.lake_table import Commit, LakeTable, Mark

__all__ = ["RESULTS", "LakeMerge"]

# What the jobs that make a row of each row call their result.
RESULTS = {"embed": "embedding", "classify": "predictions", "describe": "description"}
_MERGED = "ember.merged"  # a property: the columns that Ember has added
_SHOWN = 3


class LakeMerge(LakeTable):
    """A table into which a job's rows are merged by id.

    id: the column of the ids, in both. job: the one whose results they are. In the table, the
    columns `status` and `error` of a result have its name before their own.
    """

    def __init__(
        self, spark: SparkSession, name: str, shown: str, format: str, *, id: str, job: str
    ) -> None:
        super().__init__(spark, name, shown, format)
        self._id, self._job = id, job
        result = RESULTS[job]
        self._columns = {
            result: result,
            "status": f"{result}_status",
            "error": f"{result}_error",
        }

    def check(self, mode: str, job: str | None, holds: str) -> None:
        """Raise InvalidInput unless a run in this mode may merge its rows."""
        if not self.exists():
            raise InvalidInput(f"there is no {self.shown} to merge into; give output.table instead")
        self.check_format()
        there = self._there()
        if self._id not in self._spark.table(self._name).columns:
            raise InvalidInput(f"{self.shown} has no column {self._id}, by which to merge")
        own = self.properties().get(_MERGED, "").split()
        for column in self._columns.values():
            if column.lower() in there and column not in own:
                raise InvalidInput(
                    f"{self.shown} has a column {column} that Ember did not add; rename it, or "
                    "give output.table instead"
                )
        if mode == "fail" and self._is_merged():
            raise InvalidInput(
                f"{self.shown} has results of {self._job}; set output.mode to overwrite (do all "
                "rows) or resume (do the rows that have none)"
            )

    def check_id_type(self, kind: DataType) -> None:
        """Raise InvalidInput where the ids of the input are of another type than the table's."""
        own = self._spark.table(self._name).schema[self._id].dataType
        if own != kind:
            raise InvalidInput(
                f"{self._id} is {kind.simpleString()} in the input and {own.simpleString()} in "
                f"{self.shown}; cast one of them"
            )

    def last(self) -> Commit | None:
        """The last commit of this job's; others may add rows and columns of their own."""
        if not self.exists():
            return None
        named = (each for each in self.commits() if each.mark.get("job") == self._job)
        return next(named, None)

    def rows(self) -> DataFrame:
        """The rows that have a result, as the job writes them."""
        table = super().rows()
        columns = {self._id: self._id, **self._columns}
        if not self._is_merged():
            raise InvalidInput(f"{self.shown} has no results of {self._job} to go on with")
        found = table.select(*(table[theirs].alias(ours) for ours, theirs in columns.items()))
        return found.filter(F.col("status").isNotNull())

    def commit(self, rows: DataFrame, mark: Mark) -> None:
        """Merge rows of id, result, status and error, in one transaction that carries the mark.

        Raises:
            InvalidInput: ids that the table does not have.
        """
        table = self._spark.table(self._name)
        same = rows[self._id].eqNullSafe(table[self._id])
        lost = rows.join(table, same, "left_anti").select(rows[self._id]).limit(_SHOWN).collect()
        if lost:
            named = ", ".join(str(row[0]) for row in lost)
            raise InvalidInput(
                f"{self.shown} lacks ids of the input, such as {named}; nothing was merged"
            )
        self._add_columns(rows)
        view = f"_ember_{mark['attempt']}".replace("-", "_").replace(".", "_").replace("=", "_")
        rows.createOrReplaceTempView(view)
        ours = {f"s.{_q(one)}": f"t.{_q(other)}" for one, other in self._columns.items()}
        changed = " OR ".join(f"NOT {one} <=> {other}" for one, other in ours.items())
        updates = ", ".join(f"{other} = {one}" for one, other in ours.items())
        try:
            with self.marked(mark):
                self._spark.sql(
                    f"MERGE INTO {self._name} AS t USING {_q(view)} AS s "
                    f"ON t.{_q(self._id)} <=> s.{_q(self._id)} "
                    f"WHEN MATCHED AND ({changed}) THEN UPDATE SET {updates}"
                )
        finally:
            self._spark.catalog.dropTempView(view)

    def _add_columns(self, rows: DataFrame) -> None:
        """Add the columns that the table lacks; first it says whose they are."""
        own = self.properties().get(_MERGED, "").split()
        merged = " ".join(dict.fromkeys([*own, *self._columns.values()]))
        if merged.split() != own:
            self._spark.sql(
                f"ALTER TABLE {self._name} SET TBLPROPERTIES ('{_MERGED}' = '{merged}')"
            )
        there = self._there()
        added = ", ".join(
            f"{_q(theirs)} {rows.schema[ours].dataType.simpleString()}"
            for ours, theirs in self._columns.items()
            if theirs.lower() not in there
        )
        if added:
            self._spark.sql(f"ALTER TABLE {self._name} ADD COLUMNS ({added})")

    def _there(self) -> set[str]:
        return {name.lower() for name in self._spark.table(self._name).columns}

    def _is_merged(self) -> bool:
        return {name.lower() for name in self._columns.values()} <= self._there()


def _q(name: str) -> str:
    return catalog.quoted((name,))
