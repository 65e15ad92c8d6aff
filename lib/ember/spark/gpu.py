"""Spark's GPU scheduling: what a configuration would do, and which GPU a task was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyspark import TaskContext
from pyspark.sql import SparkSession

from ember.errors import DeviceMissing, InvalidConfig
from ember.spark import classic
from ember.worker.device import cuda_device_count

__all__ = ["assigned", "check", "scheduled"]

_TASK = "spark.task.resource.gpu.amount"
_EXECUTOR = "spark.executor.resource.gpu.amount"


def assigned() -> str | None:
    """The address of the GPU that Spark assigned to this task; None without GPU scheduling."""
    context = TaskContext.get()
    gpu = context.resources().get("gpu") if context else None
    return str(gpu.addresses[0]) if gpu and gpu.addresses else None


def scheduled(spark: SparkSession) -> bool:
    """Does Spark assign GPUs to the tasks of this session?"""
    return float(classic.setting(spark, _TASK, "0")) > 0


def check(spark: SparkSession) -> None:
    """Explain a GPU configuration that cannot work, and make sure that a GPU is there.

    Without GPU settings nothing is checked and nothing is run.

    Raises:
        InvalidConfig: tasks would get no GPU, or several models would share one.
        DeviceMissing: a task was given a GPU that the CUDA driver does not show.
    """
    task, executor = classic.setting(spark, _TASK), classic.setting(spark, _EXECUTOR)
    if not task and not executor:
        return
    if not task or float(task) == 0:
        raise InvalidConfig(
            f"{_EXECUTOR}={executor}, but {_TASK} is not set: no task would be given a GPU and "
            f"the run would stay on the CPU; set {_TASK}=1, or neither"
        )
    if float(task) < 1:
        raise InvalidConfig(
            f"{_TASK}={task} lets {int(1 / float(task))} tasks share a GPU, each with a model of "
            f"its own in its memory; set {_TASK}=1 and spark.task.cpus to the executor's cores "
            "per GPU, so that they decode for one model"
        )
    missing = classic.run_in_task(spark, _missing_device)
    if missing:
        raise DeviceMissing(missing[0])


def _missing_device(_: Iterable[Any]) -> Iterator[str]:
    if cuda_device_count() == 0:
        import socket

        yield (
            f"Spark assigned GPU {assigned()} on {socket.gethostname()}, but the CUDA driver shows "
            "no device there; check the driver and the discovery script "
            "(spark.executor.resource.gpu.discoveryScript), or unset the GPU settings to run on "
            "the CPU"
        )
