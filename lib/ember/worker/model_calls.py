"""Calls of a model, batch after batch: the next is begun before the last is waited for.

A model that computes beside the calling thread, as on a GPU, so always has work. Where memory runs
out, batches have fewer rows from then on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ember.worker.encoder import Encoder, Overlapping, Slot

__all__ = ["Item", "ModelCalls", "clock"]


@dataclass(frozen=True)
class Item:
    """A prepared row: the model's input, what it costs, and where its vector goes."""

    value: Any
    cost: int
    slot: Slot
    row: int


class ModelCalls:
    """The encoder, given batch after batch, and fewer rows a batch where memory runs out."""

    def __init__(self, encoder: Encoder, timed: Callable[[str, float], None]) -> None:
        self.encoder = encoder
        self.timed = timed
        self.under_way: deque[tuple[list[Item], Any]] = deque()

    def run(self, items: list[Item]) -> None:
        """Give the model a batch, and the slots the vectors of an earlier one or of this."""
        encoder = self.encoder
        if not isinstance(encoder, Overlapping) or encoder.in_flight == 1:
            self._run_alone(items)
            return
        if len(items) > encoder.batch_size:  # it was lowered meanwhile
            for half in _halves(items):
                self.run(half)
            return
        try:
            with clock(self.timed, "model"):
                started = encoder.start([item.value for item in items])
        except Exception as error:
            self._lower(items, error)
        else:
            self.under_way.append((items, started))
            self._finish(encoder, most=encoder.in_flight - 1)
            return
        self._run_alone(items)

    def finish(self) -> None:
        """Wait for all that is under way."""
        if isinstance(self.encoder, Overlapping):
            self._finish(self.encoder, most=0)

    def _finish(self, encoder: Overlapping, *, most: int) -> None:
        """Wait, first for what was started first, until `most` batches are under way."""
        while len(self.under_way) > most:
            items, started = self.under_way.popleft()
            try:
                with clock(self.timed, "model"):
                    vectors = encoder.finish(started)
            except Exception as error:
                self._lower(items, error)
            else:
                _fill(items, vectors)
                continue
            del started  # and with it what it holds of the device's memory
            self._run_alone(items)

    def _run_alone(self, items: list[Item]) -> None:
        """Run a batch, or parts of it that fit, with nothing else under way."""
        self.finish()
        if len(items) > self.encoder.batch_size:
            for half in _halves(items):
                self._run_alone(half)
            return
        try:
            with clock(self.timed, "model"):
                vectors = self.encoder.run([item.value for item in items])
        except Exception as error:
            if len(items) == 1:
                raise
            self._lower(items, error)
        else:
            _fill(items, vectors)
            return
        self._run_alone(items)

    def _lower(self, items: list[Item], error: Exception) -> None:
        """Take fewer rows a batch for the rest of the process: what was too much once is so again.

        Raises the error where it is not one of memory.
        """
        if not self.encoder.is_out_of_memory(error):
            raise error
        if len(items) == 1:
            return  # alone it may fit
        # The few rows at the end of a stream may only be too many beside those under way.
        rows = max(len(each) for each in [items, *(others for others, _ in self.under_way)])
        if rows <= self.encoder.batch_size:
            self.encoder.batch_size = rows // 2
            self.encoder.batch_cost //= 2


def _halves(items: list[Item]) -> tuple[list[Item], list[Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def _fill(items: Sequence[Item], vectors: Iterable[Any]) -> None:
    for item, vector in zip(items, vectors, strict=True):
        item.slot.fill(item.row, vector)


@contextmanager
def clock(timed: Callable[[str, float], None], phase: str) -> Iterator[None]:
    """Call `timed` with a phase and the seconds that the block took."""
    start = perf_counter()
    try:
        yield
    finally:
        timed(phase, perf_counter() - start)
