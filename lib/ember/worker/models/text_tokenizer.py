"""The tokenizer of a model's folder, and the longest text by what the folder's files state."""

from __future__ import annotations

from typing import Any

from ember.errors import InvalidInput
from ember.worker.models.model_folder import FILES_ONLY, loading

__all__ = ["check_tokenizer", "load_tokenizer", "max_tokens", "stated_length"]

# What transformers writes where no length is stated is 1e30; nobody means as many as this.
_NO_LENGTH = 1_000_000


def load_tokenizer(name: str, path: str, **settings: Any) -> Any:
    """The tokenizer in the folder `path` of the model `name`, with settings of its own.

    Raises InvalidInput where there is none that can be used.
    """
    from transformers import AutoTokenizer

    with loading(name, path):
        tokenizer = AutoTokenizer.from_pretrained(path, **FILES_ONLY, **settings)
        # Without its files transformers makes an empty tokenizer, which knows no word.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise InvalidInput(f"{name} cannot be loaded: the folder holds no tokenizer")
    check_tokenizer(tokenizer, name)
    return tokenizer


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise InvalidInput where the files state a length that cannot be one."""
    stated = tokenizer.model_max_length
    number = isinstance(stated, int | float) and not isinstance(stated, bool)
    if number and (stated >= _NO_LENGTH or (stated >= 1 and stated == int(stated))):
        return
    raise InvalidInput(
        f"{name}: model_max_length in its tokenizer_config.json is {str(stated)[:50]!r}; make it a "
        "whole number of tokens from 1, or null"
    )


def stated_length(tokenizer: Any) -> int | None:
    """The longest input by the tokenizer's files, in tokens; None where they do not say."""
    stated = tokenizer.model_max_length
    return int(stated) if stated < _NO_LENGTH else None


def max_tokens(tokenizer: Any, config: Any, unstated: int = 512) -> int:
    """The longest input the model takes by its files, in tokens, special tokens included.

    The smaller of what the tokenizer states and the number of position embeddings; RoBERTa and
    its kin spend the positions up to the padding id on padding. unstated: where neither says.
    What the model really takes is found by running it: see `text_fit`.
    """
    config = getattr(config, "text_config", None) or config  # of a dual encoder
    stated = stated_length(tokenizer)
    limits = [] if stated is None else [stated]
    positions = getattr(config, "max_position_embeddings", None)
    if positions and positions > 0:
        shifted = "roberta" in config.model_type or config.model_type in {"camembert", "mpnet"}
        reserved = (config.pad_token_id or 0) + 1 if shifted else 0
        limits.append(positions - reserved)
    return min(limits, default=unstated)
