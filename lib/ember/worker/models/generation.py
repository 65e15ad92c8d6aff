"""Requests for texts, one a row, and the texts generated for them: into slots and out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ember.worker.encoder import Slot
from ember.worker.rows import RowError, raw_values
from ember.worker.stats import TaskStats

__all__ = ["Description", "Generated", "Request", "TextSlot", "request_slot"]


@dataclass(frozen=True)
class Request:
    """A row: the text to continue, or an image and, where the model takes one, a prompt.

    problem: why the row cannot be described, where that is known already.
    key: a hash of the row's id, 64 bits with a sign, from which its random numbers come.
    """

    content: bytes | None
    prompt: bytes | None = None
    problem: str | None = None
    key: int = 0

    @property
    def asked(self) -> bytes | None:
        """What a text depends on that is not drawn at random; None where there will be no text."""
        if self.problem is not None or self.content is None:
            return None
        prompt = b"" if self.prompt is None else b"%d:%b" % (len(self.prompt), self.prompt)
        return b"%b\0%b" % (prompt, self.content)


@dataclass(frozen=True)
class Generated:
    """A text, how many tokens the model generated for it, and whether the row was run again alone.

    Counts the tokens of the text and the end token, not those of a discarded attempt.
    """

    text: str
    tokens: int
    alone: bool = False


class TextSlot(Slot):
    """A slot that holds texts, and counts in `stats` what was generated."""

    def __init__(
        self, raws: Sequence[Request], tag: Any, stats: TaskStats, *, absent: int = 0
    ) -> None:
        super().__init__(raws, tag, absent=absent)
        self.texts: list[str | None] = [None] * len(raws)
        self.stats = stats

    def fill(self, row: int, vector: Generated | RowError) -> None:
        if isinstance(vector, RowError):
            self.fail(row, str(vector))
            return
        self.texts[row] = vector.text
        self.stats.count("generated_tokens", vector.tokens)
        self.stats.count("rows_run_alone", int(vector.alone))
        self.waiting -= 1

    def part(self, rows: Sequence[int]) -> Slot:
        raws = [self.raws[row] for row in rows]
        return TextSlot(raws, None, self.stats, absent=len(self.raws) - len(rows))

    def take(self, rows: Sequence[int], other: Slot, places: Sequence[int]) -> None:
        super().take(rows, other, places)
        if isinstance(other, TextSlot):
            for row, place in zip(rows, places, strict=True):
                self.texts[row] = other.texts[place]


@dataclass(frozen=True)
class Description:
    """The texts of a slot as a column; see ember.worker.results.Result."""

    name: str = "description"

    def column(self, slot: Slot) -> pa.Array:
        texts = slot.texts if isinstance(slot, TextSlot) else []
        return pa.array(texts, pa.string())


def request_slot(part: pa.RecordBatch, stats: TaskStats) -> Slot:
    """The slot of a batch (id, content, prompt, problem, key); see Request for the last four."""
    contents, prompts = (raw_values(part.column(number)) for number in (1, 2))
    problems, keys = (part.column(number).to_pylist() for number in (3, 4))
    requests = map(Request, contents, prompts, problems, keys)
    return TextSlot(list(requests), part.select([0]), stats)
