"""The facts of the driver and of every executor, from a few short tasks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import requires
from typing import Any, TypeVar
from uuid import uuid4

from pyspark.sql import SparkSession

from ember.diagnosis.programs import DECIDING
from ember.spark import classic
from ember.spark.explain import cause
from ember.worker import machine
from ember.worker.machine import Machine, examine, reach

__all__ = ["Answers", "Silence", "ask", "driver", "required", "seen", "slots", "within"]

T = TypeVar("T")
# How long a task keeps its place, so that the others go to other executors.
_HOLD = 0.3
_ROUNDS = 3
_MOST_TASKS = 10_000
_SENT = (machine.__name__, __name__)
_NAME = re.compile(r"[\w.-]+")


class Silence(Exception):
    """No task answered; the message says why."""


@dataclass
class Answers:
    """What executors said: one machine for each of their Java processes.

    skews: for each, seconds by which its clock is certainly off the driver's, ahead if positive.
    """

    machines: list[Machine] = field(default_factory=list)
    skews: list[float] = field(default_factory=list)


def required() -> list[str]:
    """The packages that Ember needs wherever its tasks run."""
    told = [each for each in requires("ember-spark") or () if "extra ==" not in each]
    return [found[0] for each in told if (found := _NAME.match(each))]


def _packages() -> list[str]:
    return list(dict.fromkeys([*DECIDING, *required(), "pandas", "pyspark"]))


def driver(settings: Mapping[str, str]) -> Machine:
    """The facts of this process."""
    return examine(_packages(), (), _folders(settings))


def ask(
    spark: SparkSession, settings: Mapping[str, str], modules: Sequence[str], seconds: float
) -> Answers:
    """What every executor has, from tasks that fill all their places.

    modules: what each is to import. seconds: within which each round of tasks has to end.

    Raises:
        Silence: no task answered.
    """
    answers = Answers()
    known: dict[tuple[str, str], int] = {}
    packages, folders = _packages(), _folders(settings)

    def body(_: Iterable[Any]) -> Iterator[Machine]:
        from pyspark import TaskContext

        context = TaskContext.get()
        gpu = context.resources().get("gpu") if context else None
        yield examine(packages, modules, folders, gpu.addresses if gpu else ())
        time.sleep(_HOLD)

    for number in range(_ROUNDS):
        before = time.time()
        found = within(
            spark, seconds, lambda: classic.run_in_tasks(spark, _tasks(spark), body, *_SENT)
        )
        after = time.time()
        for each in found:
            key = (each["host"], each["process"])
            if key not in known:
                known[key] = len(answers.machines)
                answers.machines.append(each)
                answers.skews.append(0.0)
            skew = min(0.0, each["began"] - before) or max(0.0, each["ended"] - after)
            # Each is the least that it can be.
            answers.skews[known[key]] = max(answers.skews[known[key]], skew, key=abs)
        if len(known) >= classic.executors(spark) or number == _ROUNDS - 1:
            break
    return answers


def seen(spark: SparkSession, paths: Sequence[str], seconds: float) -> dict[str, dict[str, str]]:
    """For each path of a machine's own file systems, the hosts that do not see it, and why."""

    def body(_: Iterable[Any]) -> Iterator[tuple[str, dict[str, str]]]:
        import socket

        yield socket.gethostname(), reach(paths)
        time.sleep(_HOLD)

    told = within(spark, seconds, lambda: classic.run_in_tasks(spark, _tasks(spark), body, *_SENT))
    return {path: {host: said[path] for host, said in told if said[path]} for path in paths}


def within(spark: SparkSession, seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns, which runs Spark jobs.

    Raises Silence where it fails or takes longer than `seconds`.
    """
    tag = f"ember-doctor-{uuid4().hex}"

    def tagged() -> T:
        with classic.tagged(spark, tag):
            return work()

    with ThreadPoolExecutor(1, "ember-doctor") as pool:
        asked = pool.submit(tagged)
        try:
            return asked.result(seconds)
        except TimeoutError:
            classic.cancel(spark, tag)
            raise Silence(f"no task ended within {seconds:g} s") from None
        except Exception as error:
            raise Silence(f"tasks fail: {cause(error)}") from error


def slots(spark: SparkSession) -> int:
    """How many tasks run at once; at least one."""
    cpus = int(classic.setting(spark, "spark.task.cpus", "1"))
    return max(1, classic.cores(spark) // cpus)


def _tasks(spark: SparkSession) -> int:
    return min(_MOST_TASKS, slots(spark))


def _folders(settings: Mapping[str, str]) -> list[str]:
    return [each for each in settings.get("spark.local.dir", "").split(",") if each]
