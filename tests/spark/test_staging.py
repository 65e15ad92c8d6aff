"""Publishing survives every moment: runs killed at each call, resumed, and at work side by side."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ember.spark.processes import is_running, this_process
from ember.spark.staging import Staging
from staging_world import IDS, Disk, Job, assert_whole, job, kills_at_every_call, rows_in


class Runs(RuleBasedStateMachine):
    """Runs over one output, started, killed and resumed in any order."""

    exchanges = True
    moves = True
    seen = True  # can a run tell that another one is alive, as on one machine?

    @initialize()
    def begin(self) -> None:
        self.world = Path(tempfile.mkdtemp(prefix="ember-staging-"))
        self.jobs: list[Job] = []
        self.last: str | None = None

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs if job.outcome is None]

    @precondition(lambda self: len(self.running) < 2)
    @rule(
        mode=st.sampled_from(["fail", "overwrite", "resume"]),
        settings=st.sampled_from(["mean", "cls"]),
        ids=st.sampled_from([IDS, IDS[:2], IDS[1:]]),
        merges=st.booleans(),
    )
    def start(self, mode: str, settings: str, ids: list[str], merges: bool) -> None:
        job = Job(
            self.world,
            mode=mode,
            settings=settings,
            ids=ids,
            alive=self.is_alive,
            exchanges=self.exchanges,
            merges=merges,
            moves=self.moves,
        )
        self.jobs.append(job)

    def is_alive(self, process: Mapping[str, object]) -> bool:
        return self.seen and any(job.run_id == process.get("run") for job in self.running)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1), calls=st.sampled_from([1, 2, 3, 5, 8, 13, 30]))
    def step(self, which: int, calls: int) -> None:
        job = self.running[which % len(self.running)]
        for _ in range(calls):
            job.step()
            self.look()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        self.running[which % len(self.running)].kill()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1))
    def finish(self, which: int) -> None:
        job = self.running[which % len(self.running)]
        while job.outcome is None:
            job.step()
            self.look()

    @invariant()
    def look(self) -> None:
        """A reader that polls."""
        found = assert_whole(self.world / "out", moves=self.moves)
        # Once there is a table, there is one for good where two folders can be exchanged.
        assert found or not self.exchanges or not self.last
        self.last = found or self.last
        for each in self.jobs:
            assert not (each.outcome or "").startswith("failed"), each.outcome

    def teardown(self) -> None:
        for each in self.running:
            each.kill()
        last = Job(
            self.world,
            mode="overwrite",
            settings="mean",
            ids=IDS,
            alive=lambda process: False,
            exchanges=self.exchanges,
            moves=self.moves,
        )
        assert last.finish() == "published"
        assert assert_whole(self.world / "out") == last.run_id
        assert [each.name for each in self.world.iterdir()] == ["out"]
        Disk().delete(str(self.world))


LENGTH = settings(max_examples=int(os.environ.get("EMBER_KILLS", "15")), stateful_step_count=30)


class RunsThatSeeNobody(Runs):
    """As on several machines: a run takes over what may be at work."""

    seen = False


class RunsInAnObjectStore(Runs):
    """Where folders do not move, and a reader goes by the manifest."""

    moves = False


class RunsWithoutExchange(Runs):
    """As on file systems that rename one folder at a time."""

    exchanges = False
    seen = False


TestRuns = Runs.TestCase
TestRunsThatSeeNobody = RunsThatSeeNobody.TestCase
TestRunsWithoutExchange = RunsWithoutExchange.TestCase
TestRunsInAnObjectStore = RunsInAnObjectStore.TestCase
TestRunsInAnObjectStore.settings = LENGTH
TestRuns.settings = TestRunsThatSeeNobody.settings = TestRunsWithoutExchange.settings = LENGTH


@pytest.mark.parametrize(
    ("mode", "exchanges", "merges"),
    [
        ("overwrite", True, True),
        ("overwrite", False, False),
        ("resume", True, False),
        ("resume", False, True),
    ],
)
def test_a_run_killed_at_any_call_is_resumed_and_its_rows_are_its_own(
    tmp_path, mode, exchanges, merges
):
    """Of tables that agree in their ids, each row says by which settings it was made."""
    kills = kills_at_every_call(tmp_path, mode, exchanges=exchanges, merges=merges)
    assert kills > 40


@pytest.mark.parametrize(("mode", "fixed"), [("overwrite", False), ("resume", True)])
def test_in_an_object_store_a_run_killed_at_any_call_leaves_a_whole_table(tmp_path, mode, fixed):
    """To who goes by its manifest. fixed: files have the names of the old ones, as of a model."""
    assert kills_at_every_call(tmp_path, mode, moves=False, merges=not fixed, fixed=fixed) > 40


def test_in_an_object_store_a_run_killed_twice_loses_no_row(tmp_path):
    more = count()
    again = lambda: 25 + next(more) % 30  # noqa: E731
    assert kills_at_every_call(tmp_path, "overwrite", again=again, moves=False) > 80


def test_in_an_object_store_a_first_run_killed_in_mid_publishing_is_started_again(tmp_path):
    first = job(tmp_path, "fail", "mean", moves=False)
    while not list((tmp_path / "out").glob("part-*")):
        first.step()
    first.kill()
    assert assert_whole(tmp_path / "out", moves=False) is None
    again = job(tmp_path, "fail", "cls", moves=False)
    assert again.finish() == "published"
    assert assert_whole(tmp_path / "out") == again.run_id


def test_in_an_object_store_files_of_others_stay_where_they_are(tmp_path):
    """Only what the note of a killed run names is taken back."""
    first = job(tmp_path, "fail", "mean", moves=False)
    while not list((tmp_path / "out").glob("part-*")):
        first.step()
    first.kill()
    (tmp_path / "out" / "part-mine").write_text("{}")
    assert job(tmp_path, "fail", "mean", moves=False).finish() == "refused: exists"
    assert (tmp_path / "out" / "part-mine").exists()


@pytest.mark.parametrize("calls", [7, 19, 41])
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_run_killed_twice_loses_no_row(tmp_path, exchanges, calls):
    """The second kill, of a run that resumes, comes after as many calls, one more each time."""
    more = count()
    kills = kills_at_every_call(
        tmp_path,
        "overwrite",
        again=lambda: calls + next(more) % 12,
        exchanges=exchanges,
        merges=exchanges,
    )
    assert kills > 80


def test_two_runs_of_one_machine_are_told_of_each_other(tmp_path):
    first, second = (job(tmp_path, "overwrite", "mean", alive=lambda process: True) for _ in "12")
    while not list((tmp_path / ".out.staging").glob("*/attempt.json")):
        first.step()
    first.step()
    assert f"run {first.run_id} is writing" in second.finish()
    assert first.finish() == "published"
    assert assert_whole(tmp_path / "out") == first.run_id


def test_a_run_that_cannot_say_that_it_is_over_is_resumed_by_its_own_process(tmp_path):
    """As in a session that lives on when its disk was full, and has room again."""

    class Full(Disk):
        full = False

        def write_text(self, path: str, text: str) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write_text(path, text)

    disk = Full()
    place = str(tmp_path / ".out.staging"), str(tmp_path / "out")
    first = Staging(disk, *place, run_id="first", mode="resume", identity={})

    def work() -> None:
        with first.run(lambda: None):
            disk.write_text(f"{first.new}/part-0", '{"a": "mean"}')
            disk.full = True
            disk.write_text(f"{first.new}/part-1", '{"b": "mean"}')

    with pytest.raises(OSError, match="No space"):
        work()
    disk.full = False
    second = Staging(disk, *place, run_id="second", mode="resume", identity={})
    second.check()
    with second.run(lambda: None):
        (found,) = second.sources()
        assert rows_in(found) == {"a": "mean"}


def test_a_run_that_another_machine_takes_for_dead_publishes_nothing(tmp_path):
    first, second = job(tmp_path, "overwrite", "mean"), job(tmp_path, "overwrite", "cls")
    while not rows_in(first.staging.new):
        first.step()
    second.step(30)
    assert f"run {second.run_id} has taken over" in first.finish()
    assert second.finish() == "published"
    assert assert_whole(tmp_path / "out") == second.run_id
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_in_the_place_of_the_staged_rows_is_left_alone(tmp_path):
    (tmp_path / ".out.staging").mkdir()
    (tmp_path / ".out.staging" / "precious").write_text("mine")
    outcome = job(tmp_path, "overwrite", "mean").finish()
    assert outcome.startswith("refused")
    assert "precious" in outcome
    assert (tmp_path / ".out.staging" / "precious").read_text() == "mine"


def test_a_process_is_told_from_one_that_got_its_number_later(tmp_path):
    own = this_process()
    assert is_running(own)
    assert not is_running({**own, "started": "1"})
    assert not is_running({**own, "pid": 2**22 + 1})
    assert not is_running({**own, "host": "another"})
    assert not is_running({})


def test_where_nothing_can_be_written_the_file_system_s_own_error_is_told(tmp_path):
    run = job(tmp_path, "fail", "mean")
    (tmp_path / ".out.staging").write_text("a file where the folder goes")
    outcome = run.finish()
    assert outcome.startswith("failed: ")


def test_a_table_is_finished_by_its_manifest_and_while_no_killed_run_was_to_replace_it(tmp_path):
    (tmp_path / "out").mkdir()
    assert not job(tmp_path, "resume", "mean").staging_alone().is_finished()
    assert job(tmp_path, "overwrite", "mean").finish() == "published"
    assert job(tmp_path, "resume", "mean").staging_alone().is_finished()
    killed = job(tmp_path, "overwrite", "cls")
    while not rows_in(killed.staging.new):
        killed.step()
    killed.kill()
    assert not job(tmp_path, "resume", "cls").staging_alone().is_finished()


def test_an_overwrite_killed_and_resumed_and_killed_again_is_gone_on_with(tmp_path):
    assert job(tmp_path, "overwrite", "mean").finish() == "published"
    for mode in ("overwrite", "resume", "resume"):
        killed = job(tmp_path, mode, "cls")
        while killed.outcome is None and not rows_in(killed.staging.new):
            killed.step()
        assert killed.outcome is None, killed.outcome
        killed.kill()
    last = job(tmp_path, "resume", "cls")
    assert last.finish() == "published"
    assert last.reused == len(IDS)
    assert rows_in(tmp_path / "out") == dict.fromkeys(IDS, "cls")
