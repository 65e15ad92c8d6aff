"""Staging: how a run's rows become one published table, at whatever moment it is killed.

    .NAME.staging/attempt-RUN-1a2b3c4d/     one run's own folder; its name is never used again
        attempt.json     the run, its process, its mode and settings; written first
        kept/            rows taken over from earlier attempts, complete with _SUCCESS
        new/             rows of this run, a file for each finished task
        shared/          what a run that goes on with this one uses again: blocks, checkpoints
        scratch/         what this run makes on the way
        earlier/         killed attempts that this one goes on with
        discarded/       what is to be deleted; never read
        replaced/        the table that was published before; never read as rows
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
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ember.errors import InvalidInput, OtherSettings
from ember.spark import contents
from ember.spark.contents import MANIFEST

__all__ = ["MANIFEST", "Files", "Staging", "read_json", "read_manifest", "this_process"]

_ATTEMPT = re.compile(r"attempt-.*-[0-9a-f]{8}")
_log = logging.getLogger(__name__)

Facts = Mapping[str, Any]


class Files(Protocol):
    """What staging asks of a file system; see `ember.spark.storage.Storage`."""

    def exists(self, path: str) -> bool: ...
    def name(self, path: str) -> str: ...
    def files(self, folder: str) -> list[str]: ...
    def folders(self, folder: str) -> list[str]: ...
    def below(self, folder: str) -> Iterator[tuple[str, int]]: ...
    def make_folder(self, path: str) -> None: ...
    def delete(self, path: str) -> None: ...
    def delete_empty(self, folder: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def exchange(self, one: str, other: str) -> bool: ...
    def read_text(self, path: str) -> str: ...
    def write_text(self, path: str, text: str) -> None: ...


def read_json(files: Files, file: str) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is none, or only a part of one."""
    if not files.exists(file):
        return None
    try:
        found = json.loads(files.read_text(file))
    except Exception:  # written in part, or gone meanwhile: each file system has its own error
        return None
    return found if isinstance(found, dict) else None


def read_manifest(files: Files, folder: str) -> dict[str, Any] | None:
    """What a run left beside the output at `folder`; None where there is nothing of the kind."""
    return read_json(files, f"{folder}/{MANIFEST}")


def this_process() -> dict[str, Any]:
    """What tells this process from all others: machine, number, and when it started."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}


def _is_running(process: Facts) -> bool:
    """Is this a process of this machine that is still there? False for other machines' ones.

    Of those nobody can tell from here. A run that is taken for dead and is not finds out before it
    publishes.
    """
    pid = process.get("pid")
    if process.get("host") != _host() or not isinstance(pid, int):
        return False
    started = _started(pid)
    return started is not None and started == process.get("started")


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".strip()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None for one that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


class Staging:
    """One run's attempt at the table at `target`.

    identity: what the rows depend on; a run that is resumed must agree. new: where in the attempt
    the table grows. process: what tells this run's process from others, by default `this_process`.
    running: is the process there that another attempt describes so?
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
        running: Callable[[Facts], bool] = _is_running,
    ) -> None:
        self._files = files
        self._root = root
        self._target = target
        self._run_id = run_id
        self._mode = mode
        self._identity = dict(identity)
        self._process = this_process() if process is None else process
        self._running = running
        self._inner = new
        plain = re.sub(r"[^A-Za-z0-9_.=-]", "_", run_id)[:80]
        self.attempt = f"attempt-{plain}-{secrets.token_hex(4)}"
        self.folder = f"{root}/{self.attempt}"
        self._begun = self._over = False

    @property
    def new(self) -> str:
        return f"{self.folder}/{self._inner}"

    @property
    def kept(self) -> str:
        return f"{self.folder}/kept"

    @property
    def shared(self) -> str:
        return f"{self.folder}/shared"

    @property
    def scratch(self) -> str:
        return f"{self.folder}/scratch"

    # --- before any work ---------------------------------------------------------------------

    def check(self) -> None:
        """Raise InvalidInput when another run is at work here, or cannot be gone on with.

        Changes nothing.
        """
        foreign = [
            self._files.name(each)
            for each in [*self._files.folders(self._root), *self._files.files(self._root)]
            if not _ATTEMPT.fullmatch(self._files.name(each))
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
            over = self._files.exists(f"{folder}/ended") or self._is_published(folder)
            if not over and self._running(told.get("process", {})):
                raise InvalidInput(
                    f"run {told.get('run_id')} is writing {self._target} right now; wait for it or "
                    "stop it, or give another output.path"
                )

    def _compare(self, place: str, found: Facts) -> None:
        differing = [
            key
            for key in [*self._identity, *(found.keys() - self._identity.keys())]
            if found.get(key) != self._identity.get(key)
        ]
        if differing:
            shown = "; ".join(f"{key} was {found.get(key)}" for key in differing)
            raise OtherSettings(
                f"the rows at {place} were made with other settings ({shown}); set output.mode to "
                "overwrite, or give another output.path"
            )

    # --- an attempt --------------------------------------------------------------------------

    @contextmanager
    def run(
        self, recheck: Callable[[], None], worth: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Make room for this attempt; leave no trace of one that fails before it has any row.

        recheck: raises InvalidInput when the output may not be written; called once more.
        worth: is what a failed attempt leaves worth keeping? By default, if there is any row.
        Raises InvalidInput, whatever went wrong, when another run has taken over meanwhile.
        """
        worth = worth or self.has_rows
        self._refuse_running()
        self._recover()
        recheck()
        try:
            self._begin(recheck)
            yield
        except BaseException as error:
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
        # From here on a run that takes over takes this attempt. What it did before is seen now.
        recheck()
        for other in self._others():
            self._claim(other)
        self._files.delete(f"{self.folder}/discarded")
        for each in self._files.folders(f"{self.folder}/earlier"):
            if self._files.exists(f"{each}/shared") and not self._files.exists(self.shared):
                self._files.rename(f"{each}/shared", self.shared)
        if not (self._mode == "resume" and self.sources()):
            self._files.write_text(f"{self.kept}/_SUCCESS", "")

    def _claim(self, other: str) -> None:
        """Take an attempt of a run that is over: to go on with, or to delete."""
        told = read_json(self._files, f"{other}/attempt.json")
        usable = told is not None and not self._is_published(other)
        use = "discarded"
        if usable and self._mode == "resume":
            self._compare(other, (told or {}).get("identity", {}))
            use = "earlier"
        elif usable and self._rows_of(other):
            _log.warning("discarding the unpublished rows of an earlier run at %s", other)
        self._files.make_folder(f"{self.folder}/{use}")
        try:
            self._files.rename(other, f"{self.folder}/{use}/{self._files.name(other)}")
        except OSError:
            if self._files.exists(other):  # else another run was faster, as publishing finds out
                raise

    def _give_up(self, worth: Callable[[], bool]) -> None:
        """End this attempt; what is worth it stays for a run that goes on with it."""
        if self._files.exists(f"{self.folder}/attempt.json") and (worth() or self.earlier()):
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

    # --- rows that are there already ---------------------------------------------------------

    def earlier(self) -> list[str]:
        """The folders of the attempts that this one goes on with, nested ones included."""
        found: list[str] = []
        below = [self.folder]
        while below:
            inner = self._files.folders(f"{below.pop()}/earlier")
            found += inner
            below += inner
        return found

    def sources(self) -> list[str]:
        """The folders that hold the rows done before this attempt, each row in one of them."""
        claimed = self._files.folders(f"{self.folder}/earlier")
        folders = [each for attempt in claimed for each in self._rows_of(attempt)]
        if not any(self._is_complete(attempt) for attempt in claimed):
            folders += [self._target] if self.has_data(self._target) else []
        return folders

    def forget_sources(self) -> None:
        """Delete the attempts that this one goes on with: all they held is in `kept` now."""
        self._files.delete(f"{self.folder}/earlier")

    def has_rows(self) -> bool:
        """Does this attempt hold any row?"""
        return bool(self._rows_of(self.folder))

    def has_data(self, folder: str) -> bool:
        """Are there data files right in `folder`?"""
        return bool(self.data_files(folder))

    def data_files(self, folder: str) -> list[str]:
        """The files right in `folder` that hold rows."""
        named = ((self._files.name(file), file) for file in self._files.files(folder))
        return [file for name, file in named if not name.startswith(("_", "."))]

    def _rows_of(self, folder: str) -> list[str]:
        """The folders that hold the rows of an attempt, each row in one of them."""
        new = self.own_new(folder)
        found = [new] if new and self.has_data(new) else []
        if self._files.exists(f"{folder}/kept/_SUCCESS"):
            kept = f"{folder}/kept"
            return found + ([kept] if self.has_data(kept) else [])
        for each in self._files.folders(f"{folder}/earlier"):
            found += self._rows_of(each)
        return found

    def own_new(self, attempt: str) -> str | None:
        """The folder of an attempt's own rows; None where it holds the table that was replaced."""
        new = f"{attempt}/{self._inner}"
        manifest = read_manifest(self._files, new)
        own = manifest is None or manifest.get("attempt") == self._files.name(attempt)
        return new if own else None

    def _is_complete(self, folder: str) -> bool:
        """Does an attempt hold all rows that were done before it?"""
        if self._files.exists(f"{folder}/kept/_SUCCESS"):
            return True
        return any(self._is_complete(each) for each in self._files.folders(f"{folder}/earlier"))

    def _replaces_target(self) -> bool:
        """Is there a killed attempt, to be gone on with, that was to overwrite what is there?"""
        return any(
            told.get("mode") == "overwrite" and self._is_complete(folder)
            for folder, told in self._unfinished()
        )

    def is_finished(self) -> bool:
        """Is there a published table, whole, and no attempt of a killed run that was to replace it?

        One with a file gone, or written over, is not, and a log line says which.
        """
        published = read_manifest(self._files, self._target)
        if published is None or self._unfinished():
            return False
        gone = contents.lacking(self._files, self._target, published)
        gone = gone or contents.altered(self._files, self._target, published)
        if gone:
            _log.warning("%s lacks %s as it was, and is made again", self._target, gone)
        return gone is None

    def _unfinished(self) -> list[tuple[str, dict[str, Any]]]:
        """Attempts of other runs that can be gone on with, and what their attempt.json says."""
        told = [(each, read_json(self._files, f"{each}/attempt.json")) for each in self._others()]
        return [
            (each, facts)
            for each, facts in told
            if facts is not None and not self._is_published(each)
        ]

    def _is_published(self, folder: str) -> bool:
        """Is what this attempt made the table that is published?"""
        manifest = read_manifest(self._files, self._target)
        return manifest is not None and manifest.get("attempt") == self._files.name(folder)

    def _others(self) -> list[str]:
        folders = self._files.folders(self._root)
        named = ((self._files.name(each), each) for each in folders)
        return [each for name, each in named if _ATTEMPT.fullmatch(name) and name != self.attempt]

    # --- publishing --------------------------------------------------------------------------

    def publish(self, manifest: Facts, recheck: Callable[[], None]) -> None:
        """Put the staged rows and the manifest in the place of the output.

        recheck: raises InvalidInput when the output may not be written; called right before.
        What is left of the attempt is for `discard` to delete.
        Raises InvalidInput when another run has taken over.
        """
        if lost := self._lost():
            raise InvalidInput(lost)
        self._files.make_folder(self.new)
        for file in self.data_files(self.kept):
            self._files.rename(file, f"{self.new}/{self._files.name(file)}")
        facts = {**manifest, "attempt": self.attempt, "identity": self._identity}
        facts[contents.FILES] = contents.noted(self._files, self.new)
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        self._files.write_text(f"{self.new}/{MANIFEST}", text + "\n")
        if lost := self._lost():
            raise InvalidInput(lost)
        recheck()
        self._put()
        self._over = True

    def _put(self) -> None:
        """`new` in the place of the target, of which a reader finds all or, for a moment, nothing.

        Where the file system can exchange two folders in one step, it finds one of the two.
        """
        aside = f"{self.folder}/replaced"
        if not self._files.exists(self.new):
            raise FileNotFoundError(f"{self.new} is gone")
        if not self._files.exists(self._target):
            self._files.rename(self.new, self._target)
        elif self._files.exchange(self.new, self._target):
            self._files.rename(self.new, aside)
        else:
            self._files.rename(self._target, aside)
            try:
                self._files.rename(self.new, self._target)
            except Exception:
                self._files.rename(aside, self._target)
                raise

    def _recover(self) -> None:
        """Put back the table that a killed run had set aside and not replaced."""
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
        """Why this run may not publish: another one has claimed its attempt, or begun anew."""
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
