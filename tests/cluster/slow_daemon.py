"""Spark's Python daemon, whose workers wait before each task: a fault then falls in the middle."""

from __future__ import annotations

import os
import select
import socket
import time

from pyspark import daemon

SECONDS = float(os.environ.get("TASK_SECONDS", "0.25"))
_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    select.select([sock], [], [])  # a worker that is kept for later has no task yet
    time.sleep(SECONDS)
    code: int = _worker(sock, authenticated)
    return code


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()
