"""Identity of processes on this machine: a pid alone may be reused."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_running", "this_process"]


def this_process() -> dict[str, Any]:
    """The identity of this process: machine, pid, and when it started."""
    return {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_running(process: Mapping[str, Any]) -> bool:
    """Is this process still running? False for processes of other machines.

    Of those nobody can tell from here. A run that is taken for dead and is not finds out before it
    publishes.
    """
    pid = process.get("pid")
    if process.get("host") != _host() or not isinstance(pid, int):
        return False
    started = _started(pid)
    return started is not None and started == process.get("started")


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".strip()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
