"""The folder of a kept index: what its manifest says, and which files are whose.

    _manifest.json       what the index is made of, and which files it has; written last
    made-RUN-1a2b3c4d/   what one run has made, under names that no other run uses
        added/           blocks of rows that are new
        rest/            what is left of blocks in which rows are gone
        order/           the order of the ids of all blocks
        rejected/        the rows that cannot be compared

Files that the manifest and the one before it do not name go when the next one is written, unless
the run that makes them is still at work. So who still searches by the one before finds its files.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import StructField, StructType

from ember.comparison import vector_store
from ember.comparison.index_files import Index, IndexBlock
from ember.errors import InvalidInput
from ember.spark import classic, contents
from ember.spark.contents import MANIFEST
from ember.spark.processes import is_running, this_process
from ember.spark.staged_files import name_of, read_json
from ember.spark.storage import Storage

__all__ = ["IndexFolder", "Kept"]

_HOLDS = "index"
_MADE = re.compile(r"made-.*-[0-9a-f]{8}")
_BEGUN = "_begun.json"  # of a folder: the process that makes it, and since when
_LONGEST_RUN = 24 * 3600.0  # in seconds; of runs of other machines
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """An index, and what decides whether it serves a table.

    made_of: what it depends on beside the files of the table. stamps: of these files. laid_out:
    how many rows, in how many blocks, it had when it was made as a whole, and its basis fitted.
    """

    index: Index
    made_of: Mapping[str, Any]
    stamps: Mapping[str, Any]
    laid_out: tuple[int, int]


class IndexFolder:
    """The index at `path`. kept: None where there is none.

    Raises InvalidInput for a path at which there is something else.
    """

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._spark, self._storage = spark, Storage(spark)
        self.path = self._storage.resolve(path)
        self._note = read_json(self._storage, f"{self.path}/{MANIFEST}") or {}
        self._refuse_stranger()
        self.kept = self._read() if self._note else None
        self._own: str | None = None  # what this run has made, as long as no manifest names it

    def _refuse_stranger(self) -> None:
        if self._note.get("holds") == _HOLDS:
            return
        found = map(name_of, self._storage.files(self.path) + self._storage.folders(self.path))
        # A manifest of which a part was written tells nothing, and is written again.
        half = {MANIFEST} if not self._note else set()
        if others := [name for name in found if not _MADE.fullmatch(name) and name not in half]:
            raise InvalidInput(
                f"index.path: {self.path} has {others[0]} in it and is no index that Ember wrote; "
                "give another folder"
            )

    def altered(self) -> str | None:
        """A file of the index that is gone, or is not as it was written, if any is."""
        there = dict(self._storage.below(self.path))
        named: dict[str, int] = self._note.get(contents.FILES, {})
        return next((name for name, size in named.items() if there.get(name) != size), None)

    def begin(self, run_id: str) -> str:
        """A new folder for what a run makes."""
        plain = re.sub(r"[^A-Za-z0-9_.=-]", "_", run_id)[:80]
        self._own = folder = f"{self.path}/made-{plain}-{secrets.token_hex(4)}"
        self._storage.make_folder(folder)
        begun = {**this_process(), "at": time.time()}
        self._storage.write_text(f"{folder}/{_BEGUN}", json.dumps(begun))
        return folder

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have nodes fetch files of the index until the block ends, and no longer.

        Then what this run has made, and not published, goes. The links under which files are sent
        stay as long as their files: another run may send by them, too.
        """
        with classic.files_lent(self._spark, self.path):
            try:
                yield
            finally:
                if self._own:
                    self._storage.delete(self._own)

    def publish(self, kept: Kept, run_id: str) -> None:
        """Write the manifest, and delete what nobody needs any more.

        Where another run has written one meanwhile, that stays, with a warning.
        """
        last = read_json(self._storage, f"{self.path}/{MANIFEST}") or {}
        if last.get("name") != self._note.get("name"):
            _log.warning("%s has been changed by another run, and stays as it is", self.path)
            return
        note = self._written(kept, run_id)
        text, target = json.dumps(note, ensure_ascii=False) + "\n", f"{self.path}/{MANIFEST}"
        aside, self._own = f"{self._own}/{MANIFEST}", None
        if not self._storage.replace_text(target, text, aside):
            self._storage.write_text(target, text)
        try:
            self._clean_up({*note[contents.FILES], *last.get(contents.FILES, {})})
        except Exception as error:  # the index is there all the same
            _log.warning("old files of the index %s remain: %s", self.path, error)

    def _written(self, kept: Kept, run_id: str) -> dict[str, Any]:
        """The manifest; files by where they lie in the index, which may be moved."""
        index, start = kept.index, f"{self.path}/"
        written = {
            "blocks": [asdict(b) | {"file": b.file.removeprefix(start)} for b in index.blocks],
            "order": [file.removeprefix(start) for file in index.order],
            "bad": index.bad and index.bad.removeprefix(start),
        }
        there = dict(self._storage.below(self.path))
        files = {file.removeprefix(start) for file in index.files()}
        files |= {name for name in there if index.bad and name.startswith(f"{written['bad']}/part")}
        return {
            "job": "search",
            "run_id": run_id,
            "holds": _HOLDS,
            "made_of": kept.made_of,
            "stamps": kept.stamps,
            "laid_out": kept.laid_out,
            "name": index.name,
            **written,
            "basis": base64.b64encode(index.basis).decode("ascii"),
            "dimension": index.dimension,
            "kind": index.kind,
            "id_type": StructType([StructField("id", index.id_type)]).jsonValue(),
            "rejected": index.rejected,
            contents.FILES: {name: there[name] for name in sorted(files)},
        }

    def _read(self) -> Kept:
        note, start = self._note, f"{self.path}/"
        blocks = [IndexBlock(**{**each, "file": start + each["file"]}) for each in note["blocks"]]
        index = Index(
            name=note["name"],
            blocks=tuple(blocks),
            order=tuple(start + file for file in note["order"]),
            basis=base64.b64decode(note["basis"]),
            dimension=note["dimension"],
            kind=note["kind"],
            id_type=StructType.fromJson(note["id_type"])["id"].dataType,
            local=vector_store.seen_by_tasks(self._spark, self.path),
            rejected=note["rejected"],
            bad=note["bad"] and start + note["bad"],
        )
        rows, pieces = note["laid_out"]
        return Kept(index, note["made_of"], note["stamps"], (rows, pieces))

    def _clean_up(self, named: set[str]) -> None:
        """Delete files that are not named, and the links to them; of runs at work none."""
        for folder in self._storage.folders(self.path):
            begun = read_json(self._storage, f"{folder}/{_BEGUN}") or {}
            inside = {name for name in named if name.startswith(f"{name_of(folder)}/")}
            if not inside and _MADE.fullmatch(name_of(folder)) and not _at_work(begun):
                self._storage.delete(folder)
            for name, _ in list(self._storage.below(folder)) if inside else ():
                whole = f"{name_of(folder)}/{vector_store.unsent(name)}"
                if whole not in inside and name != _BEGUN:
                    self._storage.delete(f"{folder}/{name}")


def _at_work(begun: Mapping[str, Any]) -> bool:
    """May the process that has begun a folder be there? Of another machine nobody knows."""
    elsewhere = begun.get("host", this_process()["host"]) != this_process()["host"]
    recent: bool = time.time() - begun.get("at", 0.0) < _LONGEST_RUN
    return recent if elsewhere else is_running(begun)
