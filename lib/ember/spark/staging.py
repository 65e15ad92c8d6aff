"""Staging: how a run's rows become one published table, at whatever moment it is killed.

    .NAME.staging/attempt-RUN-1a2b3c4d/     one run's own folder; its name is never used again
        attempt.json     the run, its process, its mode and settings; written first
        kept/            rows taken over from earlier attempts, complete with _SUCCESS
        new/             rows of this run, a file for each finished task
        merged/          the rows of both, in fewer files, to be published in their place; to any
                         other run they are nothing: it has the rows that they were made of
        record/          the manifest, and pages, of rows that a table's own transaction commits
        shared/          what a run that goes on with this one uses again: blocks, checkpoints
        scratch/         what this run makes on the way
        earlier/         killed attempts that this one goes on with
        discarded/       what is to be deleted; never read
        replaced/        the table that was published before; never read as rows
        placing.json     what is being moved to an object store; see ember.spark.placed_files
        ended            this run is over, and its rows are free for another one

An attempt belongs to its run alone. A later run claims an attempt by one rename into its own
folder, so of two runs only one has it, and a run that lost its own finds no attempt.json where it
left it and publishes nothing. Rows count only where a claimed attempt.json agrees with the
settings of the run that goes on, and never where a manifest says that another attempt published
them: after an exchange `new` is the table that was replaced.

Everything goes through `Files`, so that tests can kill a run at each call.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ember.errors import InvalidInput, OtherSettings
from ember.spark import contents, placed_files
from ember.spark.attempts import ATTEMPT, Attempts
from ember.spark.processes import is_running, this_process
from ember.spark.staged_files import (
    Files,
    manifest_text,
    name_of,
    read_json,
    read_manifest,
    write_manifest,
)

__all__ = ["Staging"]

_log = logging.getLogger(__name__)

Facts = Mapping[str, Any]
# Attempts of this process that failed: on a full or read-only disk, none can leave `ended`.
_failed_here: set[str] = set()


class Staging(Attempts):
    """One run's attempt at the table at `target`.

    Args:
        identity: what the rows depend on; a run that is resumed must agree.
        new: where in the attempt the table grows.
        process: what tells this run's process from others, by default `this_process`.
        running: is the process there that another attempt describes so?
        held: see `Attempts`.
    """

    def __init__(
        self,
        files: Files,
        root: str,
        target: str,
        *,
        run_id: str,
        mode: str,
        identity: Facts,
        new: str = "new",
        process: Facts | None = None,
        running: Callable[[Facts], bool] = is_running,
        held: Callable[[], bool] | None = None,
    ) -> None:
        self._run_id = run_id
        self._mode = mode
        self._identity = dict(identity)
        self._process = this_process() if process is None else process
        self._running = running
        plain = re.sub(r"[^A-Za-z0-9_.=-]", "_", run_id)[:80]
        name = f"attempt-{plain}-{secrets.token_hex(4)}"
        super().__init__(files, root, target, name, new, held=held)
        self._begun = self._over = self._is_merged = False

    @property
    def new(self) -> str:
        return f"{self.folder}/{self._inner}"

    @property
    def record(self) -> str:
        return f"{self.folder}/record"

    @property
    def kept(self) -> str:
        return f"{self.folder}/kept"

    @property
    def merged(self) -> str:
        return f"{self.folder}/merged"

    @property
    def table(self) -> str:
        """The folder that is to become the output."""
        return self.merged if self._is_merged else self.new

    @property
    def rows(self) -> list[str]:
        """The folders of the rows that are to be published, each row in one of them."""
        return [self.merged] if self._is_merged else [self.kept, self.new]

    @property
    def shared(self) -> str:
        return f"{self.folder}/shared"

    @property
    def scratch(self) -> str:
        return f"{self.folder}/scratch"

    # --- before any work ---------------------------------------------------------------------

    def check(self) -> None:
        """Raise InvalidInput when another run is at work here, or cannot be resumed.

        Changes nothing.
        """
        foreign = [
            name_of(each)
            for each in [*self._files.folders(self._root), *self._files.files(self._root)]
            if not ATTEMPT.fullmatch(name_of(each))
        ]
        if foreign:
            raise InvalidInput(
                f"{self._root} holds {foreign[0]}, which this version of Ember did not put there; "
                "runs stage their rows in this folder: look at it and delete it"
            )
        self._refuse_running()
        if self._mode != "resume":
            return
        for folder, told in self._unfinished():
            self._compare(folder, told.get("identity", {}))
        published = read_manifest(self._files, self._target)
        if published is not None and not self._replaces_target():
            self._compare(self._target, published.get("identity", {}))

    def _refuse_running(self) -> None:
        for folder in self._others():
            told = read_json(self._files, f"{folder}/attempt.json") or {}
            over = name_of(folder) in _failed_here or self._files.exists(f"{folder}/ended")
            over = over or self._is_published(folder)
            if not over and self._running(told.get("process", {})):
                raise InvalidInput(
                    f"run {told.get('run_id')} is writing {self._target} right now; wait for it or "
                    "stop it, or give another output.path"
                )

    def _compare(self, place: str, found: Facts) -> None:
        if shown := self.differing(found):
            raise OtherSettings(
                f"the rows at {place} were made with other settings ({shown}); set output.mode to "
                "overwrite, or give another output.path"
            )

    def differing(self, found: Facts) -> str:
        """What of an identity is not this run's, in words; nothing where all is."""
        keys = [*self._identity, *sorted(found.keys() - self._identity.keys())]
        differing = [key for key in keys if found.get(key) != self._identity.get(key)]
        return "; ".join(f"{key} was {found.get(key)}" for key in differing)

    def underway(self) -> set[str]:
        """Files in the place of the output that killed runs have put there, or were to delete."""
        return placed_files.underway(self._files, self._others())

    # --- an attempt --------------------------------------------------------------------------

    @contextmanager
    def run(
        self, recheck: Callable[[], None], worth: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Make room for this attempt; leave no trace of one that fails before it has any row.

        Args:
            recheck: raises InvalidInput when the output may not be written; called once more.
            worth: is what a failed attempt leaves worth keeping? By default, if there is any row.

        Raises:
            InvalidInput: another run has taken over meanwhile, whatever else went wrong.
        """
        worth = worth or self.has_rows
        self._refuse_running()
        self._recover()
        recheck()
        try:
            self._begin(recheck)
            yield
        except BaseException as error:
            _failed_here.add(self.attempt)
            if self._over or not self._begun:
                raise
            lost: str | None = None
            with suppress(Exception):  # what went wrong first is what the user must hear of
                lost = self._lost()
                if lost is None or isinstance(error, InvalidInput):
                    self._give_up(worth)
                elif not self._files.exists(f"{self.folder}/attempt.json"):
                    self.discard()  # what was written since it was claimed
            if lost and isinstance(error, Exception) and not isinstance(error, InvalidInput):
                raise InvalidInput(lost) from error
            raise

    def _begin(self, recheck: Callable[[], None]) -> None:
        # Who goes on with a run that was to overwrite a table is to overwrite it, too.
        replaces = self._mode == "resume" and self._replaces_target()
        facts = {
            "run_id": self._run_id,
            "process": self._process,
            "mode": "overwrite" if replaces else self._mode,
            "identity": self._identity,
        }
        self._files.write_text(f"{self.folder}/attempt.json", json.dumps(facts))
        self._begun = True
        for other in self._others():
            placed_files.settle(self._files, other, self._target)
        # From here on a run that takes over takes this attempt. What it did before is seen now.
        recheck()
        for other in self._others():
            self._claim(other)
        self._files.delete(f"{self.folder}/discarded")
        for each in self._files.folders(f"{self.folder}/earlier"):
            if self._files.exists(f"{each}/shared") and not self._files.exists(self.shared):
                self._files.rename(f"{each}/shared", self.shared)
        # A run that follows its input takes what it needs of all rows, when it knows which.
        if self._mode != "sync" and not (self._mode == "resume" and self.sources()):
            self._files.write_text(f"{self.kept}/_SUCCESS", "")

    def _claim(self, other: str) -> None:
        """Take over an attempt of a run that is over, to resume it or to delete it."""
        told = read_json(self._files, f"{other}/attempt.json")
        usable = told is not None and not self._is_published(other)
        found = (told or {}).get("identity", {})
        use = "discarded"
        if usable and self._mode == "resume":
            self._compare(other, found)
            use = "earlier"
        elif usable and self._mode == "sync" and not self.differing(found):
            use = "earlier"
        elif usable and self._rows_of(other):
            _log.warning("discarding the unpublished rows of an earlier run at %s", other)
        self._files.make_folder(f"{self.folder}/{use}")
        try:
            self._files.rename(other, f"{self.folder}/{use}/{name_of(other)}")
        except OSError:
            if self._files.exists(other):  # else another run was faster, as publishing finds out
                raise

    def _give_up(self, worth: Callable[[], bool]) -> None:
        """End this attempt; what is worth keeping stays for a run that resumes it."""
        kept = worth() or self.earlier() or self._files.exists(f"{self.folder}/{placed_files.NOTE}")
        if self._files.exists(f"{self.folder}/attempt.json") and kept:
            self._files.write_text(f"{self.folder}/ended", "")
        else:
            self.discard()

    def discard(self) -> None:
        """End this attempt with all that it holds."""
        self._over = True
        self._files.delete(self.folder)
        # Never with what is in it: another run may be making room for itself there right now.
        self._files.delete_empty(self._root)

    def trash(self, path: str) -> None:
        """Delete a folder so that a kill never leaves a part of it in its place."""
        if self._files.exists(path):
            self._files.make_folder(f"{self.folder}/discarded")
            gone = f"{self.folder}/discarded/{secrets.token_hex(4)}"
            self._files.rename(path, gone)
            self._files.delete(gone)

    def forget_sources(self) -> None:
        """Delete the attempts that this one resumes: all they held is in `kept` now."""
        self._files.delete(f"{self.folder}/earlier")

    # --- publishing --------------------------------------------------------------------------

    def take_merged(self) -> None:
        """Publish what is in `merged`, all rows of this run, in place of the rows that it is of."""
        self._is_merged = True

    def publish(self, manifest: Facts, recheck: Callable[[], None]) -> None:
        """Put the staged rows and the manifest in the place of the output.

        recheck: raises InvalidInput when the output may not be written; called right before.
        What is left of the attempt is for `discard` to delete.

        Raises:
            InvalidInput: another run has taken over.
        """
        self._check_ours()
        self._files.make_folder(self.table)
        if not self._is_merged:
            for file in self.data_files(self.kept):
                self._files.rename(file, f"{self.new}/{name_of(file)}")
        facts = self._facts(manifest, self.table)
        if self._files.moves_folders(self._target):
            write_manifest(self._files, self.table, facts)
        self._check_ours()
        recheck()
        self._place(self.table, self.folder, facts, still_ours=self._check_ours)
        self._over = True

    def commit(
        self, manifest: Facts, recheck: Callable[[], None], commit: Callable[[], None]
    ) -> None:
        """Have a table's own transaction publish the staged rows; put the record in the target.

        commit: the transaction, which notes the attempt: a run that is killed after it has
        published all the same, and a later one puts its record in place (`complete`).
        recheck: as in `publish`, whose errors this raises.
        """
        self._files.make_folder(self.record)
        facts = self._facts(manifest, self.record)
        write_manifest(self._files, self.record, facts)
        self._check_ours()
        recheck()
        commit()
        self._over = True
        try:
            self._place(self.record, self.folder, facts)
        except Exception as error:
            _log.warning("the rows are published, but not %s: %s", self._target, error)

    def complete(self, attempt: str) -> None:
        """Put the record of an attempt that was killed right after its commit in the target."""
        folder = f"{self._root}/{attempt}"
        told = read_json(self._files, f"{folder}/attempt.json") or {}
        if self._running(told.get("process", {})):
            return
        placed_files.settle(self._files, folder, self._target)
        facts = read_manifest(self._files, f"{folder}/record")
        if facts is not None and not self._is_published(folder):
            self._place(f"{folder}/record", folder, facts)
            self._files.delete(folder)
            self._files.delete_empty(self._root)

    def renew(self, told: Facts, manifest: Facts, replace: Callable[[str, str, str], bool]) -> bool:
        """Have the manifest of the table that is there tell of this run, which changed no row.

        told: what it says so far. replace: puts a text in the place of a file in one step, by way
        of another file; False where that cannot be. So does this, and then nothing is done.

        Raises:
            InvalidInput: another run has taken over.
        """
        kept = {key: told[key] for key in ("attempt", contents.FILES) if key in told}
        facts = {**manifest, "identity": self._identity, **kept}
        self._check_ours()
        text = manifest_text(facts)
        return replace(f"{self._target}/{contents.MANIFEST}", text, f"{self.folder}/manifest")

    def _facts(self, manifest: Facts, folder: str) -> dict[str, Any]:
        """The manifest of what is in `folder`."""
        facts = {**manifest, "attempt": self.attempt, "identity": self._identity}
        return {**facts, contents.FILES: contents.noted(self._files, folder)}

    def _place(
        self,
        made: str,
        attempt: str,
        facts: dict[str, Any],
        still_ours: Callable[[], None] = lambda: None,
    ) -> None:
        """Put a folder with its manifest, which an attempt made, in the place of the target."""
        if self._files.moves_folders(self._target):
            self._put(made, attempt)
        else:
            placed_files.put(self._files, attempt, made, self._target, facts, still_ours=still_ours)

    def _check_ours(self) -> None:
        """Raise InvalidInput where another run has taken over."""
        if lost := self._lost():
            raise InvalidInput(lost)

    def _put(self, made: str, attempt: str) -> None:
        """`made` in the place of the target; a reader finds it whole or, for a moment, none.

        Where the file system can exchange two folders in one step, it finds one of the two.
        attempt: the folder of the attempt that made it.
        """
        aside = f"{attempt}/replaced"
        if not self._files.exists(made):
            raise FileNotFoundError(f"{made} is gone")
        if not self._files.exists(self._target):
            self._files.rename(made, self._target)
        elif self._files.exchange(made, self._target):
            self._files.rename(made, aside)
        else:
            self._files.rename(self._target, aside)
            try:
                self._files.rename(made, self._target)
            except Exception:
                self._files.rename(aside, self._target)
                raise

    def _recover(self) -> None:
        """Put back the table that a killed run had set aside and not replaced."""
        if not self._files.moves_folders(self._target):
            return  # which `placed_files.settle` does there
        if self._files.files(self._target) or self._files.folders(self._target):
            return
        for folder in self._others():
            aside = f"{folder}/replaced"
            if self._files.exists(aside):
                _log.warning("putting back %s, which a killed run had set aside", self._target)
                self._files.delete_empty(self._target)
                self._files.rename(aside, self._target)
                return

    def _lost(self) -> str | None:
        """Why this run may not publish: another run has claimed its attempt, or has begun anew."""
        newer = self._unfinished()
        if self._files.exists(f"{self.folder}/attempt.json") and not newer:
            return None
        by = [str(told.get("run_id")) for _, told in newer]
        if not by:
            by = [str((read_manifest(self._files, self._target) or {}).get("run_id", "another"))]
        return (
            f"run {by[0]} has taken over {self._target} meanwhile; this run published nothing, and "
            "the table there is whole"
        )
