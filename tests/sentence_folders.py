"""Tiny sentence-transformers folders, saved by the library itself, and its own vectors of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ember.settings.embedding import ModelConfig
from ember.spark import models
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.spec import ModelSpec
from tiny_models import MAX_TOKENS, tiny_bert, tiny_gpt2, tiny_roberta

HIDDEN = 32
BUILDERS = {"bert": tiny_bert, "roberta": tiny_roberta, "gpt2": tiny_gpt2}


def chain(name: str, width: int) -> list[Any]:
    """Modules after a pooling that gives `width` numbers."""
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Dropout,
        LayerNorm,
        Normalize,
    )
    from torch import nn

    return {
        "pooling": list,
        "normalize": lambda: [Normalize()],
        "dense": lambda: [Dense(width, 12), Normalize()],
        "gelu": lambda: [Dropout(0.5), Dense(width, 9, bias=False, activation_function=nn.GELU())],
        "residual": lambda: [
            Dense(width, width, activation_function=nn.ReLU(), use_residual=True),
            LayerNorm(width),
            Dense(width, 10, activation_function=nn.Identity(), use_residual=True),
        ],
    }[name]()


def sentence_folder(
    folder: Path,
    transformer: Path,
    pooling: str | Sequence[str] = "mean",
    modules: str = "pooling",
    *,
    include_prompt: bool = True,
    tokens_first: bool = False,
    safe: bool = True,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A folder as the library saves it.

    tokens_first: a Dense module on the tokens, before they are pooled. settings: of the
    transformer. options: of SentenceTransformer (prompts, truncate_dim, …).
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    torch.manual_seed(5)
    modes = [pooling] if isinstance(pooling, str) else list(pooling)
    hidden, first = HIDDEN, []
    if tokens_first:
        hidden, first = 20, [Dense(HIDDEN, 20, module_input_name="token_embeddings")]
    encoder = Transformer(str(transformer), **{"max_seq_length": MAX_TOKENS, **(settings or {})})
    if encoder.tokenizer.pad_token is None:  # without which the library takes no text
        encoder.tokenizer.pad_token = encoder.tokenizer.eos_token
    built = [
        encoder,
        *first,
        Pooling(hidden, modes, include_prompt=include_prompt),
        *chain(modules, hidden * len(modes)),
    ]
    for module in built[1:]:  # weights of about one, so that every module shows in the vectors
        for weight in module.parameters():
            weight.data.uniform_(-1, 1)
    model = SentenceTransformer(modules=built, device="cpu", **options)
    model.save(str(folder), create_model_card=False, safe_serialization=safe)
    return folder


def routed_folder(folder: Path, query: Path, document: Path) -> Path:
    """A folder with a transformer for each role."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Normalize,
        Pooling,
        Router,
        Transformer,
    )

    router = Router.for_query_document(
        [Transformer(str(query), max_seq_length=MAX_TOKENS), Pooling(HIDDEN, "max")],
        [Transformer(str(document), max_seq_length=MAX_TOKENS), Pooling(HIDDEN)],
    )
    model = SentenceTransformer(modules=[router, Normalize()], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Change names in a JSON file; None removes one."""
    settings = json.loads(file.read_text()) if file.exists() else {}
    kept = {key: value for key, value in {**settings, **changes}.items() if value is not None}
    file.write_text(json.dumps(kept))


def resolved(folder: Path, **settings: Any) -> ModelSpec:
    return models.resolve(ModelConfig(name=f"hf:{folder}", **settings), "text", 1000)


def ours(spec: ModelSpec, texts: Sequence[str]) -> np.ndarray:
    """Ember's vectors, all texts in one go."""
    encoder = task._build(spec, None, 1, False)
    (slot,) = encode([Slot([text.encode() for text in texts])], encoder, threads=1, timed=_untimed)
    assert slot.errors == {}
    return slot.vectors


def theirs(
    folder: Path,
    texts: Sequence[str],
    how: str = "encode",
    precision: str = "float32",
    **given: Any,
) -> np.ndarray:
    """The library's own vectors, one text at a time."""
    import torch
    from sentence_transformers import SentenceTransformer

    kinds = {"dtype": getattr(torch, precision)}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=kinds)
    made = [getattr(model, how)([text], convert_to_tensor=True, **given)[0] for text in texts]
    return torch.stack(made).float().numpy()


def _untimed(*_: Any) -> None:
    pass
