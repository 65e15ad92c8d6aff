"""Batches that fit in memory where rows are large: what Spark reads at once, by Parquet's footers.

Spark decodes Parquet in batches of 4,096 rows whatever their size, and before version 4.1 it hands
up to 10,000 rows at once to Python: with rows of megabytes either is more than a Java process has.
The footers say how many bytes the rows of a row group take, so a job lowers the two settings while
it runs, where the user left them alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from heapq import nlargest
from math import ceil

from pyspark.sql import DataFrame, SparkSession

from ember.errors import EmberError, InvalidInput
from ember.spark import classic, footers
from ember.spark.older_versions import has_setting, settings_given
from ember.spark.overrides import restore
from ember.spark.session import is_local
from ember.spark.storage import Storage

__all__ = ["RowGroup", "advise", "fit", "put_back", "room", "rows_at_once"]

_log = logging.getLogger(__name__)
_READ = "spark.sql.parquet.columnarReaderBatchSize"
_SENT = "spark.sql.execution.arrow.maxRecordsPerBatch"
_SENT_BYTES = "spark.sql.execution.arrow.maxBytesPerBatch"  # Spark 4.1 and newer
# A column's buffer doubles as it grows and is copied then, so that a batch may take three times
# its bytes; and a mean hides that large rows may lie side by side.
_BUDGET = 32 * 2**20
_FOOTERS = 8
_LISTED = 1000
# How Spark says so, of its own process, of an executor (which exits with 52), and of a container.
_OUT_OF_MEMORY = re.compile(r"java\.lang\.OutOfMemoryError|exited with code 52|memory limits")


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file; `stored` (compressed) and `bytes` of the columns read."""

    file: str
    rows: int
    stored: int
    bytes: int


@dataclass
class _Changes:
    """What was changed of a session, with what was set before, and why."""

    before: dict[str, str | None] = field(default_factory=dict)
    groups: list[RowGroup] = field(default_factory=list)
    memory: _Memory | None = None


@dataclass(frozen=True)
class _Memory:
    """Of the Java process that runs tasks, in bytes, and the setting that decides it."""

    bytes: int
    setting: str


_changes: ContextVar[_Changes | None] = ContextVar("ember_read_batches", default=None)


@contextmanager
def put_back(spark: SparkSession) -> Iterator[None]:
    """Restore the session's settings, which `fit` may change, when the block ends.

    Raises:
        InvalidInput: a run that ran out of memory while reading large rows.
        EmberError: where Spark is gone for another reason.
    """
    changes = _Changes()
    token = _changes.set(changes)
    try:
        yield
    except Exception as error:
        gone = not classic.answers(spark)
        if changes.groups and changes.memory and (gone or _ran_out(error)):
            raise _too_large(changes.groups, changes.memory) from error
        if gone:
            raise EmberError(
                "Spark ended in mid-run: something stopped it, or its Java process ran out of "
                "memory; raise spark.driver.memory, or look at what it wrote to stderr"
            ) from error
        raise
    finally:
        _changes.reset(token)
        if changes.before and classic.answers(spark):
            restore(spark, changes.before)


def fit(table: DataFrame) -> None:
    """Lower the batches in which Spark reads `table` to what fits in memory; within `put_back`.

    Settings of the user's are left alone.

    Raises:
        InvalidInput: a row group that no batch would make fit: Spark holds the stored bytes of one
            whole.
    """
    changes = _changes.get()
    if changes is None:
        return
    spark = table.sparkSession
    groups = _largest_groups(table)
    rows = rows_at_once(groups)
    if rows is None:
        return
    changes.groups = groups
    changes.memory = memory = _memory(spark)
    if max(group.stored for group in groups) > memory.bytes:
        raise _too_large(groups, memory)
    for key in _settings(spark):
        by_user = key in settings_given(spark) and key not in changes.before
        if not by_user and rows < int(spark.conf.get(key) or 0):
            changes.before.setdefault(key, None)
            spark.conf.set(key, str(rows))
            _log.info("%s is %d for this run: %s", key, rows, _described(groups))


def advise(table: DataFrame) -> None:
    """Log what `fit` would set, where the session is the user's and reads at another time."""
    spark = table.sparkSession
    groups = _largest_groups(table)
    rows = rows_at_once(groups)
    for key in _settings(spark) if rows else ():
        if key not in settings_given(spark):
            _log.warning("set %s to %d or less: %s", key, rows, _described(groups))


def room(table: DataFrame) -> tuple[int, str] | None:
    """How many rows of `table` fit in a batch, and of what size; None where all do."""
    groups = _largest_groups(table)
    rows = rows_at_once(groups)
    return None if rows is None else (rows, _described(groups))


def rows_at_once(groups: Sequence[RowGroup]) -> int | None:
    """How many rows of the largest of these row groups fit in a batch; None where all do."""
    large = [group for group in groups if group.bytes > _BUDGET]
    return min((max(1, _BUDGET * group.rows // group.bytes) for group in large), default=None)


def _settings(spark: SparkSession) -> list[str]:
    """The settings that count rows, without a bound in bytes beside them."""
    return [_READ] if has_setting(spark, _SENT_BYTES) else [_READ, _SENT]


def _too_large(groups: Sequence[RowGroup], memory: _Memory) -> InvalidInput:
    return InvalidInput(
        f"{_described(groups)}. Spark holds a row group whole, and its Java process has "
        f"{_shown(memory.bytes)}: raise {memory.setting}, or write the table anew in smaller row "
        "groups (pyarrow: row_group_size)"
    )


def _described(groups: Sequence[RowGroup]) -> str:
    group = max(groups, key=lambda each: each.bytes)
    return (
        f"a row group of {group.file} holds {group.rows} rows of {_shown(group.bytes)}, "
        f"{_shown(group.bytes // group.rows)} a row"
    )


def _shown(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _ran_out(error: BaseException | None) -> bool:
    while error is not None:
        try:
            text = str(error)
        except Exception:  # Java's text of it is asked for only now, when Java may be gone
            text = ""
        if _OUT_OF_MEMORY.search(text):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory(spark: SparkSession) -> _Memory:
    if is_local(spark):
        return _Memory(
            int(classic.jvm(spark).java.lang.Runtime.getRuntime().maxMemory()),
            "spark.driver.memory",
        )
    setting = "spark.executor.memory"
    return _Memory(_bytes(spark, classic.setting(spark, setting, "1g")), setting)


def _bytes(spark: SparkSession, size: str) -> int:
    """A size as Spark writes it, such as 64m; a bare number is one of bytes."""
    return int(classic.jvm(spark).org.apache.spark.network.util.JavaUtils.byteStringAsBytes(size))


def _largest_groups(table: DataFrame) -> list[RowGroup]:
    """The largest row group of each of the largest Parquet files that `table` is read from."""
    storage = Storage(table.sparkSession)
    found = []
    for path, size, columns in _files(table):
        groups = _row_groups(storage, path, size, columns)
        found += nlargest(1, groups, key=lambda group: group.bytes)
    return found


def _files(table: DataFrame) -> list[tuple[str, int, Collection[str]]]:
    """The largest files that `table` is read from: path, bytes, top-level columns read of it.

    Of many files evenly spaced ones are looked at. Spark has listed them already.
    """
    nothing = classic.jvm(table.sparkSession).PythonUtils.toSeq([])
    leaves = classic.physical_plan(table).collectLeaves()
    files = []
    for leaf in (leaves.apply(number) for number in range(leaves.size())):
        if leaf.getClass().getSimpleName() != "FileSourceScanExec":
            continue
        columns = {name.lower() for name in leaf.requiredSchema().fieldNames()}
        folders = leaf.relation().location().listFiles(nothing, nothing)
        for folder in (folders.apply(n).files() for n in _spaced(folders.size())):
            for status in (folder.apply(n) for n in _spaced(folder.size())):
                path = str(status.getPath().toString())
                files.append((path, int(status.getLen()), columns))
    return nlargest(_FOOTERS, files, key=lambda each: each[1])


def _spaced(count: int) -> list[int]:
    step = max(1, ceil(count / _LISTED))
    return list(range(0, count, step))


def _row_groups(storage: Storage, path: str, size: int, columns: Collection[str]) -> list[RowGroup]:
    """The row groups of a Parquet file by its footer; none where it is no such file."""
    told = footers.read(storage, path, size)
    if told is None:  # as reading the table will say
        return []
    groups = []
    for number in range(told.num_row_groups):
        group = told.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        read = [each for each in chunks if _top(each.path_in_schema) in columns]
        groups.append(
            RowGroup(
                path,
                group.num_rows,
                sum(each.total_compressed_size for each in read),
                sum(each.total_uncompressed_size for each in read),
            )
        )
    return groups


def _top(path: str) -> str:
    return path.partition(".")[0].lower()
