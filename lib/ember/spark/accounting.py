"""What the workers report, gathered on the driver while a run goes on.

The reports are a Spark accumulator whose merge is idempotent (see ember.worker.stats): tasks that
are retried or run twice count once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from pyspark.sql import SparkSession

from ember.spark import classic, progress
from ember.worker.stats import WorkerRecord, merge_into

__all__ = ["Account", "Reports"]

Reports = classic.Accumulator[dict[str, Any]]


class Account:
    """The reports of one run's workers. Hand `reports` to the tasks."""

    def __init__(self, spark: SparkSession) -> None:
        self.reports: Reports = classic.accumulator(spark, merge_into)

    def rows(self) -> int:
        """Rows of the tasks that have ended."""
        return sum(task["rows"] for task in self._tasks())

    def tasks(self) -> int:
        """How many tasks have ended."""
        return len(self._tasks())

    def empty_tasks(self) -> set[int]:
        """The numbers of the tasks that ended without a row."""
        tasks = list(self.reports.value.get("tasks", {}).items())
        return {number for number, task in tasks if not task["rows"]}

    def progress(self, total: int) -> AbstractContextManager[None]:
        """Show how many of `total` rows are done while a block runs."""
        return progress.shown(total, self.rows)

    def summary(self) -> dict[str, Any]:
        """For the manifest: workers, model loads, devices, notes, seconds, the job's own counts.

        Of texts, `tokens` are the model's own and `padding` is the share of all that it was given.
        """
        workers: dict[str, WorkerRecord] = dict(self.reports.value.get("workers", {}))
        seconds: dict[str, float] = {}
        counts: dict[str, int] = {}
        for task in self._tasks():
            for phase, spent in task["seconds"].items():
                seconds[phase] = seconds.get(phase, 0.0) + spent
            for what, number in task.get("counts", {}).items():
                counts[what] = counts.get(what, 0) + number
        padding = counts.pop("padding", 0)
        if given := counts.get("tokens", 0) + padding:
            shares = {"padding": round(padding / given, 4)}
        else:
            shares = {}
        lengths = {worker.max_tokens for worker in workers.values() if worker.max_tokens}
        return {
            "workers": len(workers),
            "model_loads": sum(worker.loads for worker in workers.values()),
            "loads_by_worker": {name: worker.loads for name, worker in sorted(workers.items())},
            "devices": sorted({worker.device for worker in workers.values()}),
            **({"max_tokens": max(lengths)} if lengths else {}),
            "notes": sorted({note for worker in workers.values() for note in worker.notes}),
            "truncated_texts": sum(task["truncated"] for task in self._tasks()),
            "task_seconds": {phase: round(spent, 3) for phase, spent in sorted(seconds.items())},
            **counts,
            **shares,
        }

    def _tasks(self) -> list[dict[str, Any]]:
        # A list, made in one step: another thread adds reports meanwhile.
        return list(self.reports.value.get("tasks", {}).values())
