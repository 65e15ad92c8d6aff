"""A driver process on the cluster that runs one job after another; see serve_jobs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.processes import CONF, PATIENCE, environment, settings, stop

HERE = Path(__file__).parent


class Application:
    """Two executors of one core, on this machine's own Python, whose tasks take their time."""

    def __init__(self, master: str, folder: Path, **more: str) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "log"
        self._told = folder / "told"
        self._settings = {
            "spark.master": master,
            "spark.cores.max": "2",
            "spark.executor.cores": "1",
            "spark.executor.memory": "1g",
            "spark.driver.memory": "1g",
            "spark.python.daemon.module": "slow_daemon",
            "spark.ui.showConsoleProgress": "false",
            "spark.executorEnv.PYTHONPATH": str(HERE.parent / "cluster"),
            **{f"spark.executorEnv.{key}": value for key, value in more.items()},
        }
        self._asked = 0
        own = {"PYSPARK_PYTHON": sys.executable, "SPARK_CONF_DIR": CONF}
        own |= {"SPARK_LOCAL_IP": "127.0.0.1", "EMBER_CACHE": str(folder.parent / "cache")}
        with self._log.open("wb") as log, self._told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "serve_jobs.py")],
                env=environment(**own, **more),
                stdin=subprocess.PIPE,
                stdout=told,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.start()
        except AssertionError:
            self.kill()
            raise

    def start(self, **more: str) -> None:
        """A session with these settings beside its own, in place of the last one."""
        self._ask("start", {**self._settings, **more})
        self.wait_for(self._is_idle)
        self.id = self._answers()[-1]

    def begin(self, job: str, **values: Any) -> None:
        self._ask(job, settings(**values))

    def end(self) -> tuple[int, str]:
        """The exit code of what was begun last, and all that was said so far."""
        self.wait_for(self._is_idle)
        return int(self._answers()[-1]), self._log.read_text("utf-8", "replace")

    def run(self, job: str, **values: Any) -> tuple[int, str]:
        self.begin(job, **values)
        return self.end()

    def wait_for(self, condition: Callable[[], Any], *, while_busy: bool = False) -> Any:
        """What `condition` returns once it is true; while_busy: before the job's end."""
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            over = while_busy and self._is_idle()
            if over or self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(self._log.read_text("utf-8", "replace")[-5000:])
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """End the driver, Java and Python, as a machine that goes down would."""
        stop(self.process)
        self._close()

    def close(self) -> None:
        """End it as a user does, with what it has to clear away."""
        self._close()
        self.process.wait(PATIENCE)

    def _close(self) -> None:
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def _ask(self, what: str, given: object) -> None:
        stream = self.process.stdin
        assert stream is not None
        self._asked += 1
        stream.write(json.dumps([what, given]).encode() + b"\n")
        stream.flush()

    def _is_idle(self) -> bool:
        return len(self._answers()) == self._asked

    def _answers(self) -> list[str]:
        return self._told.read_text("utf-8").splitlines()
