"""The state of the files that a step reads, which tells whether its output is up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from pyspark.sql import SparkSession

from ember.redaction import redact
from ember.settings.config import Config
from ember.settings.files import local_files, sources, tables
from ember.spark import catalog, origins
from ember.spark.storage import Storage

__all__ = ["home", "inputs", "missing"]


def home(storage: Storage, output: str) -> str:
    """The identity of a pipeline: the folder of its own output, as manifests write it.

    Steps of two pipelines may have one name and one output; no two pipelines share that folder.
    """
    return redact(storage.resolve(output))


def inputs(spark: SparkSession, config: Config) -> dict[str, dict[str, Any]]:
    """The state of each input, by key: files, bytes, and a hash that changes when any file does.

    Of a table that is read by its name the version, where it has one, stands for its files.

    A model of the hub, or weights that Keras provides, are no files of the user's: what names them
    is in the configuration.
    """
    storage = Storage(spark)
    found = {**sources(config), **local_files(config)}
    states = {key: _state(storage, paths) for key, paths in found.items()}
    states |= {key: _table_state(spark, name) for key, name in tables(config).items()}
    return dict(sorted(states.items()))


def _table_state(spark: SparkSession, name: str) -> dict[str, Any]:
    table = catalog.read(spark, name)
    told = origins.fingerprint(spark, origins.state(table))
    return {"files": len(origins.files(table)), "bytes": 0, "sha256": told}


def _state(storage: Storage, paths: list[str]) -> dict[str, Any]:
    """How many files there are, of how many bytes, and a hash of their names, sizes and times."""
    digest = hashlib.sha256()
    count = size = 0
    for path in paths:
        for file, length, changed in storage.listing(path):
            digest.update(f"{file}\n{length}\n{changed}\n".encode())
            count, size = count + 1, size + length
    return {"files": count, "bytes": size, "sha256": digest.hexdigest()}


def missing(storage: Storage, config: Config) -> Iterator[tuple[str, str]]:
    """Keys and paths at which there is nothing to read."""
    for key, paths in sources(config).items():
        yield from ((key, path) for path in paths if not storage.matches(path))
