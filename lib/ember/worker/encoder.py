"""What a task and a model agree on: the encoder that a model is, and the slots that it fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ember.worker.rows import RowError

__all__ = ["Encoder", "Overlapping", "Prepared", "Slot"]

Matrix = npt.NDArray[np.float32]
Prepared = tuple[Any, int] | tuple[Any, int, bool]
"""A row's input for the model and its cost; True behind them where the text was cut to fit."""


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
