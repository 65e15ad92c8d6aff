"""Staged rows in files of a sensible size.

A task leaves a file of its own as soon as it ends, which is what makes its rows safe. Such files
are small: of a billion rows there would be a million. When all rows are there, one pass of Spark
puts them into files near `output.file_size`. What it reads stays until the table is published, so
that a kill in between costs this pass alone, and no row.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from ember.settings.outputs import TableOutputConfig
from ember.spark.overrides import overridden
from ember.spark.parquet_options import parquet_options
from ember.spark.staging import Staging
from ember.spark.storage import Storage
from ember.spark.tables import column
from ember.spark.together import together

__all__ = ["Merging", "plan"]

# Files that a table of less than one file's worth may have. A small run has about four a core, and
# another Spark job is a second of it.
_FEW = 64
# How many bytes Spark reads in a task, and what it adds for each file.
_PART, _OPENING = "spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merging:
    """Into how many files the staged ones, so many of so many bytes, are put."""

    staged: int
    size: int
    files: int
    sorted: bool

    def write(self, table: DataFrame, by: Sequence[str], parts: Sequence[str], folder: str) -> None:
        """Write the rows of `table` to `folder`.

        by: the columns that name a row. parts: a column whose rows with one value stay in one
        file, and the column that they are sorted by there; none: they may lie anywhere.
        """
        keys = [column(table, name) for name in (*by, *parts[1:])]
        if self.sorted:
            # By the first alone, so that its rows stay together.
            rows = table.repartitionByRange(self.files, keys[0]).sortWithinPartitions(*keys)
        elif parts:
            rows = together(table, keys[0], partitions=self.files).sortWithinPartitions(*keys)
        else:
            rows = table.coalesce(self.files)
        _log.info(
            "merging %d files of %.1f MiB in all into %d",
            self.staged,
            self.size / 2**20,
            self.files,
        )
        writer = rows.write.options(**parquet_options(table.sparkSession))
        writer = writer.option("mapreduce.fileoutputcommitter.algorithm.version", "2")
        if parts:
            writer = writer.option("maxRecordsPerFile", "0")
        # Read in parts of a quarter of a file, of which four make one: by Spark's own settings a
        # part may be larger than a file is to be, and they differ in size.
        part = max(1, self.size // (4 * self.files))
        with overridden(table.sparkSession, {_PART: str(part), _OPENING: "0"}):
            writer.mode("overwrite").parquet(folder)


def plan(storage: Storage, staging: Staging, given: TableOutputConfig) -> Merging | None:
    """How what is staged is to be merged; None where it can be published as it is.

    That is where files are half as large as asked for, or larger, or few and small in all.
    """
    sizes = [storage.size(folder) for folder in staging.rows]
    staged, size = (sum(each) for each in zip(*sizes, strict=True))
    files = max(1, round(size / given.file_bytes))
    few = staged <= 2 * files or (size < given.file_bytes and staged <= _FEW)
    if not staged or (few and not given.sorted):
        return None
    return Merging(staged, size, min(files, staged), given.sorted)
