"""The modules after a transformer, in torch: tokens to a text's vector, as a TextRecipe has them.

All in float32 whatever the transformer runs in: bfloat16 cannot count beyond 256 tokens, and
float16 sums may overflow. The formulas are those of sentence-transformers 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.worker.recipe import (
    SENTENCE,
    TOKENS,
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    Step,
    TextRecipe,
)

__all__ = ["TextModules", "pool"]


class TextModules:
    """What a recipe does with a transformer's output.

    folder: the model's, in which the modules' weights lie.
    prompt_tokens: of each text, first; left out of the pooling where the recipe says so.

    Raises InvalidInput for weights that are not there or do not fit.
    """

    def __init__(self, folder: str, recipe: TextRecipe, device: Any, prompt_tokens: int) -> None:
        self._recipe = recipe
        self._prompt_tokens = prompt_tokens
        self._applied = [self._make(Path(folder), step, device) for step in recipe.modules]

    def vectors(self, hidden: Any, mask: Any) -> Any:
        """Vectors (n, d) float32 of tokens (n, t, h); `mask` (n, t) is 0 for padding, at the end.

        The numbers after `dimension` are cut off last, as `truncate_dim` does.
        """
        made = {TOKENS: hidden.float()}
        for step, apply in zip(self._recipe.modules, self._applied, strict=True):
            made[step.target] = apply(made[step.source], mask)
        return self.cut(made[SENTENCE])

    def cut(self, vectors: Any) -> Any:
        """The leading numbers of vectors (n, d) that the recipe keeps."""
        kept = vectors[:, : self._recipe.dimension].float()
        return _unit(kept) if self._recipe.unit_after else kept

    def _make(self, folder: Path, step: Step, device: Any) -> Callable[[Any, Any], Any]:
        if isinstance(step, Pooling):
            skipped = 0 if step.include_prompt else self._prompt_tokens
            return lambda hidden, mask: pool(hidden, mask, step.modes, skipped)
        if isinstance(step, Normalize):
            return lambda vectors, _: _unit(vectors)
        apply = (
            _dense(folder, step, device)
            if isinstance(step, Dense)
            else _layer_norm(folder, step, device)
        )
        return lambda vectors, _: apply(vectors)


def pool(hidden: Any, mask: Any, modes: Sequence[str], skipped: int = 0) -> Any:
    """Tokens (n, t, h) to vectors (n, h · modes) float32.

    mask: (n, t), 1 for tokens and 0 for padding, at the end of each line.
    modes: `mean`, `mean_sqrt_len_tokens` (the sum over the root of the number), `weightedmean` (by
        position, from 1), `max`, `cls` (the first) and `lasttoken`; concatenated in this order.
    skipped: so many tokens at the start count for nothing.
    """
    import torch

    mask = mask.clone()
    mask[:, :skipped] = 0
    weights = mask.unsqueeze(-1).float()
    hidden = hidden.float()
    kept = hidden * weights
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lines = torch.arange(mask.shape[0], device=mask.device)  # not len(), which a trace keeps
    counts = weights.sum(1).clamp(min=1e-9)
    made = []
    for mode in modes:
        if mode == "cls":
            made.append(hidden[lines, mask.argmax(1)])
        elif mode == "lasttoken":
            made.append(kept[lines, (mask * positions).argmax(1)])
        elif mode == "max":
            made.append(hidden.masked_fill(weights == 0, float("-inf")).amax(1))
        elif mode == "weightedmean":
            by_position = weights * positions.view(1, -1, 1)
            total = by_position.sum(1).clamp(min=1e-9)
            made.append((hidden * by_position).sum(1) / total)
        else:
            made.append(kept.sum(1) / (counts if mode == "mean" else counts.sqrt()))
    return torch.cat(made, dim=1)


def _unit(vectors: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(vectors, p=2, dim=-1)


def _dense(folder: Path, step: Dense, device: Any) -> Callable[[Any], Any]:
    import torch

    layers = {"linear": torch.nn.Linear(step.in_features, step.out_features, bias=step.bias)}
    if projected := step.residual and step.in_features != step.out_features:
        layers["residual"] = torch.nn.Linear(step.in_features, step.out_features, bias=False)
    module = _with_weights(torch.nn.ModuleDict(layers), folder / step.folder, device)
    activation = getattr(torch.nn, step.activation)()

    def apply(given: Any) -> Any:
        made = activation(module["linear"](given))
        if not step.residual:
            return made
        return made + (module["residual"](given) if projected else given)

    return apply


def _layer_norm(folder: Path, step: LayerNorm, device: Any) -> Callable[[Any], Any]:
    import torch

    module = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(step.dimension)})
    norm: Callable[[Any], Any] = _with_weights(module, folder / step.folder, device)["norm"]
    return norm


def _with_weights(module: Any, folder: Path, device: Any) -> Any:
    """The module with the weights of its folder, which must be all of its own and no others."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            weights = load_file(safe)
        else:
            weights = torch.load(pickled, map_location="cpu", weights_only=True)
        module.load_state_dict({name: value.float() for name, value in weights.items()})
    except (
        *(OSError, RuntimeError, ValueError, AttributeError),
        *(SafetensorError, pickle.UnpicklingError),
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInput(
            f"the weights of the module {folder.name} cannot be used: {reason}"
        ) from None
    return module.to(device).eval().requires_grad_(False)
