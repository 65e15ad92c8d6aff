"""Tables by their names in Spark's catalogs: read at one version, and where their rows come from.

Rows are read more than once, so a Delta or Iceberg table is read at the version that it has when
the run begins, whatever is written to it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from ember.errors import InvalidInput
from ember.spark import classic
from ember.spark.explain import first_line
from ember.spark.older_versions import error_condition

__all__ = ["Source", "at_version", "exists", "is_view", "qualified", "quoted", "read", "sources"]


@dataclass(frozen=True)
class Source:
    """A table that rows come from.

    Attributes:
        name: in Spark's catalogs; None of files that have none.
        format: delta, iceberg, parquet …, as far as Spark says.
        locations: URIs of the folders that it lies in.
        version: of a Delta table, or the id of an Iceberg snapshot; None where there is none.
        has_files: does Spark name the files of its rows?
    """

    name: str | None
    format: str
    locations: tuple[str, ...]
    version: str | None
    has_files: bool

    def describe(self) -> dict[str, str | None]:
        """For the manifest."""
        named = self.name or ", ".join(self.locations)
        return {"table": named, "format": self.format, "version": self.version}


def read(spark: SparkSession, name: str) -> DataFrame:
    """The rows of a table or view.

    Raises:
        InvalidInput: there is none of that name, or Spark cannot read it.
    """
    return at_version(_table(spark, name), lambda reader: reader.table(name))


def at_version(table: DataFrame, load: Any) -> DataFrame:
    """The same table at the version that it has now; a view, and what has no version, as it is.

    load: reads it by a DataFrameReader.
    """
    plan = classic.analyzed_plan(table)
    if _kind(plan) == "SubqueryAlias":
        plan = plan.child()
    found = sources(table)
    if plan.children().isEmpty() and len(found) == 1 and found[0].version:
        pinned: DataFrame = load(table.sparkSession.read.option("versionAsOf", found[0].version))
        return pinned
    return table


def _table(spark: SparkSession, name: str) -> DataFrame:
    try:
        return spark.table(name)
    except AnalysisException as error:
        if "NOT_FOUND" in error_condition(error):
            current = f"{spark.catalog.currentCatalog()}.{spark.catalog.currentDatabase()}"
            raise InvalidInput(
                f"there is no table {name} in Spark's catalogs (a name without a schema is looked "
                f"for in {current})"
            ) from None
        raise InvalidInput(f"cannot read table {name}: {first_line(error)}") from None


def exists(spark: SparkSession, name: str) -> bool:
    """Is there a table or view of this name?"""
    try:
        return spark.catalog.tableExists(name)
    except AnalysisException:  # no such catalog, say
        return False


def is_view(spark: SparkSession, name: str) -> bool:
    """Is what this name stands for, which is there, a view?"""
    return spark.catalog.getTable(name).tableType in ("VIEW", "TEMPORARY")


def qualified(spark: SparkSession, name: str) -> tuple[str, ...]:
    """Catalog, schema and name of a table, there or not, in the words of the current session.

    Raises:
        InvalidInput: what is no name.
    """
    try:
        parts = classic.parsed_name(spark, name)
    except PySparkException as error:
        raise InvalidInput(f"{name} is no name of a table: {first_line(error)}") from None
    catalog, schema = spark.catalog.currentCatalog(), spark.catalog.currentDatabase()
    if len(parts) == 1:
        return (catalog, *schema.split("."), parts[0])
    if classic.is_catalog(spark, parts[0]):
        return tuple(parts)
    return (catalog, *parts)


def quoted(parts: tuple[str, ...]) -> str:
    """A name as SQL takes it."""
    return ".".join(f"`{part.replace('`', '``')}`" for part in parts)


def sources(table: DataFrame) -> list[Source]:
    """The tables that the rows of `table` come from, those behind views included, each once."""
    leaves = classic.analyzed_plan(table).collectLeaves()
    found = (_source(leaves.apply(number)) for number in range(leaves.size()))
    return list(dict.fromkeys(each for each in found if each is not None))


def _source(leaf: Any) -> Source | None:
    """The table that a leaf of a plan reads; None of rows that come from nowhere else."""
    kind = _kind(leaf)
    if kind == "LogicalRelation":
        return _of_files(leaf)
    if kind == "HiveTableRelation":
        return _registered(leaf.tableMeta())
    if kind != "DataSourceV2Relation":
        return None
    table = leaf.table()
    facts = table.properties()
    snapshot = table.snapshotId() if "iceberg" in table.getClass().getName() else None
    snapshot = snapshot or facts.get("current-snapshot-id")
    location = facts.get("location")
    return Source(
        str(table.name()),
        str(facts.get("provider") or _kind(table)),
        (str(location),) if location else (),
        None if snapshot in (None, "none") else str(snapshot),
        has_files=False,
    )


def _of_files(leaf: Any) -> Source | None:
    relation, named = leaf.relation(), leaf.catalogTable()
    kind = relation.getClass()
    # Of which Delta has a class of its own, without a name.
    if "HadoopFsRelation" not in (kind.getSimpleName(), kind.getSuperclass().getSimpleName()):
        return _registered(named.get()) if named.isDefined() else None
    files = relation.location()
    is_delta = ".delta." in str(files.getClass().getName())
    roots = files.rootPaths()
    return Source(
        str(named.get().identifier().unquotedString()) if named.isDefined() else None,
        "delta" if is_delta else str(relation.fileFormat().toString()).lower(),
        tuple(str(roots.apply(number).toString()) for number in range(roots.size())),
        str(files.version()) if is_delta else None,
        has_files=True,
    )


def _registered(meta: Any) -> Source:
    location = meta.storage().locationUri()
    return Source(
        str(meta.identifier().unquotedString()),
        str(meta.provider().get()) if meta.provider().isDefined() else "hive",
        (str(location.get().toString()),) if location.isDefined() else (),
        None,
        has_files=True,
    )


def _kind(thing: Any) -> str:
    return str(thing.getClass().getSimpleName())
