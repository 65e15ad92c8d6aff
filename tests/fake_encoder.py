"""An encoder without a model, and rows for it, for the tests of batches."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.rows import RowError


class OutOfMemory(Exception):
    pass


class FakeEncoder:
    """Rows are b"<number>:<cost>"; a row's vector is (number, cost). b"bad" cannot be prepared."""

    device = "fake"

    def __init__(
        self,
        *,
        chunk: int = 4,
        window: int = 8,
        batch: int = 4,
        cost: int = 10**9,
        fits: float = 1e9,
        padding: int | None = None,
    ) -> None:
        self.most_padding = padding
        self.chunk_rows, self.window_rows = chunk, window
        self.batch_size, self.batch_cost = batch, cost
        self.fits = fits
        self.calls: list[list[tuple[int, int]]] = []
        self.tried: list[int] = []
        self.prepared = 0
        self.model_threads: set[int] = set()
        self.prepare_threads: set[int] = set()

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Any, int] | RowError]:
        assert len(raws) <= self.chunk_rows
        self.prepare_threads.add(threading.get_ident())
        self.prepared += len(raws)
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: bytes | None) -> tuple[Any, int] | RowError:
        if raw is None or raw == b"bad":
            return RowError("bad row", "of a test")
        number, cost = map(int, raw.split(b":"))
        return (number, cost), cost

    def run(self, items: Sequence[Any]) -> np.ndarray:
        self.model_threads.add(threading.get_ident())
        self.tried.append(len(items))
        if len(items) > self.fits:
            raise OutOfMemory
        self.calls.append(list(items))
        return np.array(items, np.float32).reshape(len(items), 2)

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, OutOfMemory)


def slots_of(rows: Sequence[bytes | None], sizes: Iterable[int]) -> Iterator[Slot]:
    """The rows in blocks of these sizes, and the rest in a block of its own."""
    start = 0
    for size in [*sizes, len(rows)]:
        yield Slot(rows[start : start + size], tag=start)
        start += size


def encoded(slots: Iterable[Slot], encoder: FakeEncoder, threads: int = 2) -> list[Slot]:
    return list(encode(slots, encoder, threads=threads, timed=lambda *_: None))


def even(n: int, cost: int = 1) -> list[bytes | None]:
    return [f"{number}:{cost}".encode() for number in range(n)]


costs = st.integers(1, 40)
rows_strategy = st.lists(st.none() | costs, max_size=80)
sizes_strategy = st.lists(st.integers(0, 13), max_size=20)


@st.composite
def encoders(draw: st.DrawFn, **fixed: Any) -> FakeEncoder:
    batch = draw(st.integers(1, 9))
    drawn = {
        "chunk": draw(st.integers(1, 7)),
        "window": draw(st.integers(1, 40)),
        "batch": batch,
        "cost": draw(st.integers(1, 120)),
        "padding": draw(st.none() | st.integers(0, 30)),
    }
    return FakeEncoder(**{**drawn, **fixed})


def endless(pattern: Sequence[str], block: int, taken: list[int]) -> Iterator[Slot]:
    """Blocks of rows for ever: `pattern` gives cost or "bad", its last entry repeats."""
    numbers = count()
    while True:
        raws = []
        for number in islice(numbers, block):
            kind = pattern[min(number, len(pattern) - 1)]
            raws.append(b"bad" if kind == "bad" else f"{number}:{kind}".encode())
        taken.append(len(taken))
        assert len(taken) < 2000, "read on without giving anything back"
        yield Slot(raws)


PATTERNS = {
    "equal": ["1"],
    "the first the longest": ["99", "1"],
    "the first the shortest": ["1", "99"],
    "one good row, then none": ["1", "bad"],
    "three good rows, then none": ["1", "99", "1", "bad"],
    "only bad rows": ["bad"],
    "bad rows, then good ones": [*["bad"] * 50, "1"],
}
