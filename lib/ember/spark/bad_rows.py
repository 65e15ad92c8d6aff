"""Rows that cannot be used, which a run keeps in tables beside its output.

NAME.failures    rows that failed, with their reasons
NAME.rejected    rows without a usable vector; where several tables are read, a folder for each
"""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import uuid4

from pyspark.sql import DataFrame

from ember.errors import InvalidInput
from ember.redaction import redact
from ember.spark import contents, places
from ember.spark.contents import MANIFEST
from ember.spark.staged_files import name_of, read_manifest
from ember.spark.staging import Staging
from ember.spark.storage import Storage

__all__ = ["BadRows"]

# What the manifest of such a table says that it is.
_HOLDS = "rows that could not be used"


class BadRows:
    """The tables of bad rows of one run's output at `path`.

    job, run_id: for their manifests.
    """

    def __init__(
        self, storage: Storage, staging: Staging, path: str, *, job: str | None, run_id: str
    ) -> None:
        self._storage = storage
        self._staging = staging
        self._facts = {"job": job, "run_id": run_id, "of": redact(path)}
        beside = dict(places.beside(storage, "output.path", path))
        self.failures = beside["the failed rows of output.path"]
        self.rejected = beside["the rejected rows of output.path"]
        # Of which tables this run keeps rejected rows; None where it looks for none.
        self._sides: set[str] | None = None

    def check(self) -> None:
        """Raise InvalidInput where something that is not Ember's is in their places."""
        for folder in (self.failures, self.rejected):
            self._check(folder)

    def keep(self, table: DataFrame, folder: str) -> None:
        """Write bad rows to `folder`, which is `failures`, `rejected` or a side of it."""
        staged = f"{self._staging.scratch}/{uuid4().hex}"
        table.write.parquet(staged)
        named = {contents.FILES: contents.noted(self._storage, staged)}
        note = json.dumps({**self._facts, "holds": _HOLDS, **named})
        self._storage.write_text(f"{staged}/{MANIFEST}", note)
        self._check(folder)
        self._staging.trash(folder)
        self._storage.make_folder(self._storage.sibling(folder, ""))
        self._storage.rename(staged, folder)

    def reject(self, bad: Callable[[], DataFrame], rejected: int, side: str) -> str:
        """Keep the rejected rows of a table, where there are any; the folder for them.

        side: which of several tables it is; "" for the only one. See `Output.refuse_rejected`.
        """
        self._sides = self._sides or set()
        folder = f"{self.rejected}/{side}" if side else self.rejected
        if rejected:
            self._sides.add(side)
            self.keep(bad(), folder)
        return folder

    def clean_up(self) -> None:
        """Delete those of earlier runs, once the output has been published without such rows."""
        if not self._stranger(self.failures):
            self._staging.trash(self.failures)
        if self._sides is not None and not self._stranger(self.rejected):
            for folder in self._storage.folders(self.rejected) if self._sides else [self.rejected]:
                if name_of(folder) not in self._sides:
                    self._staging.trash(folder)

    def _check(self, folder: str) -> None:
        if stranger := self._stranger(folder):
            raise InvalidInput(
                f"{stranger} exists and was not written by Ember, which keeps the rows that it "
                "cannot use there; move it away, or give another output.path"
            )

    def _stranger(self, folder: str) -> str | None:
        """What Ember has not written at or in a table of bad rows, or folder of one for each side.

        None where all is Ember's, or nothing is there.
        """
        sides = self._storage.folders(folder)
        if sides and not self._storage.files(folder):
            return next(filter(None, map(self._stranger, sides)), None)
        manifest = read_manifest(self._storage, folder) or {}
        if manifest.get("holds") != _HOLDS:
            return folder if self._storage.exists(folder) else None
        other = contents.foreign(self._storage, folder, manifest)
        return f"{folder}/{other}" if other else None
