"""A tokenizer of the tokenizers library, as `TextTokens` and `Splitter` use one of transformers.

Importing transformers takes a worker three seconds and brings torch along; this does not. The
driver writes the file from the folder's own tokenizer and holds the two against each other
(`ember.worker.models.openvino_transformers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

__all__ = ["FastTokenizer"]


class FastTokenizer:
    """The part of transformers' fast tokenizers that embedding texts needs.

    file: a `tokenizer.json`. side: "right" or "left", where long texts are cut.
    """

    is_fast = True

    def __init__(self, file: str, side: str) -> None:
        self.backend_tokenizer: Any = Tokenizer.from_file(file)
        self.backend_tokenizer.no_padding()
        self.truncation_side = side
        self._longest: int | None = None

    def __call__(
        self, texts: Sequence[str], *, truncation: bool, max_length: int, **_: Any
    ) -> _Encoded:
        """Tokens of each text, special ones included, at most `max_length` of them."""
        wanted = max_length if truncation else None
        if wanted != self._longest:  # which threads must not see half done
            if wanted is None:
                self.backend_tokenizer.no_truncation()
            else:
                self.backend_tokenizer.enable_truncation(wanted, direction=self.truncation_side)
            self._longest = wanted
        return _Encoded(self.backend_tokenizer.encode_batch(list(texts)))


class _Encoded:
    """Encodings by the names that transformers has for what is in them."""

    def __init__(self, encodings: list[Encoding]) -> None:
        self.encodings = encodings

    def __getitem__(self, key: str) -> Iterator[list[int]]:
        line = {"input_ids": "ids", "token_type_ids": "type_ids"}[key]
        return (getattr(each, line) for each in self.encodings)
