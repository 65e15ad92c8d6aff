"""Texts to token ids, cut at a model's length, reading no more of a long text than decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ember.worker.rows import RowError

__all__ = ["MOST_CHARACTERS", "TextTokens", "Tokens", "padded"]

Tokens = npt.NDArray[np.int64]
"""One text for a model: (keys, t). The first line holds the ids."""

# A long text is first read up to this many characters a token. Languages need one to eight.
_CHARACTERS_A_TOKEN = 16
_FEWEST_CHARACTERS = 1024
# Tokenizers take some 200 bytes of memory a character, and slow ones a time that grows with the
# square of a word's length.
MOST_CHARACTERS = 1_000_000
_EXAMPLE = "the quick brown fox jumps over a lazy dog, 12 cats and 7 mice"


class TextTokens:
    """A tokenizer of transformers that cuts at `longest` tokens, special ones included.

    tokenizer: from AutoTokenizer.
    keys: what of the tokenizer's output a model takes, by line of `Tokens`; ids first.
    side: "right" cuts the end of a long text off, "left" its beginning; None: as the tokenizer's
        files have it.

    """

    def __init__(
        self,
        tokenizer: Any,
        longest: int,
        keys: Sequence[str] = ("input_ids",),
        side: Literal["right", "left"] | None = None,
    ) -> None:
        self.longest = longest
        self.keys = tuple(keys)
        self._tokenizer = tokenizer
        self._side = side or tokenizer.truncation_side
        tokenizer.truncation_side = self._side

    def __call__(self, texts: Sequence[str | RowError]) -> list[Tokens | RowError]:
        """The tokens of each text, without what `cut` says beside them."""
        return [each if isinstance(each, RowError) else each[0] for each in self.cut(texts)]

    def cut(self, texts: Sequence[str | RowError]) -> list[tuple[Tokens, bool] | RowError]:
        """The tokens of each text, and whether it was cut, as far as the tokenizer tells.

        An error for a text that has no tokens, or none within reach. Equal to those of the whole
        text, cut. Errors in place of texts stay. For threads after `settle`.
        """
        bound = max(_CHARACTERS_A_TOKEN * self.longest, _FEWEST_CHARACTERS)
        short = iter(
            self._tokenize([text for text in texts if isinstance(text, str) and len(text) <= bound])
        )
        outcomes: list[tuple[Tokens, bool] | RowError] = []
        for text in texts:
            if isinstance(text, RowError):
                outcomes.append(text)
                continue
            outcome = next(short) if len(text) <= bound else self._of_long(text, bound)
            if not isinstance(outcome, RowError) and not outcome[0].shape[1]:
                outcome = RowError("no token", "the tokenizer finds none in this text")
            outcomes.append(outcome)
        return outcomes

    def settle(self, longest: int) -> None:
        """Cut at `longest` from now on.

        Sets the tokenizer's truncation, which threads must not see half done.
        """
        self.longest = longest
        self._tokenize([_EXAMPLE])

    def example(self) -> Tokens:
        """The tokens of some text; of some words, where the tokenizer knows no English."""
        (made,) = self([_EXAMPLE])
        if not isinstance(made, RowError):
            return made
        special = set(self._tokenizer.all_special_ids)
        ids = [each for each in range(len(self._tokenizer)) if each not in special][:16]
        return np.asarray([ids, *([0] * len(ids) for _ in self.keys[1:])], np.int64)

    def _of_long(self, text: str, size: int) -> tuple[Tokens, bool] | RowError:
        """Of a part of the text, the same as of a part half as long: more would change nothing.

        What a tokenizer makes of a text's beginning depends on a few words ahead at most, and
        both parts end between two words. Of one endless word all is read: its first pieces may
        depend on its last letter.
        """
        before: Tokens | None = None
        while size < min(len(text), MOST_CHARACTERS):
            part = _part(text, size, self._side)
            if part is None:
                break
            ((tokens, cut),) = self._tokenize([part])
            if cut and before is not None and np.array_equal(before, tokens):
                return tokens, True
            before = tokens if cut else None
            size = 2 * size + 1  # odd, or what repeats itself would be cut at the same place
        if len(text) <= MOST_CHARACTERS:
            return self._tokenize([text])[0]
        return RowError(
            "too long",
            f"{len(text)} characters, of which {MOST_CHARACTERS} do not settle its tokens",
        )

    def _tokenize(self, texts: list[str]) -> list[tuple[Tokens, bool]]:
        """Tokens of each text, and whether it was cut."""
        if not texts:
            return []
        encoded = self._tokenizer(
            texts, truncation=True, max_length=self.longest, return_attention_mask=False
        )
        lines = list(zip(*(encoded[key] for key in self.keys), strict=True))
        if fast := encoded.encodings:
            cuts = [bool(each.overflowing) for each in fast]
        else:
            cuts = [self._overflows(text, line[0]) for text, line in zip(texts, lines, strict=True)]
        return [(np.asarray(line, np.int64), cut) for line, cut in zip(lines, cuts, strict=True)]

    def _overflows(self, text: str, ids: Sequence[int]) -> bool:
        """Was this text cut? Tokenizers in Python do not tell."""
        if len(ids) < self.longest:
            return False
        return len(self._tokenizer(text, verbose=False)["input_ids"]) > len(ids)


def _part(text: str, size: int, side: str) -> str | None:
    """At most `size` characters of one end of the text, between two words; None if that is far."""
    if side == "left":
        mirrored = _part(text[: -size - 2 : -1], size, "right")
        return None if mirrored is None else mirrored[::-1]
    if text[size - 1 : size + 1].strip() != text[size - 1 : size + 1]:
        return text[:size]
    words = text[:size].rsplit(None, 1)
    return words[0] if len(words) == 2 and 2 * len(words[0]) >= size else None


def padded(
    items: Sequence[Tokens], keys: Sequence[str], padding: Mapping[str, int], width: int = 0
) -> tuple[dict[str, Tokens], Tokens]:
    """Texts as arrays (n, t) by key, padded on the right to `width` at least, and the mask.

    padding: the value of a key behind a text's end; 0 for a key that it lacks.

    Positions count from the left in every model that takes none, so nothing else is like the text
    alone.
    """
    width = max(width, *(each.shape[1] for each in items))
    mask = np.zeros((len(items), width), np.int64)
    for row, each in enumerate(items):
        mask[row, : each.shape[1]] = 1
    inputs = {}
    for line, key in enumerate(keys):
        inputs[key] = np.full(mask.shape, padding.get(key, 0), np.int64)
        for row, each in enumerate(items):
            inputs[key][row, : each.shape[1]] = each[line]
    return inputs, mask
