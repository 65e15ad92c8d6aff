"""A small world to stage tables in: a file system that stops at every call, runs that are killed.

`Disk` does on this machine what `ember.spark.storage.Storage` does through Java. Runs are threads
of which one at a time goes on, from one call of the file system to the next, so that a test decides
who does what when, and a kill leaves the folder as a killed process would.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.spark.staged_files import read_manifest
from ember.spark.staging import Staging
from ember.spark.storage import _RENAME_EXCHANGE, _RENAME_NOREPLACE, _renameat2

IDS = ["a", "b", "c"]


class Killed(BaseException):
    """The process is gone: whatever it would still do does not happen."""


class Disk:
    """Local folders. gate: called before each step that a kill can come before.

    moves: does a folder move in one step? As an object store, it copies a file and then deletes it,
    and writes one in one step.
    """

    def __init__(
        self,
        gate: Callable[[], None] = lambda: None,
        *,
        exchanges: bool = True,
        moves: bool = True,
    ) -> None:
        self._gate = gate
        self._exchanges = exchanges
        self._moves = moves

    def exists(self, path: str) -> bool:
        self._gate()
        return Path(path).exists()

    def files(self, folder: str) -> list[str]:
        return self._list(folder, Path.is_file)

    def folders(self, folder: str) -> list[str]:
        return self._list(folder, Path.is_dir)

    def below(self, folder: str) -> Iterator[tuple[str, int]]:
        self._gate()
        for each in sorted(Path(folder).rglob("*")):
            if each.is_file():
                yield str(each.relative_to(folder)), each.stat().st_size

    def _list(self, folder: str, kind: Callable[[Path], bool]) -> list[str]:
        self._gate()
        place = Path(folder)
        return sorted(map(str, filter(kind, place.iterdir()))) if place.is_dir() else []

    def make_folder(self, path: str) -> None:
        self._gate()
        Path(path).mkdir(parents=True, exist_ok=True)

    def delete(self, path: str) -> None:
        """File by file, with room for a kill before each."""
        place = Path(path)
        with suppress(FileNotFoundError):  # another run has renamed it meanwhile
            if place.is_dir():
                for each in sorted(place.iterdir()):
                    self.delete(str(each))
                self._gate()
                place.rmdir()
            else:
                self._gate()
                place.unlink()

    def delete_empty(self, folder: str) -> None:
        self._gate()
        with suppress(OSError):
            Path(folder).rmdir()

    def moves_folders(self, path: str) -> bool:
        return self._moves

    def rename_all(self, moves: Sequence[tuple[str, str]]) -> None:
        for source, target in moves:
            self.rename(source, target)

    def rename(self, source: str, target: str) -> None:
        self._gate()
        if not self._moves and Path(source).is_file():
            if Path(target).exists():
                raise FileExistsError(target)
            shutil.copy(source, target)
            self._gate()
            Path(source).unlink()
        elif not _renameat2(source, target, _RENAME_NOREPLACE):
            raise OSError(f"could not rename {source} to {target}")

    def exchange(self, one: str, other: str) -> bool:
        self._gate()
        return self._exchanges and _renameat2(one, other, _RENAME_EXCHANGE)

    def read_text(self, path: str) -> str:
        self._gate()
        return Path(path).read_text()

    def write_text(self, path: str, text: str) -> None:
        """As a stream does it: the file is there, empty, before it has its text."""
        self._gate()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self._moves:
            Path(path).write_text("")
            self._gate()
            Path(path).write_text(text)
        else:
            whole = Path(f"{path}~")
            whole.write_text(text)
            whole.replace(path)


def rows_in(folder: str | Path, names: Collection[str] | None = None) -> dict[str, str]:
    """The rows of a table of this world: ids, each with the settings that it was made with.

    names: of the files to read; by default all.
    """
    found: dict[str, str] = {}
    for file in sorted(Path(folder).glob("part-*")):
        if names is not None and file.name not in names:
            continue
        told = json.loads(file.read_text())
        assert not found.keys() & told.keys(), f"a row is there twice in {folder}"
        found |= told
    return found


class Job(threading.Thread):
    """A run that writes a table of a few parts; stopped before each call of the file system."""

    _numbers = count()

    def __init__(
        self,
        world: Path,
        *,
        mode: str,
        settings: str,
        ids: list[str],
        alive: Callable[[Mapping[str, Any]], bool],
        exchanges: bool = True,
        merges: bool = False,
        moves: bool = True,
        fixed: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self._merges = merges
        self.run_id = f"run-{next(Job._numbers)}"
        self.mode, self.settings, self.ids = mode, settings, ids
        self.target = world / "out"
        self.outcome: str | None = None
        self.reused = 0
        self._dying = False
        self._turn, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.disk = Disk(self._gate, exchanges=exchanges, moves=moves)
        self._named = "fixed" if fixed else self.run_id
        self.staging = Staging(
            self.disk,
            str(world / ".out.staging"),
            str(self.target),
            run_id=self.run_id,
            mode=mode,
            identity={"settings": settings},
            process={"run": self.run_id},
            running=alive,
        )
        self.start()
        self._stopped.acquire()

    # --- driven by the test --------------------------------------------------------------------

    def step(self, calls: int = 1) -> None:
        """Let it make so many calls, or end."""
        for _ in range(calls):
            if self.outcome is not None:
                return
            self._turn.release()
            self._stopped.acquire()

    def finish(self) -> str:
        while self.outcome is None:
            self.step()
        return self.outcome

    def staging_alone(self) -> Staging:
        """Its staging for the test to call, in place of the run."""
        self.kill()
        self.disk = Disk()
        self.staging._files = self.disk
        return self.staging

    def kill(self) -> None:
        self._dying = True
        self.finish()

    # --- the run -------------------------------------------------------------------------------

    def _gate(self) -> None:
        if self._dying:
            raise Killed
        self._stopped.release()
        self._turn.acquire()
        if self._dying:
            raise Killed

    def run(self) -> None:
        try:
            self._gate()
            self._check()
            with self.staging.run(self._check):
                self._write(self._resume())
                if self._merges:
                    self._merge()
                facts = {"job": "test", "run_id": self.run_id, "settings": self.settings}
                self.staging.publish({**facts, "ids": self.ids}, self._check_target)
                self.staging.discard()
            self.outcome = "published"
        except Killed:
            self.outcome = "killed"
        except InvalidInput as error:
            self.outcome = f"refused: {error}"
        except BaseException as error:  # a test looks at it
            self.outcome = f"failed: {error!r}"
        self._stopped.release()

    def _check(self) -> None:
        self._check_target()
        self.staging.check()

    def _check_target(self) -> None:
        if self.mode == "fail":
            left = self.staging.underway()
            there = {path for path, _ in self.disk.below(str(self.target))}
            if there - left or (not left and self.disk.exists(str(self.target))):
                raise InvalidInput("exists")

    def _resume(self) -> list[str]:
        """Keep the rows done before, as `publish.Output.resume` does; the ids to do."""
        sources = self.staging.sources()
        if self.mode != "resume" or not sources:
            return self.ids
        self._gate()
        done: dict[str, str] = {}
        for folder in sources:
            done.update(rows_in(folder))
        kept = {key: value for key, value in done.items() if key in self.ids}
        if kept:
            self.disk.write_text(f"{self.staging.kept}/part-kept-{self._named}", json.dumps(kept))
        self.disk.write_text(f"{self.staging.kept}/_SUCCESS", "")
        self.staging.forget_sources()
        self.reused = len(kept)
        return [each for each in self.ids if each not in kept]

    def _write(self, ids: list[str]) -> None:
        """A task's file appears in one step."""
        for each in ids:
            self._gate()
            folder = Path(self.staging.new)
            folder.mkdir(parents=True, exist_ok=True)
            staged = folder / f"_{each}"
            staged.write_text(json.dumps({each: self.settings}))
            staged.rename(folder / f"part-{each}-{self._named}")

    def _merge(self) -> None:
        """All rows in fewer files, each of which appears in one step."""
        found = {key: value for each in self.staging.rows for key, value in rows_in(each).items()}
        for number, keys in enumerate((sorted(found)[:2], sorted(found)[2:])):
            self._gate()
            folder = Path(self.staging.merged)
            folder.mkdir(parents=True, exist_ok=True)
            staged = folder / f"_{number}"
            staged.write_text(json.dumps({key: found[key] for key in keys}))
            staged.rename(folder / f"part-merged-{number}-{self._named}")
        self.staging.take_merged()


def assert_whole(target: Path, *, moves: bool = True) -> str | None:
    """What a reader finds is one run's table under its own manifest; that run, None for nothing.

    moves: as of `Disk`; where no folder moves, a reader goes by the manifest.
    """
    if not target.exists():
        return None
    told = read_manifest(Disk(), str(target))
    assert told or not moves, "a table without its manifest"
    if told is None:  # an object store has no table then
        return None
    assert rows_in(target, None if moves else told["files"]) == dict.fromkeys(
        told["ids"], told["settings"]
    )
    return str(told["run_id"])


def job(world: Path, mode: str, settings: str, **given: Any) -> Job:
    """A run on all ids that takes every other one for dead."""
    return Job(world, **{"mode": mode, "settings": settings, "ids": IDS, "alive": _nobody, **given})


def _nobody(process: Mapping[str, Any]) -> bool:
    return False


def kills_at_every_call(
    world: Path, mode: str, *, again: Callable[[], int] | None = None, **given: Any
) -> int:
    """A run over a table of other settings, killed before its first call, its second, …

    After each kill a run that resumes ends with its own rows only, whole. A run in mode resume
    is one over a table of its own settings, which has a part of the rows. again: after how many
    calls a run that resumes is killed as well. Returns how many kills.
    """
    calls = kills = 0
    while True:
        place = world / str(calls)
        place.mkdir()
        first = job(place, "fail", "cls" if mode == "resume" else "mean", ids=IDS[:2], **given)
        assert first.finish() == "published"
        runs = [first, job(place, mode, "cls", **given)]
        runs[-1].step(calls)
        if runs[-1].outcome is not None:
            assert runs[-1].outcome == "published"
            return kills
        runs[-1].kill()
        if again:
            runs.append(job(place, "resume", "cls", **given))
            runs[-1].step(again())
            runs[-1].kill()
        kills += len(runs) - 1
        moves = given.get("moves", True)
        found = assert_whole(place / "out", moves=moves)
        # Once there is a table in an object store, there is one for good.
        assert found or (moves or given.get("fixed"))
        assert found in (None, *(run.run_id for run in runs))
        assert_resumed(place, given)
        calls += 1


def assert_resumed(place: Path, given: Mapping[str, Any]) -> None:
    """A run that resumes publishes all rows; it is refused only where no row of its own is there.

    Then no run of its settings has come so far as to write one, and the table is of others.
    """
    moves = given.get("moves", True)
    before = assert_whole(place / "out", moves=moves)
    rows = own_rows(place, "cls")
    resumed = job(place, "resume", "cls", **given)
    outcome = resumed.finish()
    if outcome.startswith("refused"):
        assert "other settings" in outcome
        assert not rows, f"refused, and {rows} are there"
        assert assert_whole(place / "out", moves=moves) == before
        resumed = job(place, "overwrite", "cls", **given)
        assert resumed.finish() == "published"
    else:
        assert rows <= set(IDS)
    assert assert_whole(place / "out") == resumed.run_id
    assert rows_in(place / "out") == dict.fromkeys(IDS, "cls")
    assert [each.name for each in place.iterdir()] == ["out"]


def own_rows(world: Path, settings: str) -> set[str]:
    """The ids of rows that runs of these settings have written, published or not."""
    return {
        key
        for file in world.rglob("part-*")
        for key, made in json.loads(file.read_text() or "{}").items()
        if made == settings
    }
