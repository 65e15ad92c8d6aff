"""A learned metric: a linear map under which rows of one label lie close by cosine.

The map W minimizes the supervised contrastive loss (Khosla et al., Supervised Contrastive Learning,
2020) of the projected rows, drawn in batches, and starts at the leading principal directions:

    for each row i and each other row p of its label, the mean of
    -log( exp(cos(i, p) / t) / sum over all other rows a of exp(cos(i, a) / t) )
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ember.errors import InvalidInput
from ember.worker.heads.fit import Recipe, to_head
from ember.worker.heads.head import Float32, Head, standardize
from ember.worker.heads.rows import ColumnMoments, Float64, Rows, check_scale, scaling

__all__ = ["contrastive_loss", "fit_metric", "same_label_figures", "same_label_map"]

_TEMPERATURE = 0.1
_BATCH_ROWS = 256
_LEARNING_RATE = 1e-2
# Compared each with each.
_JUDGED_ROWS = 5000


def fit_metric(rows: Rows, recipe: Recipe) -> Head:
    """A learned metric from training rows with one label each, in an order that is given.

    The output has `recipe.dimension` columns, at most as many as there are features. Adam (Kingma
    and Ba 2015) runs `recipe.iterations` passes over the rows; `recipe.penalty` pulls the map to
    where it started.
    Raises InvalidInput for rows with many labels.
    """
    if recipe.multilabel:
        raise InvalidInput("head: similarity learns from one label a row; the labels are lists")
    parts = list(recipe.parts)
    mean, scale = scaling(ColumnMoments.of(rows.matrix), parts, recipe.scaling)
    check_scale(rows.matrix, parts, scale)
    matrix = standardize(rows.matrix, recipe.parts, recipe.indicators, mean, scale)
    start = _principal_directions(matrix, recipe.dimension)
    weights = _descend(matrix.astype(np.float64), rows.targets, start, recipe)
    plain = replace(recipe, kind="similarity", labels=())
    layer = weights, np.zeros(weights.shape[1])
    return to_head(plain, [layer], mean, scale, {"penalty": recipe.penalty})


def _principal_directions(matrix: Float32, dimension: int) -> Float64:
    exact = matrix.astype(np.float64)
    _, vectors = np.linalg.eigh(exact.T @ exact)
    return np.ascontiguousarray(vectors[:, ::-1][:, :dimension])


def _descend(
    matrix: Float64, targets: NDArray[np.int64], start: Float64, recipe: Recipe
) -> Float64:
    """Adam over batches whose order the seed gives."""
    rng = np.random.default_rng(recipe.seed)
    weights, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    penalty = (recipe.penalty or 0.0) / len(matrix)
    step = 0
    for _ in range(recipe.iterations):
        order = rng.permutation(len(matrix))
        for batch in np.array_split(order, -(-len(order) // _BATCH_ROWS)):
            step += 1
            _, slope = contrastive_loss(weights, matrix[batch], targets[batch])
            slope += penalty * (weights - start)
            first += 0.1 * (slope - first)
            second += 0.001 * (slope**2 - second)
            size = _LEARNING_RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights -= size * first / (np.sqrt(second) + 1e-8)
    return weights


def contrastive_loss(
    weights: Float64, matrix: Float64, targets: NDArray[Any]
) -> tuple[float, Float64]:
    """The loss of (n, d) rows under a (d, m) map, and its gradient by the map.

    Rows whose label no other row has pull nothing; without any pair the loss is 0.
    """
    from scipy.special import log_softmax

    projected = matrix @ weights
    lengths = np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
    unit = projected / lengths
    logits = unit @ unit.T / _TEMPERATURE
    np.fill_diagonal(logits, -np.inf)
    alike = targets[:, None] == targets
    np.fill_diagonal(alike, False)
    partners = alike.sum(axis=1)
    anchors = partners > 0
    if not anchors.any():
        return 0.0, np.zeros_like(weights)
    logs = log_softmax(logits, axis=1)
    wanted = alike / np.maximum(partners, 1)[:, None]
    count = anchors.sum()
    loss = -(wanted * np.where(alike, logs, 0)).sum() / count
    # By the logits of row i: softmax less the wanted shares; then by both ends of each cosine.
    slope = (np.exp(logs) - wanted) * anchors[:, None] / (count * _TEMPERATURE)
    by_unit = (slope + slope.T) @ unit
    by_projected = (by_unit - (by_unit * unit).sum(axis=1, keepdims=True) * unit) / lengths
    return float(loss), matrix.T @ by_projected


def same_label_figures(head: Head, rows: Rows) -> dict[str, Any]:
    """How well neighbors by cosine have a row's label: plain features against projected ones.

    On at most 5,000 rows. {} where no two rows have one label.
    """
    some = rows.take(np.arange(len(rows)) < _JUDGED_ROWS)
    # A table that a row lacks is average for the plain features, too.
    plain = np.where(np.isnan(some.matrix), head.mean, some.matrix)
    before = same_label_map(plain, some.targets)
    if before is None:
        return {}
    after = same_label_map(head.project(some.matrix), some.targets)
    return {"rows": len(some), "map_plain": round(before, 6), "map": round(after or 0.0, 6)}


def same_label_map(vectors: Float32 | Float64, targets: NDArray[Any]) -> float | None:
    """Mean average precision of retrieving rows of the same label by cosine, the row itself aside.

    vectors: (n, m). Over the rows whose label another row has; None where there is none.
    """
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    found = []
    for row, target in enumerate(targets):
        alike = np.delete(targets == target, row)
        if not alike.any():
            continue
        ranked = alike[np.argsort(-np.delete(unit @ unit[row], row), kind="stable")]
        precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
        found.append(precision[ranked].mean())
    return float(np.mean(found)) if found else None
