"""What a run reads and writes, named as OpenLineage names data sets, with schemas and row counts.

Names are by https://openlineage.io/docs/spec/naming, as those of Spark's own integration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from ember.errors import InvalidInput
from ember.redaction import HIDDEN, redact
from ember.settings import files
from ember.settings.config import Config
from ember.spark import catalog, tables
from ember.spark.contents import FILES
from ember.spark.destinations import Destination
from ember.spark.file_table import FileTable
from ember.spark.paths import literal
from ember.spark.staged_files import read_manifest
from ember.spark.storage import Storage

__all__ = ["Dataset", "Numbers", "read", "written"]

# Object stores, whose keys begin with no slash.
_STORES = {"s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs"}
_GLOB = re.compile(r"/[^/]*[*?{\[].*$")


@dataclass(frozen=True)
class Numbers:
    """Rows, bytes and files that were written; None of what is not known."""

    rows: int | None
    bytes: int | None
    files: int | None


@dataclass(frozen=True)
class Dataset:
    """A table or folder.

    Attributes:
        namespace, name: as OpenLineage names it, by where it lies.
        table: its name in Spark's catalogs, and the catalog; None without.
        version: of a Delta or Iceberg table.
        schema: names and types of its columns; None where it is no table, or was not looked at.
        numbers: what was written of it.
    """

    namespace: str
    name: str
    table: tuple[str, str] | None = None
    version: str | None = None
    schema: tuple[tuple[str, str], ...] | None = None
    numbers: Numbers | None = None


def read(spark: SparkSession, config: Config, *, looked_at: bool) -> Iterator[Dataset]:
    """The tables and folders that a job reads. looked_at: with their schemas, which takes time."""
    storage = Storage(spark)
    for paths in files.sources(config).values():
        for path in paths:
            schema = _schema(spark, path) if looked_at else None
            yield Dataset(*_named(storage, path), schema=schema)
    for name in files.tables(config).values():
        yield from _named_table(spark, storage, name, looked_at=looked_at)


def _named_table(
    spark: SparkSession, storage: Storage, name: str, *, looked_at: bool
) -> Iterator[Dataset]:
    with suppress(InvalidInput):  # there is none, of which the run will tell
        rows, known = catalog.read(spark, name), _symlink(spark, name)
        found = next(iter(catalog.sources(rows)), None)
        place = found.locations[0] if found and found.locations else None
        told = _named(storage, place) if place else known
        schema = _columns(rows) if looked_at else None
        yield Dataset(*told, known, found.version if found else None, schema)


def written(
    spark: SparkSession, config: Config, place: Destination, *, looked_at: bool
) -> Iterator[Dataset]:
    """What a job writes. looked_at: it is there, and its schema and rows are to be told."""
    storage = Storage(spark)
    if place.table:
        yield _table(spark, config, place, looked_at=looked_at)
    for key, path in files.targets(config).items():
        if key != "output.path" or not place.table:
            yield from _folder(spark, storage, path, looked_at=looked_at)


def _table(spark: SparkSession, config: Config, place: Destination, *, looked_at: bool) -> Dataset:
    output: Any = getattr(config, "output")  # noqa: B009  # all jobs have it
    name = output.table or getattr(output, "merge_into", None) or output.path
    storage = Storage(spark)
    where = place.path if isinstance(place.table, FileTable) else _location(place)
    known = None if name == output.path else _symlink(spark, name)
    told = _named(storage, where or name) if where or not known else known
    if not looked_at or place.table is None:
        return Dataset(*told, known)
    manifest = read_manifest(storage, place.path) or {}
    rows = spark.table(name) if known else spark.read.format("delta").load(name)
    return Dataset(*told, known, schema=_columns(rows), numbers=_numbers(manifest))


def _location(place: Destination) -> str | None:
    with suppress(Exception):  # of a table that is yet to be made
        return place.table.location() if place.table else None
    return None


def _folder(
    spark: SparkSession, storage: Storage, path: str, *, looked_at: bool
) -> Iterator[Dataset]:
    """The folder itself, and once they are there the tables that it holds."""
    named = _named(storage, path)
    manifest = (read_manifest(storage, path) or {}) if looked_at else {}
    parts = [name for name in manifest.get(FILES, ()) if name.endswith(".parquet")]
    if any("/" not in name for name in parts):
        yield Dataset(*named, schema=_schema(spark, literal(path)), numbers=_numbers(manifest))
        return
    yield Dataset(*named)
    for name in sorted({part.partition("/")[0] for part in parts}):
        rows = spark.read.parquet(literal(f"{path}/{name}"))
        numbers = Numbers(rows.count(), None, None)
        here = _named(storage, f"{path}/{name}")
        yield Dataset(*here, schema=_columns(rows), numbers=numbers)


def _numbers(manifest: Mapping[str, Any]) -> Numbers:
    sizes = [size for name, size in manifest.get(FILES, {}).items() if name.endswith(".parquet")]
    rows = manifest.get("counts", {}).get("rows")
    return Numbers(rows, sum(sizes) or None, len(sizes) or None)


def _schema(spark: SparkSession, path: str) -> tuple[tuple[str, str], ...] | None:
    with suppress(Exception):  # a model, or an index
        return _columns(tables.read(spark, path))
    return None


def _columns(rows: DataFrame) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.dataType.simpleString()) for field in rows.schema)


def _symlink(spark: SparkSession, name: str) -> tuple[str, str]:
    """The catalog that a table is in, and its name there."""
    first, *rest = catalog.qualified(spark, name)
    return first, ".".join(rest)


def _named(storage: Storage, path: str) -> tuple[str, str]:
    """Namespace and name of what lies at a path; of a glob, of the folder that it begins with."""
    uri = _GLOB.sub("", path) or "/"
    with suppress(Exception):  # of a file system that Spark lacks, of which the run will tell
        uri = storage.qualify(uri)
    uri = redact(uri).replace(f"{HIDDEN}@", "")
    scheme, _, rest = uri.partition(":")
    if not rest.startswith("//") or rest.startswith("///"):
        return scheme, "/" + rest.lstrip("/")
    host, _, key = rest.removeprefix("//").partition("/")
    if scheme in _STORES:
        return f"{_STORES[scheme]}://{host}", key or "/"
    return f"{scheme}://{host}", f"/{key}"
