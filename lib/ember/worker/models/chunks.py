"""Long texts in overlapping windows of tokens: where each begins and ends, and back to rows.

a batch of texts → chunks (texts of their own, 0, 1, 2, … of each row) → slots for `encode`
                 → a row for each chunk, or with `pool` the mean of each text's chunks
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ember.errors import InvalidInput
from ember.worker.encoder import Slot
from ember.worker.models.text_tokens import MOST_CHARACTERS
from ember.worker.results import unit_length
from ember.worker.rows import RowError, raw_values, to_text

__all__ = [
    "CHUNK_COLUMNS",
    "Chunking",
    "Splitter",
    "chunk_slots",
    "joined",
    "texts_in",
    "windows",
]

# Beside the id: the number of a text's chunk from 0, and the characters it goes from and to.
CHUNK_COLUMNS = ("chunk", "start", "end")
# Chunks of a slot; small, so that rows travel on while others are still being embedded.
_SLOT_CHUNKS = 512
# A longer text is tokenized in pieces of so many characters, for the tokenizer's memory.
_PIECE = 100_000
Span = tuple[int, int]


@dataclass(frozen=True)
class Chunking:
    """Windows of at most `tokens` tokens, of which `overlap` are those at the last one's end.

    Neither special tokens nor the prompt's count. pool: one vector for each text, the mean of its
    chunks', each of which counts the same.
    """

    tokens: int
    overlap: int
    pool: Literal["mean"] | None = None


def windows(begins: Sequence[bool], tokens: int, overlap: int) -> list[Span]:
    """Windows (first, last + 1) over tokens, at most `tokens` long, that cover them all.

    begins: does a word begin with this token? Windows end, and the next ones begin, where a word
    does, unless that is farther back than `overlap`, or half a window where that is more.
    """
    found: list[Span] = []
    reach = max(overlap, tokens // 2)

    def end(start: int) -> int:
        stop = min(start + tokens, len(begins))
        return stop if stop == len(begins) else _back(begins, stop, start + reach)

    start = last = 0
    while True:
        stop = end(start)
        if stop <= last:  # it went back to a word's beginning, and so far that nothing is new
            start = last - overlap
            stop = end(start)
        found.append((start, stop))
        if stop == len(begins):
            return found
        start, last = _back(begins, stop - overlap, max(start, stop - 2 * overlap - 1)), stop


def _back(begins: Sequence[bool], at: int, floor: int) -> int:
    """The last place above `floor`, and not after `at`, where a word begins; else `at`."""
    return next((place for place in range(at, floor, -1) if begins[place]), at)


class Splitter:
    """Texts to the spans of characters of their chunks.

    tokenizer: of transformers, on top of the tokenizers library.
    room: tokens that the model takes beside its special ones and the prompt.
    max_bytes: of a text.

    Raises InvalidInput for a tokenizer that does not say where its tokens are, and where `overlap`
    leaves nothing of a window.
    """

    def __init__(
        self,
        tokenizer: Any,
        room: int,
        chunking: Chunking,
        piece: int = _PIECE,
        max_bytes: int | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InvalidInput(
                "chunk needs a tokenizer that says where its tokens are; this model's does not"
            )
        self.tokens = min(chunking.tokens, room)
        self.overlap = chunking.overlap
        if self.overlap >= self.tokens:
            raise InvalidInput(
                f"chunk.overlap is {self.overlap}, and a chunk has at most {self.tokens} tokens in "
                "this model; give less"
            )
        # A copy: `prepare` has its own truncation, on other threads.
        self._tokenizer = deepcopy(tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._piece = piece
        self.max_bytes = max_bytes

    def spans(self, text: str) -> list[Span]:
        """(start, end) of each chunk, in characters; the first starts at 0, the last ends with
        the text.

        Raises RowError for a text of so few tokens in so many characters that no chunk ends.
        A text of several pieces is taken up again where the last, unfinished window of a piece
        begins.
        """
        spans: list[Span] = []
        at, size = 0, self._piece
        while True:
            found = self._of_piece(text[at : at + size])
            if at + size >= len(text):
                break
            if len(found) < 2:  # few tokens in many characters
                size *= 2
                if size > MOST_CHARACTERS:
                    raise RowError("too long", f"{size // 2} characters make no whole chunk")
                continue
            spans += [(at + start, at + end) for start, end in found[:-1]]
            at += found[-1][0]
            size = self._piece
        spans += [(at + start, at + end) for start, end in found]
        spans = [span for span in spans if text[slice(*span)].strip()] or [(0, 0)]
        spans[0] = (0, spans[0][1])
        spans[-1] = (spans[-1][0], len(text))
        return spans

    def _of_piece(self, piece: str) -> list[Span]:
        encoding = self._tokenizer.encode(piece, add_special_tokens=False)
        if not encoding.offsets:
            return []
        words = encoding.word_ids
        begins = [n == 0 or word is None or word != words[n - 1] for n, word in enumerate(words)]
        offsets = encoding.offsets
        return [
            (offsets[first][0], offsets[stop - 1][1])
            for first, stop in windows(begins, self.tokens, self.overlap)
        ]


@dataclass
class _Rows:
    """Chunks of some rows on their way into a slot."""

    raws: list[bytes | RowError | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    spans: list[tuple[int | None, int | None]] = field(default_factory=list)

    def slot(self, ids: pa.RecordBatch) -> Slot:
        starts, ends = ([span[end] for span in self.spans] for end in (0, 1))
        columns = [ids.column(0).take(pa.array(self.rows, pa.int64()))]
        columns += [pa.array(each, pa.int32()) for each in (self.numbers, starts, ends)]
        tag = pa.RecordBatch.from_arrays(columns, names=[ids.schema.names[0], *CHUNK_COLUMNS])
        return Slot(self.raws, tag)


def chunk_slots(
    parts: Iterable[pa.RecordBatch], splitter: Splitter, *, whole: bool
) -> Iterator[Slot]:
    """Slots of chunks, of batches (id, content); the tag has columns id, chunk, start, end.

    A row without a text is one chunk without a start or an end, whose content fails in `prepare`.
    whole: all chunks of a text are in one slot.
    """
    for part in parts:
        ids = part.select([0])
        waiting = _Rows()
        for row, raw in enumerate(raw_values(part.column(1))):
            for number, (content, span) in enumerate(_chunks(raw, splitter)):
                if len(waiting.raws) >= _SLOT_CHUNKS and not (whole and number):
                    yield waiting.slot(ids)
                    waiting = _Rows()
                waiting.raws.append(content)
                waiting.rows.append(row)
                waiting.numbers.append(number)
                waiting.spans.append(span)
        yield waiting.slot(ids)


def _chunks(
    raw: bytes | None, splitter: Splitter
) -> Iterator[tuple[bytes | RowError | None, tuple[int | None, int | None]]]:
    try:
        text = to_text(raw, splitter.max_bytes)
        spans = splitter.spans(text)
    except RowError as error:
        yield error, (None, None)
        return
    for start, end in spans:
        yield text[start:end].encode(), (start, end)


def texts_in(slot: Slot) -> int:
    """How many texts begin in a slot of chunks."""
    return int((slot.tag.column(1).to_numpy() == 0).sum())


def joined(slot: Slot, *, unit: bool = False) -> Slot:
    """A filled slot of whole texts as one of rows: the mean of each text's vectors.

    unit: of the vectors at unit length, as the chunks would have them.
    A text fails with the first of its chunks that does.
    """
    firsts = np.flatnonzero(slot.tag.column(1).to_numpy() == 0)
    made = Slot([None] * len(firsts), slot.tag.select([0]).take(pa.array(firsts)))
    for chunk in sorted(slot.errors, reverse=True):
        made.errors[int(np.searchsorted(firsts, chunk, "right")) - 1] = slot.errors[chunk]
    if slot.vectors is not None:
        vectors = unit_length(slot.vectors) if unit else slot.vectors
        made.vectors = _means(vectors, firsts)
    return made


def _means(vectors: npt.NDArray[np.float32], firsts: npt.NDArray[np.int64]) -> Any:
    counts = np.diff(np.append(firsts, len(vectors)))
    sums = np.add.reduceat(vectors, firsts, axis=0, dtype=np.float64)
    return (sums / counts[:, None]).astype(np.float32)
