"""Progress of a run: a bar on a terminal, elsewhere a log line at most every 30 seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic

from tqdm import tqdm

__all__ = ["shown"]

_log = logging.getLogger(__name__)
_LOG_SECONDS = 30.0


@contextmanager
def shown(total: int, done: Callable[[], int]) -> Iterator[None]:
    """Show how many of `total` rows are done while the block runs.

    done: rows finished so far; asked a few times a second.
    """
    finished = Event()
    show = _bar if sys.stderr.isatty() else _lines
    thread = Thread(target=show, args=(total, done, finished), name="ember-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _bar(total: int, done: Callable[[], int], finished: Event) -> None:
    with tqdm(total=total, unit="row", dynamic_ncols=True, file=sys.stderr) as bar:
        while not finished.wait(0.25):
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)


def _lines(total: int, done: Callable[[], int], finished: Event) -> None:
    start = monotonic()
    while not finished.wait(_LOG_SECONDS):
        rows = done()
        rate = rows / (monotonic() - start)
        left = f"{(total - rows) / rate:.0f} s left" if rate else "time left unknown"
        _log.info("%d of %d rows, %.1f rows/s, %s", rows, total, rate, left)
