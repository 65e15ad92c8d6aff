"""One call of a text model: tokens of several texts, padded and masked, to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.models.text_tokens import Tokens, padded

__all__ = ["TextCall", "accepted_keys", "parameters"]


def accepted_keys(call: Callable[..., Any], tokenizer: Any, name: str) -> tuple[str, ...]:
    """What the tokenizer makes for each token and the model takes, ids first.

    name: of the model, for the error. Raises InvalidInput for a model that takes no ids.
    """
    taken = parameters(call)
    if "input_ids" not in taken:
        raise InvalidInput(f"{name} takes no tokens of texts; give a text encoder")
    encoded = tokenizer("warm-up")
    count = len(encoded["input_ids"])
    others = [
        key
        for key, value in encoded.items()
        if key not in ("input_ids", "attention_mask") and key in taken and len(value) == count
    ]
    return ("input_ids", *others)


def parameters(call: Callable[..., Any]) -> Mapping[str, Any]:
    """What a model, or a method of one, can be called with."""
    return signature(getattr(call, "forward", call)).parameters


class TextCall:
    """Calls a model with what it takes.

    `padding` has the value of a key behind a text's end; 0 for a key that it lacks.

    call: a model, or its method for texts.
    keys: by line of `Tokens`.
    place: an array to a tensor where the model is.
    masked: the model gets a mask of padding, if it takes one.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        keys: Sequence[str],
        place: Callable[[npt.NDArray[np.int64]], Any],
        *,
        masked: bool = True,
    ) -> None:
        self.model = call
        self.keys = tuple(keys)
        self._place = place
        self.padding: Mapping[str, int] = {}
        self.masked = masked and "attention_mask" in parameters(call)

    def __call__(self, items: Sequence[Tokens], width: int = 0) -> tuple[Any, Any]:
        """The output, and the mask (n, t) int64, of texts padded to `width` at least."""
        import torch

        inputs, mask = self.inputs(items, width)
        with torch.inference_mode():
            return self.model(**inputs), mask

    def inputs(self, items: Sequence[Tokens], width: int = 0) -> tuple[dict[str, Any], Any]:
        """What the model is called with for these texts, on the device, and the mask."""
        values, mask = padded(items, self.keys, self.padding, width)
        inputs = {key: self._place(each) for key, each in values.items()}
        marks = self._place(mask)
        if self.masked:
            inputs["attention_mask"] = marks
        return inputs, marks
