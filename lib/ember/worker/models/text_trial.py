"""The beginning of every trial of a text model: what its tables say of the longest text."""

from __future__ import annotations

from sys import maxsize
from typing import Any

from ember.errors import InvalidInput
from ember.worker.models.text_call import TextCall
from ember.worker.models.text_fit import Trial, find_tables
from ember.worker.models.text_tokenizer import stated_length

__all__ = ["try_tables"]


def try_tables(
    trial: Trial, tokenizer: Any, call: TextCall, longest: int, name: str
) -> tuple[int, int]:
    """The longest text by the model's table of positions, and how many ids have a vector.

    longest: by the files, for a model without such a table. Sets the padding of `call`.
    Raises InvalidInput, naming the model `name`, for the tokenizer of another model.
    """
    tables = find_tables(trial, longest)
    vocabulary = tables.vocabulary or maxsize
    if tokenizer.vocab_size > vocabulary:
        raise InvalidInput(
            f"the tokenizer of {name} knows {tokenizer.vocab_size} tokens and its model "
            f"{vocabulary}; the folder mixes the files of two models"
        )
    call.padding = {
        "input_ids": min(tokenizer.pad_token_id or 0, vocabulary - 1),
        "token_type_ids": tokenizer.pad_token_type_id,
    }
    if tables.positions is None:
        return longest, vocabulary
    return min(tables.positions, stated_length(tokenizer) or tables.positions), vocabulary
