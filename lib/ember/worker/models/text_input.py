"""How a recipe's texts are given to a tokenizer: its settings, and the prompt before each text."""

from __future__ import annotations

from typing import Any

from ember.errors import InvalidInput
from ember.worker.recipe import TextRecipe

__all__ = ["prompt_tokens", "room_for_texts", "set_up_tokenizer"]


def set_up_tokenizer(tokenizer: Any, recipe: TextRecipe) -> None:
    """Give a tokenizer the recipe's length, in place of its own, and lower-casing."""
    if recipe.max_tokens is not None:
        tokenizer.model_max_length = recipe.max_tokens
    if not recipe.lower_case:
        return
    from tokenizers import normalizers

    if not getattr(tokenizer, "is_fast", False):
        raise InvalidInput("the folder's do_lower_case needs a tokenizer of the tokenizers library")
    # Before all else, yet after special tokens are taken out of the text, which keep their case.
    own, lower = tokenizer.backend_tokenizer.normalizer, normalizers.Lowercase()
    tokenizer.backend_tokenizer.normalizer = (
        lower if own is None else normalizers.Sequence([lower, own])
    )


def prompt_tokens(tokenizer: Any, prompt: str) -> int:
    """Tokens of the prompt at the start of each text, special ones before them included.

    Counted as sentence-transformers does: of the prompt alone, less a special token at its end.
    Sets the tokenizer's truncation, so do not call it while texts are tokenized.
    """
    ids = tokenizer(prompt)["input_ids"] if prompt else []
    return len(ids) - (ids[-1] in tokenizer.all_special_ids) if ids else 0


def room_for_texts(tokenizer: Any, prompt: str, longest: int, name: str) -> int:
    """Tokens of a text that a model which takes `longest` takes beside prompt and special tokens.

    Raises InvalidInput, naming the model `name`, when these leave none. As `prompt_tokens`,
    it sets the tokenizer's truncation.
    """
    used = len(tokenizer(prompt)["input_ids"])
    if prompt and used >= longest:
        raise InvalidInput(
            f"model.prompt has {used} tokens, and {name} takes {longest} with the text"
        )
    if used >= longest:
        raise InvalidInput(
            f"{name} takes {longest} tokens, of which {used} are special ones, so that no text has "
            "room; raise max_seq_length in its sentence_bert_config.json, model_max_length in its "
            "tokenizer_config.json or max_position_embeddings in its config.json, whichever it is"
        )
    return longest - used
