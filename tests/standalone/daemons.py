"""A Master and Workers as processes of their own, in the system's environment."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from cluster.processes import CONF, descendants, stop, wait_for

BACKEND = "CoarseGrainedExecutorBackend"
PORTS = ["--port", "0", "--webui-port", "0"]


def plain_environment(**extra: str) -> dict[str, str]:
    """The system's own programs and Java, and no Python of this project."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise RuntimeError("pyspark is not installed")
    own = {"PATH": "/usr/bin:/bin", "SPARK_HOME": str(Path(spec.origin).parent)}
    own |= {"SPARK_CONF_DIR": CONF, "HOME": os.environ["HOME"], "LC_ALL": "C.UTF-8"}
    java = {"JAVA_HOME": os.environ["JAVA_HOME"]} if os.environ.get("JAVA_HOME") else {}
    return {**own, **java, **extra}


def daemon(kind: str, *given: str, log: IO[bytes], **extra: str) -> subprocess.Popen[bytes]:
    """A Master or Worker, started as the scripts of a Spark distribution start it."""
    environment = plain_environment(**extra)
    program = Path(environment["SPARK_HOME"], "bin", "spark-class")
    words = [str(program), f"org.apache.spark.deploy.{kind.lower()}.{kind}", "--host", "127.0.0.1"]
    return subprocess.Popen(
        [*words, *given],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Daemons:
    """A running Master. url: where it is; workers: those that were added and not stopped."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._more = more
        self._added = 0
        self._said = folder / "master"
        with self._said.open("wb") as log:
            self._master = daemon("Master", *PORTS, log=log, **more)
        where = re.compile(r"Starting Spark master at (spark://\S+)")
        self.url = wait_for(lambda: where.search(self._said.read_text("utf-8")), self._master)[1]

    def add_worker(self, *given: str) -> None:
        own = ["--work-dir", str(self.folder / f"work{self._added}")]
        with (self.folder / f"worker{self._added}").open("wb") as log:
            worker = daemon("Worker", *PORTS, *own, *given, self.url, log=log, **self._more)
        self.workers.append(worker)
        self._added += 1
        wait_for(lambda: self._registered() == self._added, worker)

    def executors(self, application: str) -> list[int]:
        lines = [each for worker in self.workers for each in descendants(worker.pid).items()]
        return [pid for pid, line in lines if BACKEND in line and application in line]

    def stop(self) -> None:
        for process in [self._master, *self.workers]:
            stop(process)

    def _registered(self) -> int:
        return self._said.read_text("utf-8").count("Registering worker")


@contextmanager
def daemons(folder: Path, **more: str) -> Iterator[Daemons]:
    """A Master without Workers; all are killed in the end. more: of their environment."""
    started = Daemons(folder, **more)
    try:
        yield started
    finally:
        started.stop()
