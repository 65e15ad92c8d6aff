"""Faults on a Master and Workers, while a table is replaced: its rows once, and no other.

Each strikes a run that overwrites a table when some of its 40 tasks have ended. Where it fails, the
cause is removed and `output.mode=resume` goes on. All the while a reader looks at the table.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from application import Application
from daemons import Daemons, daemons
from tables import Reader, Table, embedded, joined

from cluster.processes import committed, python_workers
from corpora import leftovers, manifest

ENOUGH_FILES = 6
ALL = 99
ASKED_FOR = "EMBER_CLUSTER_FAULTS"
NAMES = {"ember", "spark", "blockmgr"}
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    "spark.speculation.quantile": "0.5",
}


class World:
    """A Master with two Workers, applications there, and each job's table as no fault has it."""

    def __init__(self, folder: Path, cluster: Daemons, tables: list[Table]) -> None:
        self.folder = folder
        self.cluster = cluster
        self.tables = {each.job: each for each in tables}
        self.seconds: dict[str, float] = {}
        self.scratch = folder / "scratch"
        self._running: dict[str, Application] = {}
        self._started = self._hosts = 0

    def application(self, name: str = "first", **more: str) -> Application:
        """The application of this name, started anew where it is not there, or was killed."""
        found = self._running.get(name)
        if found is None or found.process.poll() is not None:
            self._started += 1
            more |= {"SPARK_LOCAL_DIRS": str(self.scratch), "TMPDIR": str(self.scratch)}
            place = self.folder / f"application{self._started}"
            found = self._running[name] = Application(self.cluster.url, place, **more)
        return found

    def add_worker(self) -> None:
        """On a host of its own: Spark runs no second copy of a task on the host of the first."""
        self._hosts += 1
        host = f"127.0.0.{self._hosts}"
        self.cluster.add_worker("--host", host, "--cores", "3", "--memory", "6g")

    def undisturbed(self, job: str) -> Path:
        """A job's table by a run that nothing happens to, with the seconds that it takes."""
        out = self.folder / "undisturbed" / job
        if not out.exists():
            run = Run(self, job, self.folder / "undisturbed" / f"of {job}")
            warm = out.parent / f"{job} before"  # starts the workers
            self.application().run(job, **run.values(warm))
            began = time.monotonic()
            code, said = self.application().run(job, **run.values(out))
            self.seconds[job] = time.monotonic() - began
            assert code == 0, said[-5000:]
        return out

    def close(self) -> None:
        for each in self._running.values():
            each.close()


class Run:
    """A job on a copy of its input, in a folder of its own."""

    def __init__(self, world: World, job: str, folder: Path) -> None:
        self.world = world
        self.job = job
        self.table = world.tables[job]
        self.input = folder / "in"
        self.out = folder / "work" / "out"
        self.where: str | None = None
        self.began = 0.0
        shutil.copytree(world.folder / job, self.input)

    def values(self, out: Path, mode: str = "overwrite") -> dict[str, Any]:
        paths = {f"{self.table.read}__path": self.input, "output__path": out, "output__mode": mode}
        where = {f"{self.table.read}__where": self.where} if self.where else {}
        return {**self.table.settings, **paths, **where}

    def begin(self, application: Application, *, halfway: bool = True) -> None:
        self.began = self.began or time.monotonic()
        application.begin(self.job, **self.values(self.out))
        if halfway:
            enough = lambda: len(committed(self.out)) >= ENOUGH_FILES  # noqa: E731
            application.wait_for(enough, while_busy=True)

    def ends(self, application: Application, *said: str) -> None:
        """It does what it was to do; or, where words are given, fails and says them."""
        code, log = application.end()
        assert (code != 0) == bool(said), log[-5000:]
        for each in said:
            assert each in log, log[-5000:]

    def resumed(self, application: Application) -> None:
        """It is gone on with, or done again where it ended before it had any row."""
        begun = f".{self.out.name}.staging" in leftovers(self.out.parent)
        mode = "resume" if begun else "overwrite"
        code, log = application.run(self.job, **self.values(self.out, mode))
        assert code == 0, log[-5000:]


# --- the faults --------------------------------------------------------------------------------


def a_python_worker_is_killed(run: Run) -> None:
    first = run.world.application()
    run.begin(first)
    send(signal.SIGKILL, run, first, 1)
    run.ends(first)


def an_executor_is_killed(run: Run) -> None:
    first = run.world.application()
    run.begin(first)
    os.kill(run.world.cluster.executors(first.id)[0], signal.SIGKILL)
    run.ends(first)


def a_worker_is_killed(run: Run) -> None:
    """Its executors end by themselves; the other Worker has room for new ones."""
    first = run.world.application()
    run.begin(first)
    worker = run.world.cluster.workers.pop(0)
    worker.kill()
    worker.wait()
    run.ends(first)
    run.world.add_worker()


def the_driver_is_killed(run: Run) -> None:
    second = run.world.application("second")
    run.begin(second)
    second.kill()
    run.resumed(run.world.application())


def an_executor_runs_out_of_memory(run: Run) -> None:
    """Of one row a condition makes more than an executor's heap holds, and four of them end."""
    first = run.world.application()
    column, row = run.table.row
    run.where = f"{column} != '{row}' OR length(repeat({column}, 110000000)) > 0"
    run.begin(first, halfway=False)
    run.ends(first, "spark.executor.memory")
    first.start(**{"spark.executor.memory": "3g"})
    try:
        run.resumed(first)
    finally:
        first.start()


def the_disk_is_full(run: Run) -> None:
    first = run.world.application()
    run.begin(first)
    ballast = run.out.parent / "ballast"
    fill(ballast)
    run.ends(first, "no space is left on the disk")
    ballast.unlink()
    run.resumed(first)


def the_output_becomes_read_only(run: Run) -> None:
    first = run.world.application()
    place = str(run.out.parent)
    run.begin(first)
    while mount("-o", "remount,ro", place):  # busy while a file is open for writing
        time.sleep(0.01)
    run.ends(first, "read-only")
    assert mount("-o", "remount,rw", place) == 0
    run.resumed(first)


def a_task_hangs_with_speculation_on(run: Run) -> None:
    first = run.world.application()
    first.start(**SPECULATION)
    try:
        run.begin(first)
        send(signal.SIGSTOP, run, first, 1)
        run.ends(first)
    finally:
        first.start()


def a_file_of_the_input_is_damaged(run: Run) -> None:
    first = run.world.application()
    file = run.input / "2.parquet"
    sound = file.read_bytes()
    middle = len(sound) // 3
    file.write_bytes(sound[:middle] + bytes(len(sound) // 3) + sound[middle + len(sound) // 3 :])
    run.begin(first, halfway=False)
    run.ends(first, "2.parquet")
    file.write_bytes(sound)
    run.resumed(first)


def two_runs_write_one_output(run: Run) -> None:
    first, second = run.world.application(), run.world.application("second")
    run.begin(first)
    send(signal.SIGSTOP, run, first, ALL)  # so that it is there for as long as the other one takes
    run.begin(second, halfway=False)
    run.ends(second, "is writing", "right now")
    send(signal.SIGCONT, run, first, ALL)
    run.ends(first)


FAULTS: list[Callable[[Run], None]] = [
    a_python_worker_is_killed,
    an_executor_is_killed,
    a_worker_is_killed,
    the_driver_is_killed,
    an_executor_runs_out_of_memory,
    the_disk_is_full,
    the_output_becomes_read_only,
    a_task_hangs_with_speculation_on,
    a_file_of_the_input_is_damaged,
    two_runs_write_one_output,
]


OF_DISKS = {the_disk_is_full, the_output_becomes_read_only}


def send(signalled: int, run: Run, application: Application, at_most: int) -> None:
    """A signal to so many of an application's Python workers."""
    executors = run.world.cluster.executors(application.id)
    found = [pid for each in executors for pid in python_workers(each, "slow_daemon")]
    assert found
    for pid in found[:at_most]:
        os.kill(pid, signalled)


def fill(file: Path) -> None:
    """Write to a file until there is no room left."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def mount(*given: str) -> int:
    """The exit code of `mount`."""
    return subprocess.run(["mount", *given], check=False, stderr=subprocess.DEVNULL).returncode


@pytest.fixture(scope="module")
def world(resnet: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if ASKED_FOR not in os.environ:
        pytest.skip("faults take minutes; scripts/cluster/faults runs them")
    folder = tmp_path_factory.mktemp("faults")
    scratch = folder / "scratch"
    scratch.mkdir()
    tables = [embedded(folder / "embed", resnet), joined(folder / "join")]
    own = {"SPARK_LOCAL_DIRS": str(scratch), "TMPDIR": str(scratch)}
    (folder / "daemons").mkdir()
    with daemons(folder / "daemons", **own) as cluster:
        there = World(folder, cluster, tables)
        there.add_worker()
        there.add_worker()
        try:
            yield there
        finally:
            there.close()


@pytest.fixture
def run(world: World, fault: Callable[[Run], None], job: str, tmp_path: Path) -> Iterator[Run]:
    """A run that is to overwrite the table of an undisturbed one."""
    before = world.undisturbed(job)
    run = Run(world, job, tmp_path)
    place = run.out.parent
    place.mkdir()
    own = fault in OF_DISKS
    if own and mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)):
        pytest.skip("this user may not mount a file system of a few megabytes")
    try:
        shutil.copytree(before, run.out)
        yield run
    finally:
        if own:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("job", ["embed", "join"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_no_row_is_lost_or_doubled_and_no_reader_disturbed_when(
    world, run, fault, job, record_property
):
    record_property("fault", fault.__name__.replace("_", " "))
    record_property("job", job)
    first = manifest(run.out)["run_id"]
    reader = Reader(run.out)
    reader.start()
    try:
        fault(run)
        seconds = time.monotonic() - run.began
    finally:
        reader.stop()
    keys, expected = run.table.keys(run.out), run.table.expected
    last = manifest(run.out)["run_id"]
    looks = {"the old table": reader.seen[first, len(expected)]}
    looks["the new one"] = reader.seen[last, len(expected)]
    odd = sum(reader.seen.values()) - sum(looks.values())

    record_property("rows in", run.table.rows)
    record_property("rows out", len(keys))
    record_property("duplicates", len(keys) - len(set(keys)))
    record_property("seconds lost", f"{seconds - world.seconds[job]:.0f}")
    record_property("a reader saw", ", ".join(f"{each} {n}x" for each, n in looks.items()))
    assert last != first
    assert (len(keys), set(keys)) == (len(expected), expected)
    assert looks["the old table"] > 0
    assert odd == 0, reader.seen
    assert leftovers(run.out.parent) == ["out"]
    # What Spark and Ember have there while they run, and a killed driver leaves, goes by its name.
    assert {name.partition("-")[0] for name in leftovers(world.scratch)} <= NAMES
