"""Batches under way beside the calling thread, as on a GPU: `encoder.Overlapping`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.batching import encode
from ember.worker.encoder import Overlapping, Slot
from ember.worker.rows import RowError
from fake_encoder import (
    PATTERNS,
    FakeEncoder,
    OutOfMemory,
    encoded,
    encoders,
    endless,
    even,
    rows_strategy,
    sizes_strategy,
    slots_of,
)


class OverlappingEncoder(FakeEncoder):
    """A FakeEncoder on a device that has memory for so many rows, all batches under way together.

    late: memory runs out when a batch is waited for, not when it is started.
    """

    in_flight = 2

    def __init__(self, *, memory: float = 1e9, late: bool = False, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.memory, self.late = memory, late
        self.under_way: deque[tuple[int, list[Any]]] = deque()
        self.log: list[tuple[str, int]] = []
        self.numbers = count()

    def start(self, items: Sequence[Any]) -> int:
        self.tried.append(len(items))
        used = sum(len(each) for _, each in self.under_way)
        if used + len(items) > self.memory and not self.late:
            raise OutOfMemory
        number = next(self.numbers)
        self.under_way.append((number, list(items)))
        assert len(self.under_way) <= self.in_flight
        self.log.append(("start", number))
        return number

    def finish(self, started: int) -> np.ndarray:
        used = sum(len(each) for _, each in self.under_way)
        number, items = self.under_way.popleft()
        assert number == started  # first come, first served
        if used > self.memory and self.late:
            raise OutOfMemory
        self.log.append(("finish", number))
        self.calls.append(items)
        return np.array(items, np.float32).reshape(len(items), 2)

    def run(self, items: Sequence[Any]) -> np.ndarray:
        return self.finish(self.start(items))


def as_overlapping(encoder: FakeEncoder, **changes: Any) -> OverlappingEncoder:
    sizes = {"chunk": encoder.chunk_rows, "window": encoder.window_rows}
    sizes |= {"batch": encoder.batch_size, "cost": encoder.batch_cost}
    return OverlappingEncoder(**sizes, **changes)


def outcome(slots: Sequence[Slot]) -> list[Any]:
    """Of each row its vector or its error."""
    return [
        (
            slot.tag,
            [slot.errors.get(row) or slot.vectors[row].tolist() for row in range(len(slot.raws))],
        )
        for slot in slots
    ]


@given(
    rows_strategy,
    sizes_strategy,
    encoders(),
    st.integers(1, 3),
    st.integers(1, 4),
    st.none() | st.integers(1, 12),
    st.booleans(),
)
def test_vectors_are_those_of_batches_one_by_one(
    drawn: list[int | None],
    sizes: list[int],
    plain: FakeEncoder,
    threads: int,
    in_flight: int,
    memory: int | None,
    late: bool,
) -> None:
    """Whatever the sizes, the rows that fail, and where memory runs out."""
    rows = [None if cost is None else f"{n}:{cost}".encode() for n, cost in enumerate(drawn)]
    overlapping = as_overlapping(plain, memory=memory or 1e9, late=late)
    overlapping.in_flight = in_flight
    done = encoded(slots_of(rows, sizes), overlapping, threads)
    assert outcome(done) == outcome(encoded(slots_of(rows, sizes), plain, threads))
    seen = sorted(number for call in overlapping.calls for number, _ in call)
    assert seen == [number for number, cost in enumerate(drawn) if cost is not None]
    assert not overlapping.under_way


@given(st.integers(1, 200), sizes_strategy, encoders(), st.integers(2, 4))
def test_the_next_batch_is_started_before_the_last_one_is_waited_for(
    n: int, sizes: list[int], plain: FakeEncoder, in_flight: int
) -> None:
    """Also from one window of rows to the next, and from one slot to the next."""
    encoder = as_overlapping(plain)
    encoder.in_flight = in_flight
    encoder.window_rows = max(encoder.window_rows, encoder.chunk_rows)  # so none is overdue
    encoded(slots_of(even(n), sizes), encoder)
    when = {event: position for position, event in enumerate(encoder.log)}
    batches = len(encoder.log) // 2
    for number in range(batches - in_flight + 1):
        assert when["start", number + in_flight - 1] < when["finish", number]
    for number in range(batches - in_flight):  # and no more are under way than that
        assert when["finish", number] < when["start", number + in_flight]


@given(st.integers(1, 80), st.integers(1, 16), st.integers(2, 40), st.booleans())
def test_where_memory_runs_out_fewer_rows_are_taken_and_no_fewer_than_that(
    n: int, batch: int, memory: int, late: bool
) -> None:
    encoder = OverlappingEncoder(batch=batch, window=32, memory=memory, late=late)
    encoded(slots_of(even(n), []), encoder)
    if 2 * batch <= memory:
        assert encoder.batch_size == batch
    # It was halved for the last time when two batches of its size were too much.
    assert encoder.batch_size == batch or 4 * encoder.batch_size >= memory - 1


def test_a_short_batch_that_fails_beside_a_long_one_costs_half_of_the_long_one() -> None:
    encoder = OverlappingEncoder(batch=16, window=32, memory=17)
    encoded(slots_of(even(18), []), encoder)
    assert [len(call) for call in encoder.calls] == [16, 2]
    assert encoder.batch_size == 8


@pytest.mark.parametrize("late", [False, True])
def test_a_row_for_which_memory_never_suffices_ends_the_stream(late: bool) -> None:
    encoder = OverlappingEncoder(memory=0, late=late)
    with pytest.raises(OutOfMemory):
        encoded(slots_of(even(9), []), encoder)


@pytest.mark.parametrize("method", ["start", "finish"])
def test_other_errors_of_either_half_propagate(method: str) -> None:
    encoder = OverlappingEncoder()
    plain, calls = getattr(encoder, method), count()

    def broken(given: Any) -> Any:
        if next(calls) == 2:
            raise ValueError("the device broke")
        return plain(given)

    setattr(encoder, method, broken)
    with pytest.raises(ValueError, match="the device broke"):
        encoded(slots_of(even(40), []), encoder)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("block", [1, 5, 50])
def test_no_row_is_held_for_ever_under_way(pattern: list[str], block: int) -> None:
    encoder = OverlappingEncoder(chunk=4, window=16, batch=8, cost=200)
    taken: list[int] = []
    out = encode(endless(pattern, block, taken), encoder, threads=2, timed=lambda *_: None)
    for done in range(1, 200):
        next(out)
        # As of batches one by one, and one more batch.
        assert (len(taken) - done) * block <= 8 * 16 + 8 + 8 * 4 + block
    out.close()


def test_an_encoder_with_one_batch_at_a_time_is_run() -> None:
    encoder = OverlappingEncoder()
    assert isinstance(encoder, Overlapping)
    encoder.in_flight = 1
    encoder.start = None  # type: ignore[assignment,method-assign]
    encoder.run = lambda items: FakeEncoder.run(encoder, items)  # type: ignore[method-assign]
    encoded(slots_of(even(40), []), encoder)
    assert len(encoder.calls) == 10


class TimedEncoder(OverlappingEncoder):
    """On a clock of its own: a device that takes `service` for a batch, a thread with its share.

    The device takes up batches in the order of their starts; the thread waits in `finish`.
    """

    def __init__(self, *, service: float, starting: float, filling: float, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.service, self.starting, self.filling = service, starting, filling
        self.now = 0.0
        self.device_free = 0.0
        self.ends: deque[float] = deque()
        self.busy: list[tuple[float, float]] = []

    def start(self, items: Sequence[Any]) -> int:
        self.now += self.starting  # stacking, launching
        begin = max(self.now, self.device_free)
        self.device_free = begin + self.service
        self.busy.append((begin, self.device_free))
        self.ends.append(self.device_free)
        return super().start(items)

    def finish(self, started: int) -> np.ndarray:
        self.now = max(self.now, self.ends.popleft()) + self.filling
        return super().finish(started)

    def share(self) -> float:
        """Of the time from the first batch's begin to the last one's end, that it was busy."""
        assert all(end <= begin for (_, end), (begin, _) in pairwise(self.busy))
        return sum(end - begin for begin, end in self.busy) / (self.busy[-1][1] - self.busy[0][0])


def busy_share(in_flight: int, between: float = 0.1, **times: float) -> float:
    """Of a stream of 100 batches whose slots a consumer takes `between` for."""
    encoder = TimedEncoder(batch=8, window=8, **times)
    encoder.in_flight = in_flight

    def consumed() -> Iterator[None]:
        for _ in encode(slots_of(even(800), [8] * 99), encoder, threads=2, timed=lambda *_: None):
            encoder.now += between
            yield

    assert len(list(consumed())) == 100
    assert len(encoder.calls) == 100
    return encoder.share()


@pytest.mark.parametrize(("starting", "filling"), [(0.1, 0.1), (0.5, 0.3), (0.8, 0.0), (0.0, 0.8)])
def test_a_device_is_kept_busy_as_long_as_the_thread_takes_less_time(
    starting: float, filling: float
) -> None:
    times = {"service": 1.0, "starting": starting, "filling": filling}
    assert busy_share(2, **times) >= 0.95
    # One batch at a time leaves it idle for as long as the thread works.
    expected = 1 / (1.1 + starting + filling)
    assert busy_share(1, **times) == pytest.approx(expected, rel=0.02)


def test_a_thread_that_takes_longer_is_what_a_device_waits_for() -> None:
    assert busy_share(2, service=1.0, starting=1.5, filling=0.4) == pytest.approx(0.5, rel=0.02)


def test_errors_of_rows_pass_through_an_overlapping_encoder() -> None:
    encoder = OverlappingEncoder()
    plain = encoder.finish

    def finish(started: int) -> list[Any]:
        return [RowError("odd", "row") if row[0] == 2 else row for row in plain(started)]

    encoder.finish = finish  # type: ignore[method-assign,assignment]
    (slot, _) = encoded(slots_of(even(5), [5]), encoder)
    assert slot.errors == {2: "odd: row"}
