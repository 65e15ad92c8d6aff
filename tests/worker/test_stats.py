from __future__ import annotations

from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ember.worker.stats import TaskStats, WorkerRecord, merge_into, process_name

PROCESSES = ["a", "b", "c"]


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Reports as a cluster makes them: attempts of tasks, on processes whose loads only grow."""
    rows = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    loads = dict.fromkeys(PROCESSES, 0)
    reports = []
    for _ in range(draw(st.integers(1, 5))):
        task = draw(st.integers(0, len(rows) - 1))
        process = draw(st.sampled_from(PROCESSES))
        loads[process] += draw(st.integers(0, 2))
        worker = WorkerRecord(loads[process], float(loads[process]), "cpu")
        record = {"rows": rows[task], "truncated": rows[task] // 2, "seconds": {}}
        reports.append({"tasks": {task: record}, "workers": {process: worker}})
    return reports


def merged(reports: Any) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for report in reports:
        total = merge_into(total, report)
    return total


@given(histories())
def test_merging_is_the_same_in_any_order(history: list[dict[str, Any]]) -> None:
    expected = merged(history)
    for order in permutations(history):
        assert merged(order) == expected


@given(histories(), st.integers(0, 5))
def test_merging_is_the_same_in_any_grouping(history: list[dict[str, Any]], cut: int) -> None:
    assert merge_into(merged(history[:cut]), merged(history[cut:])) == {
        "tasks": {},
        "workers": {},
        **merged(history),
    }


@given(histories())
def test_merging_twice_counts_once(history: list[dict[str, Any]]) -> None:
    total = merged(history)
    assert merge_into(merged(history), total) == total
    assert merged([*history, *history]) == total


@given(histories())
def test_process_counts_its_latest_loads(history: list[dict[str, Any]]) -> None:
    workers = merged(history)["workers"]
    for process in workers:
        seen = [each["workers"][process] for each in history if process in each["workers"]]
        assert workers[process] == max(seen, key=lambda record: record.loads)


@given(histories())
def test_merging_leaves_reports_alone(history: list[dict[str, Any]]) -> None:
    before = repr(history)
    merged(history)
    assert repr(history) == before


def test_report_is_under_task_and_process() -> None:
    stats = TaskStats(rows=3, truncated=1)
    stats.timed("model", 1.5)
    stats.timed("model", 0.5)
    stats.timed("load", 4.0)
    worker = WorkerRecord(1, 4.0, "cpu")
    assert stats.report(7, worker) == {
        "tasks": {7: {"rows": 3, "truncated": 1, "seconds": {"model": 2.0, "load": 4.0}}},
        "workers": {process_name(): worker},
    }
    assert stats.report(7, None)["workers"] == {}


def test_process_name_stays_the_same() -> None:
    assert process_name() == process_name()
