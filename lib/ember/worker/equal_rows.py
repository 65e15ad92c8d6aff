"""Rows of equal content: the first one goes through the model, the others take what it got.

    slots → distinct: slots without the rows that equal an earlier one → `batching.encode`
          → restored: the slots that came in, with a vector or an error for every row

Corpora repeat themselves: one picture for many products, boilerplate, the same title a thousand
times. A row is compared with those that came before it in its task, by a hash of the content that
is at hand (of rows that name files, by their paths): nothing is read for it, and no content kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from ember.worker.encoder import Slot

__all__ = ["EqualRows", "own_bytes"]

# Distinct rows that are remembered, of some 300 bytes each: as many as the largest tasks have by
# default, those of texts on a GPU.
_ROWS = 32_768
# The memory of their vectors; of 2,048 numbers these are 8,192, eight tasks of images on a CPU.
_VECTOR_BYTES = 64 << 20


def own_bytes(raw: Any) -> bytes | None:
    """The content of a row that is its own bytes; None for one that has an error in their place."""
    return raw if isinstance(raw, bytes) else None


@dataclass(eq=False)
class _Source:
    """A slot that goes through the model, and what it has from there; then without its content."""

    slot: Slot


@dataclass
class _Plan:
    """A slot that came in, what goes through the model for it, and whose result each row takes.

    takes: for each source its own rows, and their places in the source. None: the slot itself
    goes through.
    """

    whole: Slot
    source: _Source
    takes: dict[_Source, tuple[list[int], list[int]]] | None = None


@dataclass
class EqualRows:
    """Finds the equal rows of one task.

    content: of a row, what the model's output depends on; None for one that is to be left alone.
    found: rows that took another one's result.

    The memory is bounded: of the first `rows` rows, or those whose vectors come to `vector_bytes`,
    the oldest are forgotten. Which rows are found depends on the rows alone, not on the time.
    """

    content: Callable[[Any], bytes | None] = own_bytes
    rows: int = _ROWS
    vector_bytes: int = _VECTOR_BYTES
    found: int = 0
    _known: dict[bytes, tuple[_Source, int]] = field(default_factory=dict)
    _plans: deque[_Plan] = field(default_factory=deque)

    def distinct(self, slots: Iterable[Slot]) -> Iterator[Slot]:
        """The slots to encode, one for each: itself, or the rows of it that equal none before.

        Of slots with equal rows the content is let go.
        """
        for slot in slots:
            plan = self._plan(slot)
            self._plans.append(plan)
            yield plan.source.slot

    def restored(self, done: Iterable[Slot]) -> Iterator[Slot]:
        """The slots that came in, filled, for those of `distinct`, encoded, in the same order."""
        for part in done:
            plan = self._plans.popleft()
            plan.source.slot = _without_content(part)
            if part.vectors is not None:
                self.rows = min(self.rows, self.vector_bytes // max(part.vectors[:1].nbytes, 1))
            if plan.takes is not None:
                for source, (rows, places) in plan.takes.items():
                    plan.whole.take(rows, source.slot, places)
                self.found += len(plan.whole.raws) - len(part.raws)
            yield plan.whole

    def _plan(self, slot: Slot) -> _Plan:
        source = _Source(slot)
        kept: list[int] = []
        takes: dict[_Source, tuple[list[int], list[int]]] = {source: ([], [])}
        for row, raw in enumerate(slot.raws):
            place = self._place(raw, source, len(kept))
            if place == (source, len(kept)):
                kept.append(row)
            rows, places = takes.setdefault(place[0], ([], []))
            rows.append(row)
            places.append(place[1])
        if len(kept) == len(slot.raws):
            return _Plan(slot, source)
        source.slot = slot.part(kept)
        slot.raws = [None] * len(slot.raws)
        return _Plan(slot, source, takes)

    def _place(self, raw: Any, source: _Source, place: int) -> tuple[_Source, int]:
        """Where the result of a row will be: where that of an equal one is, or (source, place)."""
        content = self.content(raw)
        if content is None:
            return source, place
        # Of rows that are not trusted: two contents of one hash must be out of reach.
        digest = hashlib.sha256(content).digest()
        if (known := self._known.get(digest)) is not None:
            return known
        self._known[digest] = source, place
        while len(self._known) > self.rows:  # the oldest first, as dictionaries keep their order
            del self._known[next(iter(self._known))]
        return source, place


def _without_content(slot: Slot) -> Slot:
    results = copy(slot)
    results.raws = ()
    return results
