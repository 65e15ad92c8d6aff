"""What a task did: rows, truncated texts, model loads, seconds by phase. Merges are idempotent.

A retried task reports again under the same key, and a process under its own, so that merging the
reports of all attempts in any order counts each row and each load once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from time import time
from typing import Any

__all__ = ["TaskStats", "WorkerRecord", "merge_into", "process_name"]


@cache
def process_name() -> str:
    """Names this process among all that a cluster ever ran: host, process id, time of first use."""
    return f"{socket.gethostname()}:{os.getpid()}:{int(time() * 1000)}"


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process after a task: how often it loaded the task's model, how long, where.

    max_tokens: the longest text that the model takes, as it was loaded; None for other models.
    notes: what is out of the ordinary in how it runs the model.
    """

    loads: int
    load_seconds: float
    device: str
    max_tokens: int | None = None
    notes: tuple[str, ...] = ()


@dataclass
class TaskStats:
    """Counts and seconds of one task, filled by the worker."""

    rows: int = 0
    truncated: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int) -> None:
        """Add to a count of the job's own, by the name it has in the manifest."""
        self.counts[what] = self.counts.get(what, 0) + number

    def timed(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def report(self, task: int, worker: WorkerRecord | None) -> dict[str, Any]:
        """This task's report, under the number of its partition and the name of its process."""
        record: dict[str, Any] = {
            "rows": self.rows,
            "truncated": self.truncated,
            "seconds": self.seconds,
        }
        if self.counts:
            record["counts"] = self.counts
        workers = {process_name(): worker} if worker else {}
        return {"tasks": {task: record}, "workers": workers}


def merge_into(total: dict[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """The total, to which a report was added; of a process seen twice the record with more loads.

    In place: a run of a million tasks adds a million reports, and would copy all of them each time.
    """
    workers: dict[str, WorkerRecord] = total.setdefault("workers", {})
    for name, record in report.get("workers", {}).items():
        if name not in workers or record.loads >= workers[name].loads:
            workers[name] = record
    total.setdefault("tasks", {}).update(report.get("tasks", {}))
    return total
