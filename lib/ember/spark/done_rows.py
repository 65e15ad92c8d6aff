"""Rows that earlier runs have done, which a run that goes on with them keeps."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.spark.parquet_options import parquet_options
from ember.spark.paths import literal
from ember.spark.staged_rows import StagedRows, is_first
from ember.spark.staging import Staging
from ember.spark.tables import column
from ember.spark.together import together

__all__ = ["DoneRows"]

# Names of columns that no table of a user's has.
_KEY, _DONE = "_ember_id", "_ember_done"


class DoneRows:
    """What of a run's input was done before.

    part: the column that numbers, from 0, the rows that stand for one row of the input; None: each
    stands for one.
    """

    def __init__(
        self, spark: SparkSession, staging: Staging, rows: StagedRows, part: str | None
    ) -> None:
        self._spark = spark
        self._staging = staging
        self._rows = rows
        self._part = part
        # Counts one for each row of the input.
        self._first = is_first(part)

    def resume(self, rows: DataFrame, id: str) -> tuple[DataFrame, int]:
        """The rows still to do, and how many were done before and are kept.

        A row counts as done when its status is ok and its id occurs once here and once among the
        rows done: with repeated ids nobody can tell which of them it was. A row in several parts is
        done when all of them are.
        """
        sources = self._staging.sources()
        if not sources:
            return rows, 0
        done = self._rows.read(sources).filter(F.col("status") == "ok")
        key = column(rows, id)
        here = rows.select(key.alias(_KEY)).groupBy(_KEY).count().filter("count = 1")
        once = self._whole(self._rows.read(sources), id)
        usable = here.join(once, F.col(_KEY).eqNullSafe(F.col(_DONE))).select(F.col(_KEY))
        kept = done.join(usable, column(done, id).eqNullSafe(F.col(_KEY)), "left_semi")
        self.keep(kept, id)
        self._staging.forget_sources()
        stored = self._spark.read.parquet(literal(self._staging.kept))
        ids = stored.select(column(stored, id).alias(_KEY))
        todo = rows.join(ids, column(rows, id).eqNullSafe(F.col(_KEY)), "left_anti")
        return todo, stored.filter(self._first == 1).count()

    def keep(self, kept: DataFrame, id: str) -> None:
        """Stage rows that were done before, all of those that are to be published."""
        writer = kept.write.options(**parquet_options(self._spark))
        if self._part:  # all parts of a row in one file; a read may have put them into two tasks
            met = together(kept, column(kept, id)).sortWithinPartitions(self._part)
            writer = met.write.options(**parquet_options(self._spark), maxRecordsPerFile="0")
        writer.mode("overwrite").parquet(self._staging.kept)

    def _whole(self, table: DataFrame, id: str) -> DataFrame:
        """The ids that stand for one row of the input each, with all its parts done."""
        bad = F.sum((F.col("status") != "ok").cast("int"))
        facts = [F.count("*").alias("rows"), F.sum(self._first).alias("inputs"), bad.alias("bad")]
        condition = "inputs = 1 AND bad = 0"
        if self._part is None:
            table = table.filter("status = 'ok'")
        else:
            facts.append(F.max(self._part).alias("last"))
            condition += " AND last = rows - 1"
        counted = table.groupBy(column(table, id).alias(_DONE)).agg(*facts)
        return counted.filter(condition).select(_DONE)
