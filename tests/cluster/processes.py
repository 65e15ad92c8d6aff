"""Running jobs as processes of their own, and finding what they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CONF = str(Path(__file__).with_name("conf"))
# Seconds after which a process is stuck, not slow, also on a machine that does much else.
PATIENCE = 600
LOCAL_CLUSTER = ["spark-submit", "--master", "local-cluster[2,1,1024]"]


def environment(**extra: str) -> dict[str, str]:
    """Without what this process's own Spark session and models left behind."""
    left = ("SPARK", "CUDA")
    inherited = {key: value for key, value in os.environ.items() if not any(w in key for w in left)}
    given = {"PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "SPARK_CONF_DIR": CONF}
    return {**inherited, **given, **extra}


def start(command: list[str], log: Path, **extra: str) -> subprocess.Popen[bytes]:
    """Start a command in the repository's root; its stdout and stderr go to `log`."""
    with log.open("w") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(**extra),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a job, as a machine that goes down would."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def finished(process: subprocess.Popen[bytes], log: Path) -> tuple[int, str]:
    """The exit code of a process that writes to a log, once it has ended, and what it said."""
    try:
        code = process.wait(PATIENCE)
    finally:
        stop(process)
    lines = log.read_text("utf-8").splitlines()
    # Spark's own lines of what goes well are of no use where something does not.
    return code, "\n".join(line for line in lines if " INFO " not in line)


def committed(out: Path) -> list[Path]:
    """The files of the tasks that have ended in a run that is to write `out`."""
    return list((out.parent / f".{out.name}.staging").glob("*/new/part-*.parquet"))


def settings(**values: Any) -> list[str]:
    return [f"--set={key.replace('__', '.')}={value}" for key, value in values.items()]


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    """What `condition` returns once it is true; fails when the process ends or time runs out."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        code = process.poll()
        if code is not None or time.monotonic() > end:
            stop(process)
            raise AssertionError(f"did not happen; the process's exit code: {code}")
        time.sleep(0.02)
    return found


def descendants(pid: int) -> dict[int, str]:
    """Process ids below `pid`, with their command lines."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    below = [pid]
    while below:
        for child in parents.get(below.pop(), []):
            below.append(child)
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def executors(pid: int) -> list[int]:
    """The executors of a local cluster."""
    lines = descendants(pid).items()
    return [each for each, line in lines if "CoarseGrainedExecutorBackend" in line]


def python_workers(pid: int, module: str = "pyspark.daemon") -> list[int]:
    """Workers are forks of a daemon and share its command line; the daemon is their parent."""
    daemons = {each: line for each, line in descendants(pid).items() if module in line}
    return [worker for daemon in daemons for worker in descendants(daemon)]
