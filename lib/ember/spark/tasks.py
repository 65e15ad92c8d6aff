"""What runs in a task: which GPU and how many threads it has, and a model tried in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyspark import TaskContext
from pyspark.sql import SparkSession

from ember.spark import classic, gpu, models
from ember.worker import task
from ember.worker.models.chunks import Chunking
from ember.worker.row_paths import PathRules
from ember.worker.spec import ModelSpec

__all__ = ["task_resources", "try_model"]


def task_resources() -> tuple[str | None, int]:
    """The GPU address (None for the CPU) and the number of CPU threads of the running task."""
    context = TaskContext.get()
    return gpu.assigned(), max(1, context.cpus()) if context else 1


def try_model(
    spark: SparkSession,
    spec: ModelSpec,
    paths: PathRules | None,
    chunking: Chunking | None = None,
) -> str:
    """Load the model in a task, where texts go through it. Raises what loading raises.

    Returns the device it runs on, with what is out of the ordinary in how.
    """
    files = models.distribute(spark, spec)

    def load(_: Iterable[Any]) -> Iterator[str]:
        address, threads = task_resources()
        placed = files.on_worker()
        encoder = task.load(placed, address=address, threads=threads, paths=paths)
        if chunking is not None:
            task.splitter(encoder, chunking)
        record = task.record(placed, paths=paths)
        yield "; ".join([record.device, *record.notes])

    return classic.run_in_task(spark, load)[0]
