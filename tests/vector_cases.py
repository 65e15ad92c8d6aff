"""Inputs that are hard for a filter, and answers by brute force in float64."""

from __future__ import annotations

import numpy as np

from ember.worker.vectors.filter_choice import FILTERS
from ember.worker.vectors.int8_filter import Int8Filter

PRECISIONS = [name for name in FILTERS if name != "int8" or Int8Filter.available()]


def chosen(width, precision="float32"):
    """A filter."""
    return FILTERS[precision](width)


def operands(left, right, how):
    """Both sides of a filter's product."""
    fitted = how.fit(left, right)
    return fitted.left(left), fitted.right(right)


def few_bits(words, low):
    """Values in int8 of rows in words (rounding.pack_rows), as they are stored."""
    return np.ascontiguousarray(words[:, 1 : 1 + low]).view(np.int8).astype(np.int64)


def many_bits(words, low):
    """Values in int16."""
    return np.ascontiguousarray(words[:, 1 + low :]).view(np.int16).astype(np.int64)


def rows_of(columns):
    """Words of rows that lie in panels, with those that are none, (16 panels, w)."""
    return np.ascontiguousarray(columns.panels.transpose(0, 2, 1).reshape(len(columns.bias), -1))


def integer_sums(left, right):
    """Sums of products and bias, (a, 16 panels) int64, of operands in int8 and int16."""
    others = rows_of(right)
    few = (few_bits(left.values, left.low) - 64) @ few_bits(others, left.low).T
    many = many_bits(left.values, left.low) @ many_bits(others, left.low).T
    return left.scales.ratio * few + many + right.bias


def random(rng, n, d):
    return rng.standard_normal((n, d)).astype(np.float32)


def clustered(rng, n, d):
    centers = rng.standard_normal((7, d))
    return (centers[rng.integers(0, 7, n)] + 0.2 * rng.standard_normal((n, d))).astype(np.float32)


def duplicated(rng, n, d):
    rows = rng.standard_normal((max(1, n // 5), d)).astype(np.float32)
    return rows[rng.integers(0, len(rows), n)]


def anisotropic(rng, n, d):
    """All cosines above 0.8, as among raw BERT vectors."""
    rows = rng.standard_normal((n, d)) * np.geomspace(1, 0.05, d)
    rows *= 0.3 / np.linalg.norm(rows, axis=1, keepdims=True)
    rows += np.ones(d) / np.sqrt(d)
    return rows.astype(np.float32)


def spectrum(rng, n, d):
    """A falling spectrum, as embeddings have: short prefixes pay."""
    return (rng.standard_normal((n, d)) * np.geomspace(1, 0.02, d)).astype(np.float32)


def integers(rng, n, d):
    """Few distinct scores: ties everywhere."""
    rows = rng.integers(-1, 2, (n, d)).astype(np.float32)
    rows[:, 0] = 1
    return rows


KINDS = (random, clustered, duplicated, anisotropic, spectrum, integers)


def brute_force(left, right, metric):
    """(n, m) float32 scores; a pair's sum is taken over its own products, as scores.py defines."""
    a, b = left.astype(np.float64)[:, None, :], right.astype(np.float64)[None, :, :]
    if metric == "euclidean":
        return np.sqrt(np.square(a - b).sum(axis=2)).astype(np.float32)
    dots = (a * b).sum(axis=2)
    if metric == "cosine":
        norms = [np.sqrt(np.square(x.astype(np.float64)).sum(axis=1)) for x in (left, right)]
        dots = dots / (norms[0][:, None] * norms[1][None, :])
    return dots.astype(np.float32)


def brute_pairs(scores, threshold, metric, triangle=False):
    """Set of (i, j) in the result."""
    goal = np.float32(threshold)
    mask = scores <= goal if metric == "euclidean" else scores >= goal
    if triangle:
        mask &= np.arange(len(scores))[:, None] < np.arange(scores.shape[1])
    return set(zip(*(x.tolist() for x in np.nonzero(mask)), strict=True))


def brute_top_k(scores, ids, k, metric, query_ids=None):
    """Ids and scores, (q, k), -1 and NaN in empty places."""
    keys = scores if metric == "euclidean" else -scores
    best = np.full((len(scores), k), -1, np.int64)
    values = np.full((len(scores), k), np.nan, np.float32)
    for row in range(len(scores)):
        order = np.lexsort((ids, keys[row]))
        if query_ids is not None:
            order = order[ids[order] != query_ids[row]]
        order = order[:k]
        best[row, : len(order)] = ids[order]
        values[row, : len(order)] = scores[row, order]
    return best, values
