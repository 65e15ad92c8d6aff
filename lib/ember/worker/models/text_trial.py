"""A text model under trial, and the beginning of every trial: what its tables say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import maxsize
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.models.first_layer import Lookup, lookups, states_after, unchanged
from ember.worker.models.text_call import TextCall
from ember.worker.models.text_tokenizer import stated_length
from ember.worker.models.text_tokens import TextTokens, Tokens

__all__ = ["LONGER", "SHORT", "Trial", "passes_first_layer", "resized", "try_tables"]

Matrix = npt.NDArray[np.float32]
# Tokens of two texts that any model takes.
SHORT, LONGER = 8, 24


class Trial:
    """A loaded model under trial.

    tokens: cuts texts at the length that the files tell.
    tolerance: vectors are the same within this, relative to the largest value.
    scores: what texts become, padded to the longest or to so many tokens, (n, d): vectors, or by
        default the scores of classes.
    """

    def __init__(
        self,
        model: Any,
        tokens: TextTokens,
        call: TextCall,
        tolerance: float,
        scores: Callable[[Sequence[Tokens], int], Matrix] | None = None,
    ) -> None:
        self.model = model
        self.example = tokens.example()
        self.stated = tokens.longest
        self.call = call
        self.tolerance = tolerance
        self.scores = scores or self._logits
        self.restore = unchanged(model)

    def forward(self, items: Sequence[Tokens], width: int) -> Any:
        """The model's output for texts, padded to the longest or to so many tokens."""
        return self.call(items, width)[0]

    def _logits(self, items: Sequence[Tokens], width: int) -> Matrix:
        scores: Matrix = self.forward(items, width).logits.float().cpu().numpy()
        return scores

    def is_out_of_memory(self, error: Exception) -> bool:
        import torch

        return isinstance(error, torch.OutOfMemoryError | MemoryError)


def try_tables(trial: Trial, tokenizer: Any, name: str) -> tuple[int, int]:
    """The longest text by the model's table of positions, and how many ids have a vector.

    The length is that of the files for a model without such a table. Sets the call's padding.
    Raises InvalidInput, naming the model `name`, for the tokenizer of another model.
    """
    positions, vectors = _table_sizes(trial)
    vocabulary = vectors or maxsize
    if tokenizer.vocab_size > vocabulary:
        raise InvalidInput(
            f"the tokenizer of {name} knows {tokenizer.vocab_size} tokens and its model "
            f"{vocabulary}; the folder mixes the files of two models"
        )
    trial.call.padding = {
        "input_ids": min(tokenizer.pad_token_id or 0, vocabulary - 1),
        "token_type_ids": tokenizer.pad_token_type_id,
    }
    if positions is None:
        return trial.stated, vocabulary
    return min(positions, stated_length(tokenizer) or positions), vocabulary


def _table_sizes(trial: Trial) -> tuple[int | None, int | None]:
    """How many tokens have a position, and how many ids a vector; None without such a table.

    By watching what the model looks up for two texts.
    """
    short = resized(trial.example, min(SHORT, trial.stated))
    longer = resized(short, min(LONGER, trial.stated))
    seen: list[list[Lookup]] = []
    for item in (short, longer):
        trial.restore()
        with lookups() as found:
            passes_first_layer(trial, [item])
        seen.append(found)
    later = {each.table: each.largest for each in seen[1]}
    growth = longer.shape[1] - short.shape[1]
    positions, vocabulary = set(), set()
    for each in seen[0]:
        grown = later.get(each.table, -1) - each.largest
        if growth and grown == growth:
            positions.add(each.rows - (each.largest - (short.shape[1] - 1)))
        elif each.largest == int(short[0].max()):
            vocabulary.add(each.rows)
    return min(positions, default=None), min(vocabulary, default=None)


def passes_first_layer(trial: Trial, items: Sequence[Tokens]) -> bool:
    """Do these texts get through the first layer? Where memory does not suffice, they may."""
    try:
        states_after(trial.model, lambda: trial.forward(items, 0), len(items))
    except Exception as error:
        return trial.is_out_of_memory(error)
    return True


def resized(item: Tokens, length: int) -> Tokens:
    """The same text with tokens inside left out or repeated: (keys, length)."""
    count = item.shape[1]
    inner = count - 2
    if inner < 1 or length < 3:
        return item[:, np.arange(length) % count]
    return item[:, [0, *(1 + np.arange(length - 2) % inner), count - 1]]
