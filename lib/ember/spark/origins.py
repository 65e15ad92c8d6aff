"""What the rows of tables are read from: for manifests, and to tell whether it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession

from ember.spark import catalog
from ember.spark.storage import Storage

__all__ = ["files", "fingerprint", "state", "told"]

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


def files(table: DataFrame) -> list[str]:
    """The files that `table` is read from, sorted; Spark gives them as encoded URIs."""
    return sorted(unquote(file) for file in table.inputFiles())
