"""Files of few rows with large binary values: runs and blocks of vectors.

A file is an Arrow IPC stream with a batch for each row, so that whoever maps it has the values
where they lie. Spark's writer of text files writes it, a file for each value, as it is but for the
end of a line behind it: to any file system that Spark reaches, and whole or not at all. Where tasks
do not see the folder, Spark sends its files to every node.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import DataType, IntegerType, LongType, StructField, StructType

from ember.spark import classic
from ember.spark.session import is_local
from ember.spark.staged_files import name_of
from ember.spark.storage import Storage
from ember.worker.vectors.block_cache import stored_rows

__all__ = [
    "Pack",
    "files",
    "here",
    "rows",
    "schema",
    "seen_by_tasks",
    "send",
    "unsent",
    "write",
]

# Makes of a partition the values of rows, by column; a binary one may be a list of arrays, (n, d).
Pack = Callable[[Iterable[pa.RecordBatch]], Iterator[Mapping[str, Any]]]
_SENT = re.compile(r"^sent-[0-9a-f]{12}-")
_NUMBERS = {"part": IntegerType(), "place": IntegerType()}


def schema(**columns: DataType) -> StructType:
    """Columns of these types that may all be null, behind `part` and `place` (see `write`)."""
    return StructType([StructField(*each) for each in (_NUMBERS | columns).items()])


def seen_by_tasks(spark: SparkSession, folder: str) -> bool:
    """Do all tasks see a folder under one path, as in local mode?"""
    return is_local(spark) and Storage(spark).qualify(folder).startswith("file:")


def files(spark: SparkSession, folder: str) -> list[str]:
    """URIs of the files that `write` wrote."""
    return [file for file in Storage(spark).files(folder) if name_of(file).startswith("part-")]


def send(spark: SparkSession, files: Iterable[str], local: bool) -> None:
    """Have every node get some files once, unless tasks see them where they are (local)."""
    for file in () if local else files:
        sent = _sent(file)
        if sent != file:
            _link(_path(file), _path(sent))
        classic.send_file(spark, sent)


def here(files: Iterable[str], local: bool) -> list[str]:
    """Paths of files that were sent, in a task or on the driver."""
    if local:
        return [_path(file) for file in files]
    return [classic.received(name_of(_sent(file))) for file in files]


def unsent(name: str) -> str:
    """A file's name in a folder, of itself or of the link under which it is sent."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + _SENT.sub("", last)


def _sent(file: str) -> str:
    """The URI by which a file is sent; of a local one, in a name that no other place has.

    A driver serves no second local file of one name as long as its session lives, and a run that
    resumes moves what a failed one in this session may have sent.
    """
    if not file.startswith("file:"):
        return file
    folder, _, name = file.rpartition("/")
    return f"{folder}/sent-{sha256(folder.encode()).hexdigest()[:12]}-{name}"


def _path(file: str) -> str:
    return file.removeprefix("file:")


def _link(file: str, name: str) -> None:
    if Path(name).exists():
        return
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, name)


def rows(
    spark: SparkSession,
    files: Sequence[str],
    local: bool,
    unpack: Callable[[int, pa.RecordBatch], Iterator[pa.RecordBatch]],
    schema: StructType,
) -> DataFrame:
    """What `unpack` makes of the place of each file, which was sent, and of each of its rows."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                for row in stored_rows(*here([files[number]], local)):
                    yield from unpack(number, row)

    tasks = max(1, min(len(files), 4 * classic.cores(spark)))
    return spark.range(0, len(files), 1, tasks).mapInArrow(run, schema)


def write(
    table: DataFrame,
    pack: Pack,
    schema: StructType,
    folder: str,
    names: Sequence[str],
    *,
    one_each: bool = False,
) -> list[tuple[Any, ...]]:
    """Write what `pack` makes of a table's partitions, in place of what is in the folder; send it.

    one_each: a file for each row; else one for each partition, with its rows in order.

    Returns of each row the URI of its file, the partition that it is made of (`part`), its place
    among that partition's rows (`place`) and the columns `names`; sorted by part and place.

    Raises RuntimeError where there are two rows of one part and place, as after a task that was
    committed twice.
    """
    spark, types = table.sparkSession, to_arrow_schema(schema)
    folder = Storage(spark).qualify(folder)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        part = context.partitionId() if context else 0
        packed = (
            _batch({"part": part, "place": place, **row}, types)
            for place, row in enumerate(pack(batches))
        )
        for some in ([row] for row in packed) if one_each else filter(None, [list(packed)]):
            yield _batch({"value": _stream(some, types)}, pa.schema([("value", pa.binary())]))

    value = F.col("value").cast("string")  # the same bytes
    writer = table.mapInArrow(run, "value binary").select(value).write.mode("overwrite")
    writer.options(compression="none", maxRecordsPerFile=1).text(folder)
    written, local = files(spark, folder), seen_by_tasks(spark, folder)
    send(spark, written, local)
    columns = [*_NUMBERS, *names]
    told = StructType([StructField("file", LongType()), *(schema[name] for name in columns)])

    def facts(number: int, row: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        values = [pa.array([number], pa.int64()), *(row.column(name) for name in columns)]
        yield pa.RecordBatch.from_arrays(values, names=told.names)

    if local:  # sooner than a job
        each = [
            (n, row) for n, file in enumerate(here(written, local)) for row in stored_rows(file)
        ]
        found = [tuple(row.to_pylist()[0].values()) for n, one in each for row in facts(n, one)]
    else:
        found = [tuple(row) for row in rows(spark, written, local, facts, told).collect()]
    if len({row[1:3] for row in found}) < len(found):
        raise RuntimeError(f"a task has left its rows twice in {folder}; run the job again")
    return sorted(((written[number], *row) for number, *row in found), key=lambda row: row[1:3])


def _batch(values: Mapping[str, Any], types: pa.Schema) -> pa.RecordBatch:
    """A batch of one row; buffers become binary values without a copy."""
    columns = []
    for each in types:
        value = values[each.name]
        if isinstance(value, list):
            value = pa.py_buffer(np.concatenate(value)) if value else None
        if isinstance(value, pa.Buffer):
            ends = pa.py_buffer(np.array([0, value.size], np.int32))
            columns.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, value]))
        else:
            columns.append(pa.array([value], each.type))
    return pa.RecordBatch.from_arrays(columns, schema=types)


def _stream(rows: Sequence[pa.RecordBatch], types: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, types) as stream:
        for row in rows:
            stream.write_batch(row)
    return sink.getvalue()
