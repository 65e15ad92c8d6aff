from __future__ import annotations

import logging
from itertools import count
from time import sleep

from ember.spark import progress


class Terminal:
    """A stderr that is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_ends_at_all_rows(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    steps = count(1)
    with progress.shown(4, lambda: min(4, 2 * next(steps))):
        sleep(0.6)
    assert "4/4" in terminal.text
    assert "row/s" in terminal.text


def test_elsewhere_lines_tell_rows_rate_and_time_left(monkeypatch, caplog):
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.1)
    logging.getLogger("ember").propagate = True
    steps = count(0, 10)
    with (
        caplog.at_level(logging.INFO, "ember.spark.progress"),
        progress.shown(1000, lambda: next(steps)),
    ):
        sleep(1.5)
    assert "0 of 1000 rows, 0.0 rows/s, time left unknown" in caplog.text
    assert "20 of 1000 rows" in caplog.text
    assert " s left" in caplog.text


def test_a_failure_inside_ends_the_display_and_passes(monkeypatch):
    import threading

    before = threading.active_count()
    try:
        with progress.shown(1, lambda: 0):
            raise KeyError
    except KeyError:
        pass
    assert threading.active_count() == before
