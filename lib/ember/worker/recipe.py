"""How a text becomes a vector, as plain data: prompt, transformer, modules after it, dimension.

`ember.worker.models.sentence_folder` reads it from a sentence-transformers folder on the driver;
`ember.worker.models.torch_texts` follows it in the workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SENTENCE",
    "TOKENS",
    "Dense",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "Step",
    "TextRecipe",
    "ends_in_unit_length",
    "of_layer",
]

# What the modules hand on, by the names that sentence-transformers has for them.
TOKENS = "token_embeddings"
SENTENCE = "sentence_embedding"


@dataclass(frozen=True)
class Pooling:
    """Tokens to one vector, by each of `modes`, one after the other in one long vector.

    include_prompt: the prompt's tokens count as well.
    """

    modes: tuple[str, ...]
    include_prompt: bool = True
    source: str = field(default=TOKENS, init=False, repr=False)
    target: str = field(default=SENTENCE, init=False, repr=False)
    kind: str = field(default="Pooling", init=False, repr=False)


@dataclass(frozen=True)
class Dense:
    """`activation(W x + b)`, plus x or its projection where `residual`.

    folder: where its weights lie, inside the model's folder. source, target: what it reads and
    what it makes, `TOKENS` or `SENTENCE` or a name of the folder's own. activation: a class of
    torch.nn.
    """

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str
    residual: bool
    source: str = SENTENCE
    target: str = SENTENCE
    kind: str = field(default="Dense", init=False, repr=False)


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalization with the weights in `folder`."""

    folder: str
    dimension: int
    source: str = field(default=SENTENCE, init=False, repr=False)
    target: str = field(default=SENTENCE, init=False, repr=False)
    kind: str = field(default="LayerNorm", init=False, repr=False)


@dataclass(frozen=True)
class Normalize:
    """To unit length."""

    source: str = SENTENCE
    target: str = SENTENCE
    kind: str = field(default="Normalize", init=False, repr=False)


Step = Pooling | Dense | LayerNorm | Normalize


@dataclass(frozen=True)
class TextRecipe:
    """All that is done to a text, beside the transformer itself.

    source: "modules.json", or "model.layer" where the transformer alone is taken, whatever a
        modules.json beside it says.
    modules: applied to the transformer's tokens in this order; none where the transformer pools.
    prompt: stands before every text; "" for none.
    max_tokens: the longest input, prompt and special tokens included; None: what tokenizer and
        transformer state.
    lower_case: before anything else that the tokenizer does.
    dimension: so many leading numbers of the vector are kept (Matryoshka); None: all.
    unit_after: to unit length again after that.
    transformer: the folder of the transformer inside the model's; "" for the model's own.
    tokenizer: keyword arguments that the folder gives for its tokenizer.
    """

    source: str
    modules: tuple[Step, ...] = ()
    prompt: str = ""
    max_tokens: int | None = None
    lower_case: bool = False
    dimension: int | None = None
    unit_after: bool = False
    transformer: str = ""
    tokenizer: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> str:
        """The modules in words."""
        return ", ".join(each.kind for each in self.modules) or "none"

    @property
    def normalizes(self) -> bool:
        """Has every vector unit length?"""
        return self.unit_after or (self.dimension is None and ends_in_unit_length(self.modules))


def ends_in_unit_length(modules: Sequence[Step]) -> bool:
    """Is the last module that makes the text's vector Normalize?"""
    makers = [each for each in modules if each.target == SENTENCE]
    return bool(makers) and isinstance(makers[-1], Normalize)


def of_layer(layer: str) -> TextRecipe:
    """The transformer alone: `mean` (over the tokens), `cls` (the first), or its own pooler."""
    pooled = layer in ("mean", "cls")
    return TextRecipe("model.layer", (Pooling((layer,)),) if pooled else ())
