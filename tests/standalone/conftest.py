"""A real standalone cluster: a Master and two Workers as processes of their own.

The Workers' environment has no virtual environment in it: what their tasks run is the archive of
scripts/package, which Spark unpacks beside them. See scripts/cluster/standalone.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import pytest

from cluster.processes import BIN, CONF, PATIENCE, start, stop, wait_for

ARCHIVE = "EMBER_CLUSTER_ARCHIVE"
WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    """A running cluster. archive: the environment that executors unpack."""

    master: str
    archive: str
    workers: tuple[subprocess.Popen[bytes], ...]

    def submit(self, log: Path, *given: str, **more: str) -> tuple[int, str]:
        """Run what conf/submit/standalone.sh is given; the exit code, and what it printed."""
        # As tests/cluster/conf has it: half the CPU time for Java's compiler.
        java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        conf = [
            *("--conf", f"spark.executor.extraJavaOptions={java}"),
            *("--conf", "spark.cores.max=2"),
        ]
        here = {"MASTER": self.master, "ARCHIVE": self.archive, "EXECUTOR_CORES": "1"}
        here |= {"EXECUTOR_MEMORY": "1g", "DRIVER_PYTHON": str(BIN / "python")}
        process = start(["conf/submit/standalone.sh", *conf, *given], log, **here, **more)
        try:
            code = process.wait(PATIENCE)
        finally:
            stop(process)
        lines = log.read_text("utf-8").splitlines()
        # Spark's own lines of what goes well are of no use where something does not.
        return code, "\n".join(line for line in lines if " INFO " not in line)


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


@pytest.fixture(scope="session")
def archive() -> str:
    if ARCHIVE not in os.environ:
        pytest.skip("there is no packed environment here; scripts/cluster/standalone makes one")
    return os.environ[ARCHIVE]


@pytest.fixture(scope="session")
def cluster(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two Workers of one core and, as a discovery script has it, one GPU each."""
    folder = tmp_path_factory.mktemp("standalone")
    ports = ["--port", "0", "--webui-port", "0"]
    running = []
    try:
        with (folder / "master").open("wb") as log:
            master = daemon("Master", *ports, log=log)
        running.append(master)
        where = re.compile(r"Starting Spark master at (spark://\S+)")
        url = wait_for(lambda: where.search((folder / "master").read_text("utf-8")), master)[1]
        for number in range(WORKERS):
            script = folder / f"discover{number}"
            script.write_text(f'#!/bin/sh\necho \'{{"name": "gpu", "addresses": ["{number}"]}}\'\n')
            script.chmod(0o755)
            given = folder / f"worker{number}.conf"
            given.write_text(
                "spark.worker.resource.gpu.amount 1\n"
                f"spark.worker.resource.gpu.discoveryScript {script}\n"
            )
            own = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"work{number}")]
            with (folder / f"worker{number}").open("wb") as log:
                worker = daemon(
                    "Worker", *ports, *own, "--properties-file", str(given), url, log=log
                )
            running.append(worker)
        said = folder / "master"
        wait_for(lambda: said.read_text("utf-8").count("Registering worker") == WORKERS, master)
        yield Cluster(url, archive, tuple(running[1:]))
    finally:
        for process in running:
            stop(process)
