"""Rows of texts to tokens, and batches of tokens to calls of a model: the same in every runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ember.worker.models.text_fit import Fit
from ember.worker.models.text_tokens import TextTokens, Tokens
from ember.worker.rows import RowError, to_text

__all__ = ["TextRows"]

Matrix = npt.NDArray[np.float32]


class TextRows:
    """What is done to the rows of a text model beside running it.

    tokens: cuts at the fit's length. prompt: stands before each text. max_bytes: of a text.
    fit: how texts are given to the model. vocabulary: how many ids the model has vectors for.
    """

    def __init__(
        self, tokens: TextTokens, prompt: str, max_bytes: int, fit: Fit, vocabulary: int
    ) -> None:
        self.fit = fit
        self._tokens = tokens
        self._prompt = prompt
        self._max_bytes = max_bytes
        self.vocabulary = vocabulary

    def most_padding(self, batch_tokens: int) -> int:
        """Tokens of padding that a batch of so many may hold: about what a call takes in itself.

        0 where texts of several lengths do not go together: a batch of them is several calls.
        """
        return batch_tokens // 64 if self.fit.together == "any" else 0

    def batches(
        self, given: int | None, *, rows: int, tokens: int, window: int
    ) -> tuple[int, int, int]:
        """Most rows and most tokens of a batch, and the rows of a window.

        given: rows of an average batch, as the user wants it; None: as the others say. A window is
        of `window` rows or more.
        """
        if given:
            rows, tokens = given, given * min(self.fit.longest, 128)
        return rows, tokens, max(window, 32 * rows)

    def prepare(
        self, raws: Sequence[bytes | RowError | None]
    ) -> list[tuple[Tokens, int, bool] | RowError]:
        """Tokens (keys, t) int64 of each row, its length, and whether it was cut to the model's."""
        return [self._item(cut) for cut in self._tokens.cut([self._text(raw) for raw in raws])]

    def _text(self, raw: bytes | RowError | None) -> str | RowError:
        """The row's text behind the prompt."""
        if isinstance(raw, RowError):  # no chunk could be made of the text
            return raw
        try:
            return self._prompt + to_text(raw, self._max_bytes)
        except RowError as error:
            return error

    def _item(self, outcome: tuple[Tokens, bool] | RowError) -> tuple[Tokens, int, bool] | RowError:
        if isinstance(outcome, RowError):
            return outcome
        tokens, was_cut = outcome
        if (largest := int(tokens[0].max())) >= self.vocabulary:
            known = f"the tokenizer says {largest}, the model has vectors for {self.vocabulary}"
            return RowError("unknown token", known)
        return tokens, self.fit.width([tokens.shape[1]]), was_cut

    def run(self, items: Sequence[Tokens], call: Callable[[list[Tokens], int], Matrix]) -> Matrix:
        """Vectors (n, d) float32 of tokens n × (keys, t), in groups that the model allows.

        call: makes vectors of texts, padded to a width.
        """

        def begin(some: list[Tokens], width: int) -> Callable[[], Matrix]:
            made = call(some, width)
            return lambda: made

        return self.start(items, begin)()

    def start(
        self, items: Sequence[Tokens], begin: Callable[[list[Tokens], int], Callable[[], Matrix]]
    ) -> Callable[[], Matrix]:
        """As `run`, with a function that waits for the vectors, as `begin` returns one."""
        lengths = [each.shape[1] for each in items]
        groups = list(self.fit.groups(lengths))
        waits = [
            begin([items[row] for row in rows], self.fit.width([lengths[row] for row in rows]))
            for rows in groups
        ]
        if len(waits) == 1:
            return waits[0]
        order = np.argsort(np.concatenate(groups))
        return lambda: np.concatenate([wait() for wait in waits])[order]
