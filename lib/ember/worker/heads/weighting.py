"""How much the features of each table count for, beside those of the others.

A table that tells little adds noise in proportion to its number of features. Multiplying its
standardized features by a weight below 1 is a larger penalty for them than for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ember.worker.heads.head import Float32
from ember.worker.heads.objective import Layers

if TYPE_CHECKING:
    from ember.worker.heads.fit import Recipe

__all__ = ["fit_weighted"]

# A table that counts for less is as good as left out.
_LEAST = 1 / 8

Attempt = Callable[["Recipe", Float32], tuple[Layers, dict[str, Any]]]
"""Fit with features divided by (d,) a scale, and what to note about the choice of the penalty."""


def fit_weighted(
    recipe: Recipe, scale: Float32, attempt: Attempt
) -> tuple[Layers, Float32, dict[str, Any]]:
    """The fitted layers, the scale that makes the tables count for their weights, and notes.

    With `recipe.weights` None they are chosen: from all equal on, the weight of one table is
    halved, that which lowers the loss of cross-validation most, until none does. One table keeps
    weight 1. Then only the penalties next to the best so far are tried.
    """
    weights = recipe.weights or (1.0,) * len(recipe.parts)
    layers, notes = attempt(recipe, _weighted(scale, recipe, weights))
    tried = {weights: _loss(notes)}
    while recipe.weights is None and len(weights) > 1:
        near = tuple(p for p in recipe.penalties if 0.05 < p / notes["penalty"] < 20)
        found = [(layers, notes, weights)]
        for lower in _halved(weights):
            if lower not in tried:
                narrow = replace(recipe, penalties=near)
                fitted, chosen = attempt(narrow, _weighted(scale, recipe, lower))
                tried[lower] = _loss(chosen)
                found.append((fitted, chosen, lower))
        layers, notes, best = min(found, key=lambda each: _loss(each[1]))
        if best == weights:
            break
        weights = best
    if len(weights) > 1:
        notes = {**notes, "table_weights": list(weights)}
    if len(tried) > 1:
        shown = {" : ".join(f"{w:g}" for w in key): loss for key, loss in tried.items()}
        notes["cross_validation"] = {**notes["cross_validation"], "loss_by_weights": shown}
    return layers, _weighted(scale, recipe, weights), notes


def _halved(weights: tuple[float, ...]) -> list[tuple[float, ...]]:
    """The weights with one table's halved, for each table that may be."""
    out = []
    for number, weight in enumerate(weights):
        lower = (*weights[:number], weight / 2, *weights[number + 1 :])
        if max(lower) == 1 and weight > _LEAST:
            out.append(lower)
    return out


def _weighted(scale: Float32, recipe: Recipe, weights: tuple[float, ...]) -> Float32:
    return (scale / np.repeat(np.array(weights, np.float32), recipe.parts)).astype(np.float32)


def _loss(notes: dict[str, Any]) -> float:
    """The least loss of the cross-validation; 0 where there was none."""
    table = notes.get("cross_validation", {}).get("loss", {})
    return float(min(table.values(), default=0.0))
