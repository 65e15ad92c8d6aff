"""A real standalone cluster: a Master and two Workers as processes of their own.

The Workers' environment has no virtual environment in it: what their tasks run is the archive of
scripts/package, which Spark unpacks beside them. See scripts/cluster/standalone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemons import daemons

from cluster.processes import BIN, finished, start

ARCHIVE = "EMBER_CLUSTER_ARCHIVE"
WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    """A running cluster. archive: the environment that executors unpack."""

    master: str
    archive: str

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
        command = ["conf/submit/standalone.sh", *conf, *given]
        return finished(start(command, log, **here, **more), log)


@pytest.fixture(scope="session")
def archive() -> str:
    if ARCHIVE not in os.environ:
        pytest.skip("there is no packed environment here; scripts/cluster/standalone makes one")
    return os.environ[ARCHIVE]


@pytest.fixture(scope="session")
def cluster(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two Workers of one core and, as a discovery script has it, one GPU each."""
    with daemons(tmp_path_factory.mktemp("standalone")) as started:
        for number in range(WORKERS):
            script = started.folder / f"discover{number}"
            script.write_text(f'#!/bin/sh\necho \'{{"name": "gpu", "addresses": ["{number}"]}}\'\n')
            script.chmod(0o755)
            given = started.folder / f"worker{number}.conf"
            given.write_text(
                "spark.worker.resource.gpu.amount 1\n"
                f"spark.worker.resource.gpu.discoveryScript {script}\n"
            )
            started.add_worker("--cores", "1", "--memory", "1g", "--properties-file", str(given))
        yield Cluster(started.url, archive)
