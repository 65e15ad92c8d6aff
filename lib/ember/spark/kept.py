"""Tables that a run keeps within its output, for the run that brings the output up to date.

They are in `_sync/NAME`, in folders that readers of Parquet skip, and are published with the rows:
what is kept always tells of the rows beside it. Which files are theirs the manifest says, so that
in an object store the rest of a killed run is not taken for a part of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame

from ember.errors import InvalidConfig
from ember.spark.checkpoints import stored
from ember.spark.contents import FILES
from ember.spark.identity import within
from ember.spark.paths import literal
from ember.spark.publish import Output, read_manifest

__all__ = ["Kept", "without"]

_FOLDER = "_sync"
_FORMAT = 1
_KEY = "sync"  # of the manifest
_SHOWN = 3
_log = logging.getLogger(__name__)


class Kept:
    """What the run before kept in an output, and what this one keeps.

    made_of: what the kept tables depend on besides the rows of the input, as JSON values. They are
        of no use to a run with another.
    scratch: a folder for what is made on the way.

    Raises InvalidConfig for an output that has no folder for it.
    """

    def __init__(self, output: Output, made_of: Mapping[str, Any]) -> None:
        if not output.is_folder:
            raise InvalidConfig(
                "output.mode sync keeps what it needs in the folder of the output, and a table of "
                "Delta or Iceberg has none; set output.format to parquet, or output.mode to "
                "overwrite"
            )
        self._output, self._storage = output, output.storage
        self._spark = output.spark
        self._made_of = json.loads(json.dumps({**made_of, "format": _FORMAT}, sort_keys=True))
        self._manifest = read_manifest(self._storage, output.path) or {}
        self._tables: dict[str, str] = {}
        self.scratch = output.scratch

    @property
    def told(self) -> dict[str, Any]:
        """What the manifest of the run before says under `sync`."""
        found: dict[str, Any] = self._manifest.get(_KEY, {})
        return found

    @property
    def is_first(self) -> bool:
        """Is there no output yet?"""
        return not self._manifest

    def obstacle(self) -> str | None:
        """Why what the run before kept is of no use; None where it can be taken up."""
        if self.is_first:
            return "there is no output yet"
        if _KEY not in self._manifest:
            return "the run before kept nothing, since its output.mode was not sync"
        was = self.told.get("made_of", {})
        changed = [
            f"{key} is {self._made_of.get(key)} and was {was.get(key)}"
            for key in sorted(was.keys() | self._made_of.keys())
            if was.get(key) != self._made_of.get(key)
        ]
        if changed:
            return "; ".join(changed[:_SHOWN])
        there = dict(self._storage.below(self._output.path))
        for name, size in self._manifest.get(FILES, {}).items():
            if name.endswith(".parquet") and there.get(name) != size:
                return f"{name} is not what the run before wrote"
        return None

    def log(self, told: str, whole: str) -> None:
        """Say that everything is done, and why; only where there is no output is it expected."""
        level = logging.INFO if self.is_first else logging.WARNING
        _log.log(level, "%s, because %s", told, whole)

    def rows(self) -> DataFrame:
        """The rows that are published."""
        return self._read("")

    def table(self, name: str) -> DataFrame:
        """A table that the run before kept under this name."""
        return self._read(f"{_FOLDER}/{name}/")

    def _read(self, folder: str) -> DataFrame:
        names = [
            name
            for name in self._manifest.get(FILES, {})
            if name.startswith(folder) and name.endswith(".parquet")
            if "/" not in name[len(folder) :]
        ]
        return self._spark.read.parquet(*(literal(f"{self._output.path}/{name}") for name in names))

    def made(self, table: DataFrame, name: str) -> DataFrame:
        """A table written, to be kept under this name once `put` has been called."""
        self.take(name, f"{self.scratch}/{_FOLDER}/{name}")
        return stored(table, self._tables[name])

    def take(self, name: str, folder: str) -> None:
        """Have a table that is written already, and that no later attempt reads, kept."""
        self._tables[name] = folder

    def put(self, whole: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Stage the tables with the rows, which lie where they are published from.

        Returns for the manifest what the next run must know and what this one did. whole: why that
        was everything; None where it was what changed. facts: what else there is to say.
        """
        self._storage.make_folder(f"{self._output.folder}/{_FOLDER}")
        for name, folder in self._tables.items():
            self._storage.rename(folder, f"{self._output.folder}/{_FOLDER}/{name}")
        how = {"compared": "what changed"}
        if whole is not None:
            how = {"compared": "everything", "because": whole}
        return {_KEY: {**how, **facts, "made_of": self._made_of}}


def without(identity: Mapping[str, Any], seen: Mapping[str, str]) -> dict[str, Any]:
    """The facts of an identity but for those keys and sections that `seen` has, with reasons."""
    return {key: value for key, value in identity.items() if not within(key, seen)}
