"""What the footers of Parquet files say of a table, without a Spark job."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from ember.spark import classic
from ember.spark.storage import Storage

__all__ = ["partition_rows", "read"]

_MAGIC = b"PAR1"
_PARQUET = "org.apache.spark.sql.execution.datasources.parquet.ParquetFileFormat"
# Parts of files that are asked for one by one; with more of them a Spark job is as fast.
_PARTS = 100


def read(storage: Storage, path: str, size: int) -> pq.FileMetaData | None:
    """The footer of a file of `size` bytes; None where it is no Parquet file, or a damaged one."""
    try:
        if local := storage.local(path):
            return pq.read_metadata(local)
        length, magic = struct.unpack("<I4s", storage.read_end(path, size, 8))
        if magic != _MAGIC:
            return None
        footer = storage.read_end(path, size, min(size, length + 8))
        return pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    except (OSError, struct.error, pa.ArrowException):
        return None


def partition_rows(table: DataFrame) -> list[int] | None:
    """How many rows each partition has in which Spark reads `table`, empty ones left out.

    None where footers on this machine do not say: a table that is not read from Parquet files as
    they are, that lies elsewhere, or in very many parts, or has a damaged file.
    """
    scan = _plain_scan(table)
    if scan is None:
        return None
    storage = Storage(table.sparkSession)
    partitions = scan.inputRDD().filePartitions()
    footers: dict[str, list[tuple[int, int]]] = {}
    rows: list[int] = []
    parts = 0
    for partition in (partitions.apply(number) for number in range(partitions.size())):
        found = 0
        for part in partition.files():
            path, start = str(part.toPath().toString()), int(part.start())
            parts += 1
            if parts > _PARTS or storage.local(path) is None:
                return None
            if path not in footers:
                footer = read(storage, path, int(part.fileSize()))
                if footer is None:
                    return None
                footers[path] = _middles(footer)
            end = start + int(part.length())
            found += sum(count for middle, count in footers[path] if start <= middle < end)
        rows.append(found)
    return [count for count in rows if count]


def _middles(footer: pq.FileMetaData) -> list[tuple[int, int]]:
    """Where in the file the middle of each row group is, and its rows.

    Spark reads a row group with the part of the file that its middle lies in.
    """
    found = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        first = group.column(0)
        start = min(first.data_page_offset, first.dictionary_page_offset or first.data_page_offset)
        chunks = (group.column(place) for place in range(group.num_columns))
        size = sum(each.total_compressed_size for each in chunks)
        found.append((start + size // 2, group.num_rows))
    return found


def _plain_scan(table: DataFrame) -> Any | None:
    """The scan of Parquet files whose rows are those of `table`, all of them; None without one."""
    plan = classic.physical_plan(table)
    while plan.getClass().getSimpleName() == "ProjectExec":
        plan = plan.child()
    if plan.getClass().getSimpleName() != "FileSourceScanExec":
        return None
    filtered = plan.dataFilters().nonEmpty() or plan.partitionFilters().nonEmpty()
    # Formats made of Parquet files are classes of their own: some of their rows may be deleted.
    is_parquet = plan.relation().fileFormat().getClass().getName() == _PARQUET
    return None if filtered or plan.bucketedScan() or not is_parquet else plan
