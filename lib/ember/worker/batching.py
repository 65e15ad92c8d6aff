"""Rows to batches and back: full batches across Arrow batches, results in the order of the rows.

    rows → chunks, prepared on threads (decode, tokenize) → a window of items, sorted by cost
         → batches of similar cost → the model → vectors, scattered to their rows

What is held at any time is bounded: at most `lookahead` chunks being prepared, one window of
prepared items, and the slots (blocks of rows) that still wait for a vector.

A model that computes beside the calling thread, as on a GPU, is given its next batch before the
results of the last one are waited for, so that it always has work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ember.worker.rows import RowError

__all__ = ["Encoder", "Overlapping", "Slot", "encode", "plan_batches"]

Matrix = npt.NDArray[np.float32]
Prepared = tuple[Any, int] | tuple[Any, int, bool]
"""A row's input for the model and its cost; True behind them where the text was cut to fit."""

# Cost of a row, on average, at which a window is full before it has its rows: so many tokens are
# some ten kilobytes, and thousands of long texts would be hundreds of megabytes.
_WINDOW_COST = 512


class Encoder(Protocol):
    """A loaded model together with how its input is made."""

    chunk_rows: int
    """Rows prepared by one call of `prepare`."""
    window_rows: int
    """Prepared rows that are sorted by cost before they are cut into batches."""
    batch_size: int
    """Rows of an average batch; a batch's cost is bounded by `batch_cost`."""
    batch_cost: int
    """Most that rows × the largest cost of a row may come to in one batch."""
    most_padding: int | None
    """Most tokens of padding in one batch, where tokens are the cost; None where none is padded."""
    device: str
    """Where it runs, in words."""

    def prepare(self, raws: Sequence[Any]) -> Sequence[Prepared | RowError]:
        """Make the model's input for each row, with its cost. Called on threads."""
        ...

    def run(self, items: Sequence[Any]) -> Iterable[Any]:
        """What `Slot.fill` takes for each item of one batch: the lines of a matrix (n, d)."""
        ...

    def is_out_of_memory(self, error: Exception) -> bool: ...


@runtime_checkable
class Overlapping(Protocol):
    """An encoder that can compute beside the calling thread; `run` is then both of its methods."""

    in_flight: int
    """Batches that may be under way, the one just started included. At 1, `run` is called."""

    def start(self, items: Sequence[Any]) -> Any:
        """Begin with one batch, and return what `finish` takes."""
        ...

    def finish(self, started: Any) -> Iterable[Any]:
        """Wait for a batch, in the order of the starts, and return what `run` returns."""
        ...


@dataclass
class Slot:
    """A block of consecutive rows on its way: raw content in, vectors and errors out.

    `tag` is whatever the caller needs to know the rows by. `truncated` are the rows that were cut
    to the model's length. `absent` is how many rows the slot stands for beside its own.
    """

    raws: Sequence[Any]
    tag: Any = None
    vectors: Matrix | None = None
    errors: dict[int, str] = field(default_factory=dict)
    truncated: set[int] = field(default_factory=set)
    absent: int = 0
    waiting: int = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = len(self.raws)

    def fail(self, row: int, reason: str) -> None:
        self.errors[row] = reason
        self.waiting -= 1

    def fill(self, row: int, vector: Any) -> None:
        """Take what the model made of a row, or the RowError why it made nothing."""
        if isinstance(vector, RowError):
            self.fail(row, str(vector))
            return
        if self.vectors is None:
            self.vectors = np.zeros((len(self.raws), len(vector)), np.float32)
        if np.isfinite(vector).all():
            self.vectors[row] = vector
        else:
            self.errors[row] = "not finite: the model returned NaN or infinity"
        self.waiting -= 1

    def part(self, rows: Sequence[int]) -> Slot:
        """Some of the rows as a slot that stands for all of them."""
        return Slot([self.raws[row] for row in rows], absent=len(self.raws) - len(rows))

    def take(self, rows: Sequence[int], other: Slot, places: Sequence[int]) -> None:
        """Take for each of these rows what `other` has at a place, be it a vector or an error."""
        if other.vectors is not None:
            if self.vectors is None:
                self.vectors = np.zeros((len(self.raws), other.vectors.shape[1]), np.float32)
            self.vectors[rows] = other.vectors[places]
        for row, place in zip(rows, places, strict=True):
            if place in other.errors:
                self.errors[row] = other.errors[place]
            if place in other.truncated:
                self.truncated.add(row)
        self.waiting -= len(rows)


@dataclass(frozen=True)
class _Item:
    value: Any
    cost: int
    slot: Slot
    row: int


def plan_batches(
    costs: Sequence[int], batch_size: int, batch_cost: int, most_padding: int | None = None
) -> list[range]:
    """Cut ascending costs into runs of at most `batch_size` rows and `batch_cost` padded cost.

    The padded cost of a run is its length times its last, largest cost. A row that alone is over
    `batch_cost` gets a run of its own. `most_padding` bounds what the padded cost is more than the
    sum of the costs; None: it is not bounded. The runs cover range(len(costs)) in order.

    The bound is to be what a call of the model costs in itself. Rows of very different costs then
    share a batch where that is cheaper than calls of their own, and no run is padded by more than
    another call would take. Where costs rise evenly, no other cut costs less; of nine corpora
    none could be cut for 1% less. A window with many rows of each cost has next to no padding:
    only runs of several costs have any, so in all at most `most_padding` for each cost but one.
    """
    runs = []
    start = total = 0
    for stop, cost in enumerate(costs):
        rows = stop - start
        padded = (rows + 1) * cost
        over = padded > batch_cost or (
            most_padding is not None and padded - total - cost > most_padding
        )
        if rows and (rows == batch_size or over):
            runs.append(range(start, stop))
            start, total = stop, 0
        total += cost
    if costs:
        runs.append(range(start, len(costs)))
    return runs


def encode(
    slots: Iterable[Slot],
    encoder: Encoder,
    *,
    threads: int,
    timed: Callable[[str, float], None],
    counted: Callable[[str, int], None] = lambda *_: None,
) -> Iterator[Slot]:
    """Fill the slots and yield them in the order they came.

    slots: read lazily, no further ahead than the window needs.
    threads: for `encoder.prepare`, beside the calling thread, which runs the model.
    timed: called with the name of a phase ("prepare wait", "model") and its seconds.
    counted: called with "tokens" and "padding", and how many of them the model was given; of
        encoders that pad.
    """
    with ThreadPoolExecutor(threads, "ember-prepare") as pool:
        yield from _Stream(slots, encoder, pool, threads, timed=timed, counted=counted).run()


class _Stream:
    """The state of one call of `encode`."""

    def __init__(
        self,
        slots: Iterable[Slot],
        encoder: Encoder,
        pool: ThreadPoolExecutor,
        threads: int,
        *,
        timed: Callable[[str, float], None],
        counted: Callable[[str, int], None],
    ) -> None:
        self.encoder = encoder
        self.pool = pool
        self.timed = timed
        self.counted = counted
        self.model = _Model(encoder, timed)
        self.pending: deque[Slot] = deque()
        self.preparing: deque[tuple[Future[Any], Slot, int]] = deque()
        self.window: list[_Item] = []
        self.carried: set[int] = set()
        self.window_cost = 0
        # Rows since the window was last drained, failed and absent ones included.
        self.collected = 0
        self.chunks = self._chunks(slots)
        # One window ahead, so that the model never waits for the preparation to start.
        self.lookahead = max(2 * threads, -(-encoder.window_rows // encoder.chunk_rows))

    def run(self) -> Iterator[Slot]:
        self._top_up()
        while self.preparing:
            self._collect()
            self._top_up()
            # Overdue: among rows that fail, a few good ones must not hold up all that follow.
            overdue = self.collected >= 4 * self.encoder.window_rows
            if overdue or not self.preparing or self._full():
                self._drain(final=not self.preparing)
            if overdue or not self.preparing:
                self.model.finish()
            while self.pending and self.pending[0].waiting == 0:
                yield self.pending.popleft()
        yield from self.pending  # slots without rows at the very end

    def _full(self) -> bool:
        rows = self.encoder.window_rows
        return len(self.window) >= rows or self.window_cost >= _WINDOW_COST * rows

    def _chunks(self, slots: Iterable[Slot]) -> Iterator[tuple[Slot, int, int]]:
        step = self.encoder.chunk_rows
        for slot in slots:
            self.pending.append(slot)
            # One chunk at least: however many slots stand for absent rows only, few are read ahead.
            for start in range(0, max(len(slot.raws), 1), step):
                yield slot, start, min(start + step, len(slot.raws))

    def _top_up(self) -> None:
        while len(self.preparing) < self.lookahead:
            chunk = next(self.chunks, None)
            if chunk is None:
                return
            slot, start, stop = chunk
            future = self.pool.submit(self.encoder.prepare, slot.raws[start:stop])
            self.preparing.append((future, slot, start))

    def _collect(self) -> None:
        future, slot, start = self.preparing.popleft()
        with _clock(self.timed, "prepare wait"):
            prepared = future.result()
        self.collected += len(prepared) + (0 if start else slot.absent)
        for row, outcome in enumerate(prepared, start):
            if isinstance(outcome, RowError):
                slot.fail(row, str(outcome))
            else:
                value, cost, *cut = outcome
                if any(cut):
                    slot.truncated.add(row)
                self.window.append(_Item(value, cost, slot, row))
                self.window_cost += cost

    def _drain(self, *, final: bool) -> None:
        """Run the window's batches; a runt at its end waits, once, for the next window."""
        self.collected = 0
        self.window.sort(key=lambda item: item.cost)  # stable: equal costs keep their order
        costs = [item.cost for item in self.window]
        encoder = self.encoder
        runs = plan_batches(costs, encoder.batch_size, encoder.batch_cost, encoder.most_padding)
        kept: list[_Item] = []
        if runs and not final and self._may_wait(self.window[runs[-1].start :]):
            kept = self.window[runs.pop().start :]
        self._count(costs, runs)
        for run in runs:
            self.model.run([self.window[index] for index in run])
            self._top_up()
        self.window = kept
        self.window_cost = sum(item.cost for item in kept)
        self.carried = {id(item) for item in kept}

    def _count(self, costs: Sequence[int], runs: Sequence[range]) -> None:
        """Count what is about to run. Halved for lack of memory, it is padded by no more."""
        if self.encoder.most_padding is None or not runs:
            return
        tokens = sum(costs[: runs[-1].stop])
        padded = sum(len(run) * costs[run[-1]] for run in runs)
        self.counted("tokens", tokens)
        self.counted("padding", padded - tokens)

    def _may_wait(self, items: list[_Item]) -> bool:
        """Has this last batch room for one more row, and none of it has waited before?

        A row that waited twice might wait for ever, and with it the output of its slot.
        """
        room = (
            len(items) < self.encoder.batch_size
            and (len(items) + 1) * items[-1].cost <= self.encoder.batch_cost
        )
        return room and not any(id(item) in self.carried for item in items)


class _Model:
    """The encoder, given batch after batch, and fewer rows a batch where memory runs out."""

    def __init__(self, encoder: Encoder, timed: Callable[[str, float], None]) -> None:
        self.encoder = encoder
        self.timed = timed
        self.under_way: deque[tuple[list[_Item], Any]] = deque()

    def run(self, items: list[_Item]) -> None:
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
            with _clock(self.timed, "model"):
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
                with _clock(self.timed, "model"):
                    vectors = encoder.finish(started)
            except Exception as error:
                self._lower(items, error)
            else:
                _fill(items, vectors)
                continue
            del started  # and with it what it holds of the device's memory
            self._run_alone(items)

    def _run_alone(self, items: list[_Item]) -> None:
        """Run a batch, or parts of it that fit, with nothing else under way."""
        self.finish()
        if len(items) > self.encoder.batch_size:
            for half in _halves(items):
                self._run_alone(half)
            return
        try:
            with _clock(self.timed, "model"):
                vectors = self.encoder.run([item.value for item in items])
        except Exception as error:
            if len(items) == 1:
                raise
            self._lower(items, error)
        else:
            _fill(items, vectors)
            return
        self._run_alone(items)

    def _lower(self, items: list[_Item], error: Exception) -> None:
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


def _halves(items: list[_Item]) -> tuple[list[_Item], list[_Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def _fill(items: Sequence[_Item], vectors: Iterable[Any]) -> None:
    for item, vector in zip(items, vectors, strict=True):
        item.slot.fill(item.row, vector)


@contextmanager
def _clock(timed: Callable[[str, float], None], phase: str) -> Iterator[None]:
    start = perf_counter()
    try:
        yield
    finally:
        timed(phase, perf_counter() - start)
