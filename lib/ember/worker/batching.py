"""Rows to batches and back: full batches across Arrow batches, results in the order of the rows.

    rows → chunks, prepared on threads (decode, tokenize) → a window of items, sorted by cost
         → batches of similar cost → the model → vectors, scattered to their rows

What is held at any time is bounded: at most `lookahead` chunks being prepared, one window of
prepared items, and the slots (blocks of rows) that still wait for a vector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ember.worker.encoder import Encoder, Slot
from ember.worker.model_calls import Item, ModelCalls, clock
from ember.worker.rows import RowError

__all__ = ["encode", "plan_batches"]

# Cost of a row, on average, at which a window is full before it has its rows: so many tokens are
# some ten kilobytes, and thousands of long texts would be hundreds of megabytes.
_WINDOW_COST = 512


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
        self.model = ModelCalls(encoder, timed)
        self.pending: deque[Slot] = deque()
        self.preparing: deque[tuple[Future[Any], Slot, int]] = deque()
        self.window: list[Item] = []
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
        with clock(self.timed, "prepare wait"):
            prepared = future.result()
        self.collected += len(prepared) + (0 if start else slot.absent)
        for row, outcome in enumerate(prepared, start):
            if isinstance(outcome, RowError):
                slot.fail(row, str(outcome))
            else:
                value, cost, *cut = outcome
                if any(cut):
                    slot.truncated.add(row)
                self.window.append(Item(value, cost, slot, row))
                self.window_cost += cost

    def _drain(self, *, final: bool) -> None:
        """Run the window's batches; a runt at its end waits, once, for the next window."""
        self.collected = 0
        self.window.sort(key=lambda item: item.cost)  # stable: equal costs keep their order
        costs = [item.cost for item in self.window]
        encoder = self.encoder
        runs = plan_batches(costs, encoder.batch_size, encoder.batch_cost, encoder.most_padding)
        kept: list[Item] = []
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

    def _may_wait(self, items: list[Item]) -> bool:
        """Has this last batch room for one more row, and none of it has waited before?

        A row that waited twice might wait for ever, and with it the output of its slot.
        """
        room = (
            len(items) < self.encoder.batch_size
            and (len(items) + 1) * items[-1].cost <= self.encoder.batch_cost
        )
        return room and not any(id(item) in self.carried for item in items)
