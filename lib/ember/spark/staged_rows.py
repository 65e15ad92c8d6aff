"""The rows that a run has staged, counted in its files, where those lie on this machine.

What counts is what is there, as for a Spark job that reads the same files, and not what tasks have
reported. But a job takes seconds to plan and to start. Files elsewhere are left to Spark, which
reads them side by side.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import EmberError
from ember.spark import dimensions
from ember.spark.paths import literal
from ember.spark.staging import Staging
from ember.spark.storage import Storage

__all__ = ["StagedRows", "is_first"]

_log = logging.getLogger(__name__)
_ROWS = 65_536
T = TypeVar("T")


@dataclass(frozen=True)
class _StatusCount:
    """Rows of one status and one reason, which is what stands before the colon of their error.

    inputs: of how many rows of the input they are the first.
    """

    status: str | None
    reason: str | None
    count: int
    inputs: int


class StagedRows:
    """The rows that a run would publish: those kept of earlier attempts, and its own.

    Once they are merged into fewer files, it is these that are read and counted.

    part: the column that numbers, from 0, the rows of one row of the input; None: one for each.
    published: reads the rows of a table that are published elsewhere than in the folder `at`, which
    stands for them among the folders of rows.
    """

    def __init__(
        self,
        spark: SparkSession,
        storage: Storage,
        staging: Staging,
        *,
        part: str | None,
        at: str,
        published: Callable[[], DataFrame] | None,
    ) -> None:
        self._spark = spark
        self._storage = storage
        self._staging = staging
        self._part = part
        self._at = at
        self._published = published

    def frame(self) -> DataFrame:
        """All of them, as Spark reads them."""
        return self.read(self._staging.rows)

    def read(self, folders: Sequence[str]) -> DataFrame:
        """The rows in some folders of attempts."""
        there = [literal(each) for each in folders if self._staging.has_data(each)]
        if self._published is None or self._at not in folders:
            return self._spark.read.parquet(*there)
        rows = self._published()
        return rows.unionByName(self._spark.read.parquet(*there)) if there else rows

    def count(self) -> int:
        """How many there are."""
        here = self._here(_count)
        return self.frame().count() if here is None else here

    def counts(self, expected: int) -> dict[str, Any]:
        """Rows by status, and failed rows by reason (what stands before the colon).

        Raises EmberError when they do not stand for `expected` rows of the input: better no table
        than one that lacks rows.
        """
        rows = self._statuses()
        status: dict[str | None, int] = {}
        for row in rows:
            status[row.status] = status.get(row.status, 0) + row.count
        reasons = {row.reason: row.count for row in rows if row.status == "error"}
        total = sum(row.inputs for row in rows)
        if total != expected:
            raise EmberError(
                f"{expected} rows were to be written and {total} are there; nothing was published. "
                "Did the input change during the run?"
            )
        return {
            "rows": sum(status.values()),
            **({} if self._part is None else {"input_rows": total}),
            "status": dict(sorted(status.items())),
            "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        }

    def _statuses(self) -> list[_StatusCount]:
        """How many there are of each status and reason."""
        here = self._here(lambda files: _statuses(files, self._part))
        if here is not None:
            return here
        reason = F.substring_index("error", ":", 1).alias("reason")
        facts = (F.count("*").alias("count"), F.sum(is_first(self._part)).alias("inputs"))
        rows = self.frame().groupBy("status", reason).agg(*facts).collect()
        return [_StatusCount(**row.asDict()) for row in rows]

    def vector_length(self) -> int | None:
        """The length of the vectors in the column `embedding`; None where there is none."""
        here = self._here(lambda files: [_vector_length(files)])
        return dimensions.dimension(self.frame()) if here is None else here[0]

    def _here(self, told_by: Callable[[list[str]], T]) -> T | None:
        """What the files tell; None where they are Spark's to read.

        So they are where they lie elsewhere, and where pyarrow cannot read what Spark has written,
        as with Parquet's encryption.
        """
        files = [file for folder in self._staging.rows for file in self._staging.data_files(folder)]
        here = [local for file in files if (local := self._storage.local(file))]
        if not here or len(here) < len(files):
            return None
        try:
            return told_by(here)
        except (OSError, pa.ArrowException):
            _log.debug("the staged rows are counted by Spark", exc_info=True)
            return None


def is_first(part: str | None) -> Column:
    """1 for the first row that stands for a row of the input, 0 for the others.

    part: as in `StagedRows`.
    """
    return F.lit(1) if part is None else (F.col(part) == 0).cast("int")


def _count(files: Sequence[str]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)


def _statuses(files: Sequence[str], part: str | None) -> list[_StatusCount]:
    counts: Counter[tuple[str | None, str | None]] = Counter()
    inputs: Counter[tuple[str | None, str | None]] = Counter()
    for batch in _batches(files, ["status", "error", *([part] if part else [])]):
        first = pc.equal(batch[part], 0) if part else pa.array([True] * len(batch))
        table = pa.table({"status": batch["status"], "error": batch["error"], "first": first})
        grouped = table.group_by(["status", "error"]).aggregate(
            [([], "count_all"), ("first", "sum")]
        )
        for row in grouped.to_pylist():
            error = row["error"]
            key = row["status"], None if error is None else error.partition(":")[0]
            counts[key] += row["count_all"]
            inputs[key] += row["first_sum"] or 0
    return [_StatusCount(*key, count, inputs[key]) for key, count in counts.items()]


def _vector_length(files: Sequence[str]) -> int | None:
    for batch in _batches(files, ["embedding"], rows=64):
        lengths = pc.list_value_length(batch["embedding"])
        longest = pc.max(lengths).as_py()
        if longest:
            return int(longest)
    return None


def _batches(files: Sequence[str], columns: list[str], rows: int = _ROWS) -> Iterator[Any]:
    for file in files:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(rows, columns=columns)
