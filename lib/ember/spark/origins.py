"""What the rows of tables are read from: for manifests, and to tell whether it has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.spark import catalog, classic
from ember.spark.storage import Storage

__all__ = ["ByFile", "files", "fingerprint", "is_plain", "state", "told"]

_LOCAL, _FORMS = "^file:/+", ("file:/", "file:///")
_DIGITS = 16  # of a hash in base 16
_VERSION = "version of "  # which no path of a file begins with


def told(*tables: DataFrame) -> dict[str, Any]:
    """What rows are read from, for a manifest: files, and named tables with their versions."""
    found = dict.fromkeys(each for table in tables for each in catalog.sources(table))
    named = [each.describe() for each in found if each.name or each.version]
    read = sorted({file for table in tables for file in files(table)})
    return {"input_files": read, **({"input_tables": named} if named else {})}


def state(*tables: DataFrame) -> list[str]:
    """What tells whether tables still hold the same rows: files, and versions of what has none."""
    versions = (
        f"{_VERSION}{each.name} {each.version}"
        for table in tables
        for each in catalog.sources(table)
        if not each.has_files
    )
    return [*(file for table in tables for file in files(table)), *versions]


def fingerprint(spark: SparkSession, state: Iterable[str]) -> str:
    """A hash of what `state` says: of files also their sizes and times of modification."""
    versions = sorted(each for each in state if each.startswith(_VERSION))
    told = Storage(spark).fingerprint(each for each in state if not each.startswith(_VERSION))
    if not versions:
        return told
    return hashlib.sha256("\n".join([told, *versions]).encode()).hexdigest()


@dataclass(frozen=True)
class ByFile:
    """A table whose rows tell, in a column more, which file each is from.

    A file goes by a hash of its URI, which may hold a password. stamps: size and time of
    modification of each.
    """

    rows: DataFrame
    stamps: Mapping[str, list[int]]
    uris: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, table: DataFrame, column: str) -> ByFile | None:
        """None where files do not say which rows there are, or Spark does not know them by row.

        So it is of tables with versions, and of some views.
        """
        spark = table.sparkSession
        metadata = classic.analyzed_plan(table).metadataOutput()
        known = any(metadata.apply(n).name() == "_metadata" for n in range(metadata.size()))
        if not known or any(each.version or not each.has_files for each in catalog.sources(table)):
            return None
        # Tasks and the driver give this machine's files with other numbers of slashes.
        uri = F.regexp_replace(F.col("_metadata.file_path"), _LOCAL, "file:/")
        rows = table.withColumn(column, F.substring(F.sha2(uri, 256), 1, _DIGITS))
        storage, uris = Storage(spark), {_key(each): each for each in table.inputFiles()}
        stamps = {key: list(storage.stamp(unquote(each))) for key, each in uris.items()}
        return cls(rows, stamps, uris)

    def of_files(self, files: Iterable[str]) -> DataFrame:
        """The rows of some files; the others are not read."""
        named = {re.sub(_LOCAL, start, self.uris[file]) for file in files for start in _FORMS}
        return self.rows.filter(F.col("_metadata.file_path").isin(sorted(named)))


def _key(uri: str) -> str:
    plain = re.sub(_LOCAL, "file:/", uri)
    return hashlib.sha256(plain.encode()).hexdigest()[:_DIGITS]


def is_plain(table: DataFrame) -> bool:
    """Are the rows all those of one table's files, with columns left out or renamed at most?"""
    plan = classic.analyzed_plan(table)
    while (kind := plan.getClass().getSimpleName()) in ("Project", "SubqueryAlias"):
        plan = plan.children().apply(0)
    return str(kind) == "LogicalRelation"


def files(table: DataFrame) -> list[str]:
    """The files that `table` is read from, sorted; Spark gives them as encoded URIs."""
    return sorted(unquote(file) for file in table.inputFiles())
