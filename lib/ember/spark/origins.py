"""What the rows of tables are read from: for manifests, and to tell whether it has changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.spark import catalog, classic
from ember.spark.storage import Storage

__all__ = ["ByFile", "columns", "files", "fingerprint", "state", "told"]

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
    """What tells whether tables still hold the same rows: files, and versions where there are."""
    versions = (
        f"{_VERSION}{each.describe()['table']} {each.version}"
        for table in tables
        for each in catalog.sources(table)
        if each.version or not each.has_files  # Delta deletes rows of files that stay as they are
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

        So it is of tables with versions, of some views, and of a table that is cached.
        """
        spark = table.sparkSession
        metadata = classic.analyzed_plan(table).metadataOutput()
        known = any(each.name() == "_metadata" for each in _each(metadata))
        if not known or any(each.version or not each.has_files for each in catalog.sources(table)):
            return None
        # Tasks and the driver give this machine's files with other numbers of slashes.
        uri = F.regexp_replace(F.col("_metadata.file_path"), _LOCAL, "file:/")
        rows = table.withColumn(column, F.substring(F.sha2(uri, 256), 1, _DIGITS))
        storage, uris = Storage(spark), {_key(each): each for each in table.inputFiles()}
        stamps = {key: list(storage.stamp(unquote(each))) for key, each in uris.items()}
        return cls(rows, stamps, uris) if uris else None

    def of_files(self, files: Iterable[str]) -> DataFrame:
        """The rows of some files; the others are not read."""
        named = {re.sub(_LOCAL, start, self.uris[file]) for file in files for start in _FORMS}
        return self.rows.filter(F.col("_metadata.file_path").isin(sorted(named)))


def _key(uri: str) -> str:
    plain = re.sub(_LOCAL, "file:/", uri)
    return hashlib.sha256(plain.encode()).hexdigest()[:_DIGITS]


def columns(table: DataFrame) -> dict[str, str] | None:
    """Which column of a table's files each of its columns is, or field of one, as `a.b`.

    None where the rows are not all those of one table, or a column is computed.
    """
    plan, above = classic.analyzed_plan(table), []
    while (kind := plan.getClass().getSimpleName()) in ("Project", "SubqueryAlias"):
        above.append(plan)
        plan = plan.children().apply(0)
    if kind != "LogicalRelation":
        return None
    known = {str(each.exprId()): str(each.name()) for each in _each(plan.output())}
    for project in reversed(above):
        if project.getClass().getSimpleName() == "Project":
            found = {str(e.exprId()): _named(e, known) for e in _each(project.projectList())}
            known |= {key: name for key, name in found.items() if name}
    output = [*_each(classic.analyzed_plan(table).output())]
    told = [known.get(str(each.exprId())) for each in output]
    names = [str(each.name()) for each in output]
    return {n: t for n, t in zip(names, told, strict=True) if t} if all(told) else None


def _named(expression: Any, known: Mapping[str, str]) -> str | None:
    """The column, or field of one, that an expression of Catalyst is; None where it computes."""
    kind = expression.getClass().getSimpleName()
    if kind == "AttributeReference":
        return known.get(str(expression.exprId()))
    if kind == "Alias":
        return _named(expression.child(), known)
    if kind == "GetStructField" and (outer := _named(expression.child(), known)):
        return f"{outer}.{expression.extractFieldName()}"
    return None


def _each(sequence: Any) -> Iterator[Any]:
    return (sequence.apply(number) for number in range(sequence.size()))


def files(table: DataFrame) -> list[str]:
    """The files that `table` is read from, sorted; Spark gives them as encoded URIs."""
    return sorted(unquote(file) for file in table.inputFiles())
