"""Progress of a run: a bar on a terminal, elsewhere a log line at most every 30 seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic

from tqdm import tqdm

__all__ = ["repeated", "shown"]

_log = logging.getLogger(__name__)
_LOG_SECONDS = 30.0


@contextmanager
def shown(total: int, done: Callable[[], int], unit: str = "row") -> Iterator[None]:
    """Show how many of `total` rows (or other units) are done while the block runs.

    done: units finished so far; asked a few times a second.
    """
    show = _bar if sys.stderr is not None and sys.stderr.isatty() else _lines
    with _meanwhile(lambda finished: show(total, done, unit, finished)):
        yield


@contextmanager
def repeated(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `action` every so many seconds while the block runs."""

    def repeat(finished: Event) -> None:
        while not finished.wait(seconds):
            action()

    with _meanwhile(repeat):
        yield


@contextmanager
def _meanwhile(work: Callable[[Event], None]) -> Iterator[None]:
    finished = Event()
    thread = Thread(target=work, args=(finished,), name="ember-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _bar(total: int, done: Callable[[], int], unit: str, finished: Event) -> None:
    with tqdm(total=total, unit=unit, dynamic_ncols=True, file=sys.stderr) as bar:
        while not finished.wait(0.25):
            bar.update(done() - bar.n)
        bar.update(done() - bar.n)


def _lines(total: int, done: Callable[[], int], unit: str, finished: Event) -> None:
    start = monotonic()
    while not finished.wait(_LOG_SECONDS):
        rows = done()
        rate = rows / (monotonic() - start)
        left = f"{(total - rows) / rate:.0f} s left" if rate else "time left unknown"
        _log.info("%d of %d %ss, %.1f %ss/s, %s", rows, total, unit, rate, unit, left)
