"""One call of a text model: tokens of several texts, padded and masked, to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from ember.errors import InvalidInput
from ember.worker.models.text_tokens import Tokens

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
    masked: the model gets a mask of padding, if it takes one.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        keys: Sequence[str],
        device: Any,
        *,
        masked: bool = True,
    ) -> None:
        self._call = call
        self._keys = keys
        self._device = device
        self.padding: Mapping[str, int] = {}
        self._masked = masked and "attention_mask" in parameters(call)

    def __call__(self, items: Sequence[Tokens], width: int = 0) -> tuple[Any, Any]:
        """The output, and the mask (n, t) int64, of texts padded on the right, to `width` at least.

        Positions count from the left in every model that takes none, so nothing else is like the
        text alone.
        """
        import torch

        inputs, marks = self.inputs(items, width)
        with torch.inference_mode():
            return self._call(**inputs), marks

    def inputs(self, items: Sequence[Tokens], width: int = 0) -> tuple[dict[str, Any], Any]:
        """What the model is called with for these texts, on the device, and the mask."""
        import torch

        width = max(width, *(each.shape[1] for each in items))
        mask = np.zeros((len(items), width), np.int64)
        for row, each in enumerate(items):
            mask[row, : each.shape[1]] = 1
        values = {}
        for line, key in enumerate(self._keys):
            values[key] = np.full(mask.shape, self.padding.get(key, 0), np.int64)
            for row, each in enumerate(items):
                values[key][row, : each.shape[1]] = each[line]
        inputs = {key: torch.from_numpy(each).to(self._device) for key, each in values.items()}
        marks = torch.from_numpy(mask).to(self._device)
        if self._masked:
            inputs["attention_mask"] = marks
        return inputs, marks
