"""Where a run's rows go: a folder, or a table of Spark's catalogs with a folder beside it.

A table of a lakehouse format has its rows staged, and its manifest kept, in `NAME.ember` in the
folder in which the catalog keeps the tables of the schema, or in `output.staging`. A Parquet table
of the session catalog is a folder there, with the manifest in it, and is registered by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from ember.errors import InvalidConfig, InvalidInput
from ember.settings import files
from ember.settings.config import Config
from ember.spark import catalog, places
from ember.spark.explain import first_line
from ember.spark.file_table import FileTable
from ember.spark.lake_merge import LakeMerge
from ember.spark.lake_table import LakeTable
from ember.spark.staged_files import read_manifest
from ember.spark.storage import Storage

__all__ = ["Destination", "committed", "destination"]

_SESSION = "spark_catalog"
_DATABRICKS = "spark.databricks.clusterUsageTags.clusterId"  # where Delta is a part of Spark


@dataclass(frozen=True)
class Destination:
    """The folder that staging publishes, and the table, if there is one. See `publish.Output`."""

    path: str
    table: LakeTable | FileTable | None


def destination(spark: SparkSession, config: Config, job: str) -> Destination:
    """Where the rows of a job go, apart from the tables that it reads by their names.

    A table that results are merged into may be one that is read: its other columns are left alone.

    Raises:
        InvalidConfig: a format that cannot go there.
        InvalidInput: a table that is read, or a folder that has none.
    """
    given: Any = getattr(config, "output")  # noqa: B009  # all jobs have it
    if getattr(given, "merge_into", None):
        place = _merged(spark, config, given, job)
    else:
        place = _place(spark, given)
    named = files.tables(config)
    if named or place.table:
        _check_apart(spark, config, place, named)
    return place


def committed(spark: SparkSession, place: Destination, job: str, run_id: str) -> bool:
    """Has this very run published its table, so that a retry has nothing to do?"""
    if isinstance(place.table, LakeTable):
        return place.table.committed(run_id, job) is not None
    told = read_manifest(Storage(spark), place.path) if place.table else None
    return told is not None and (told.get("run_id"), told.get("job")) == (run_id, job)


def _place(spark: SparkSession, given: Any) -> Destination:
    name = getattr(given, "table", None)
    kind = getattr(given, "format", "parquet")
    staging = getattr(given, "staging", None)
    if name is None:
        return _folder(spark, given.path, kind, staging)
    parts = catalog.qualified(spark, name)
    quoted, shown = catalog.quoted(parts), f"table {name}"
    if kind == "parquet":
        if parts[0] != _SESSION:
            raise InvalidConfig(
                f"output.table {name} is of the catalog {parts[0]}, and tables of Parquet are of "
                "Spark's session catalog; set output.format to the format of that catalog"
            )
        table = FileTable(spark, quoted, shown)
        path = table.location() or f"{staging or _schema_folder(spark, parts)}/{parts[-1]}"
        return Destination(path, table)
    _insist_on_catalog(spark, parts[0], kind)
    folder = f"{staging or _schema_folder(spark, parts)}/{parts[-1]}.ember"
    return Destination(folder, LakeTable(spark, quoted, shown, kind))


def _merged(spark: SparkSession, config: Any, given: Any, job: str) -> Destination:
    """A table that results are merged into."""
    parts = catalog.qualified(spark, given.merge_into)
    if given.format == "parquet":
        raise InvalidConfig("output.merge_into needs output.format delta or iceberg, which merge")
    _insist_on_catalog(spark, parts[0], given.format)
    chunk = getattr(config, "chunk", None)
    if chunk is not None and chunk.pool is None:
        raise InvalidConfig(
            "output.merge_into takes one row for each id, and chunk makes several; set chunk.pool"
        )
    source = config.input or config.features[0]
    key = source.id.rpartition(".")[2]
    folder = f"{given.staging or _schema_folder(spark, parts)}/{parts[-1]}.{job}.ember"
    quoted, shown = catalog.quoted(parts), f"table {given.merge_into}"
    return Destination(folder, LakeMerge(spark, quoted, shown, given.format, id=key, job=job))


def _folder(spark: SparkSession, path: str, kind: str, staging: str | None) -> Destination:
    if kind == "parquet":
        if staging is not None:
            raise InvalidConfig("output.staging is for tables; rows are staged beside output.path")
        return Destination(path, None)
    if kind != "delta":
        raise InvalidConfig(f"output.format {kind} needs output.table, a name in a catalog")
    _insist_on_catalog(spark, _SESSION, kind)
    storage = Storage(spark)
    place = storage.qualify(path)
    if storage.folders(place) + storage.files(place) and not storage.exists(f"{place}/_delta_log"):
        raise InvalidInput(
            f"{path} exists and is no Delta table; give another output.path, or delete it yourself"
        )
    name = storage.name(place)
    folder = f"{staging}/{name}.ember" if staging else storage.sibling(place, f"{name}.ember")
    return Destination(folder, LakeTable(spark, catalog.quoted(("delta", place)), path, kind))


def _insist_on_catalog(spark: SparkSession, name: str, kind: str) -> None:
    """Raise InvalidConfig, before any work, where Spark has nothing that keeps such tables."""
    if spark.conf.get(f"spark.sql.catalog.{name}", "") or spark.conf.get(_DATABRICKS, ""):
        return
    raise InvalidConfig(
        f"output.format is {kind}, and Spark's catalog {name} keeps no such tables: start Spark "
        f"with the jars of {kind} for its version, spark.sql.extensions and spark.sql.catalog."
        f"{name}"
    )


def _schema_folder(spark: SparkSession, parts: tuple[str, ...]) -> str:
    """Where the catalog keeps the tables of the schema that a table is of."""
    schema = catalog.quoted(parts[:-1])
    try:
        told = spark.sql(f"DESCRIBE NAMESPACE {schema}").collect()
    except AnalysisException as error:
        raise InvalidInput(
            f"there is no schema {'.'.join(parts[:-1])} for output.table ({first_line(error)}); "
            "create it, or give another one"
        ) from None
    location = next((row[1] for row in told if row[0] == "Location"), None)
    if not location:
        raise InvalidConfig(
            f"the catalog {parts[0]} does not say where it keeps tables; set output.staging to a "
            "folder in which rows can be staged and the manifest kept"
        )
    return str(location).rstrip("/")


def _check_apart(
    spark: SparkSession, config: Config, place: Destination, named: Mapping[str, str]
) -> None:
    """Raise InvalidInput where a table that is read would be written, or lies in what would be."""
    storage = Storage(spark)
    read: dict[str, list[str]] = {**files.sources(config), **files.local_files(config)}
    names: dict[str, str] = {}
    for key, name in named.items():
        sources = catalog.sources(catalog.read(spark, name))
        read[f"{key} {name}, which lies in"] = [
            each for source in sources for each in source.locations
        ]
        names |= {source.name.casefold(): key for source in sources if source.name}
    if place.table is None:
        places.check_apart(storage, files.targets(config), read, files.roots(config))
        return
    written = getattr(config, "output").table  # noqa: B009
    if written:
        own = ".".join(catalog.qualified(spark, written)).casefold()
        if own in names:
            raise InvalidInput(
                f"output.table {written} is what {names[own]} reads; what is read must lie apart "
                "from what is written: give another output.table"
            )
    writes = dict(_written(place))
    places.check_apart(storage, writes, read, files.roots(config))


def _written(place: Destination) -> Iterator[tuple[str, str]]:
    yield "output.table", place.path
    if isinstance(place.table, LakeMerge):
        return
    if isinstance(place.table, LakeTable) and (location := place.table.location()):
        yield "output.table itself", location
