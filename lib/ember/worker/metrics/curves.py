"""Figures of scores against a truth, on a sample and on its bootstrap replicates, in numpy.

These need the rows in order of their scores, so all rows of a group are in one task: 24 bytes a
row and as much again to sort them. Every result is an array (1 + B,), the sample first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.worker.metrics.classes import ratio
from ember.worker.metrics.weights import column_weights

__all__ = ["Ranked", "correlations", "curve_rows", "precision_recall", "rank_against"]

_CELLS = 1 << 21
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Ranked:
    """How well scores put positives first; arrays (1 + B,), NaN where undefined."""

    roc_auc: np.ndarray
    average_precision: np.ndarray
    best_f1: np.ndarray
    best_threshold: np.ndarray


def rank_against(
    scores: np.ndarray,
    positive: np.ndarray,
    keys: np.ndarray,
    replicates: int,
    everything: np.ndarray | None = None,
    *,
    groups: int = 0,
) -> Ranked:
    """Figures of a ranking by score, highest first; rows of one score are one step of it.

    scores: (n,) without NaN, -inf for a row that was not scored. positive: (n,) bool.
    everything: (1 + B,), the number of rows in each replicate, where rows without a score that
    are not positive were left out of `scores`; by default none was.

    With P positives and N others, and at each distinct score s the rows at or above it, of which
    tp(s) are positive:

        roc_auc            the part of the P x N pairs in which the positive has the higher score,
                           a tie counting half (Mann & Whitney 1947; Fawcett 2006)
        average_precision  sum over s, downwards, of (tp(s) - tp(s before)) / P times
                           tp(s) / rows(s) (scikit-learn, average_precision_score)
        best_f1            the largest 2 tp(s) / (rows(s) + P), and best_threshold the highest s
                           that has it; calling positive what scores at least that

    All are NaN without a positive; roc_auc also without a negative.
    """
    columns = range(1 + replicates + groups)
    width = len(columns)
    order = np.lexsort((keys, -scores))
    scores, positive, keys = scores[order], positive[order], keys[order]
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    totals = _totals(positive, keys, columns, replicates)
    positives = totals[0]
    tp, rows = np.zeros(width), np.zeros(width)
    before_tp, before_rows = np.zeros(width), np.zeros(width)
    area, precision = np.zeros(width), np.zeros(width)
    best, threshold = np.full(width, -1.0), np.full(width, np.nan)
    every = totals.sum(axis=0) if everything is None else everything
    for start in range(0, len(scores), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        weights = column_weights(keys[part], columns, replicates).astype(np.float64)
        rows_to = np.cumsum(weights, axis=0) + rows
        tp_to = np.cumsum(weights * positive[part, None], axis=0) + tp
        tp, rows = tp_to[-1], rows_to[-1]
        ends = last[part]
        if not ends.any():
            continue
        at, tps, counts = scores[part][ends], tp_to[ends], rows_to[ends]
        if np.isneginf(at[-1]):
            counts[-1] = every
        gained = np.diff(tps, axis=0, prepend=before_tp[None])
        others = np.diff(counts - tps, axis=0, prepend=(before_rows - before_tp)[None])
        area += (others * (tps - gained / 2)).sum(axis=0)
        precision += (gained * ratio(tps, counts, 0)).sum(axis=0)
        f1 = ratio(2 * tps, counts + positives, 0)
        peak = f1.argmax(axis=0)
        higher = f1[peak, np.arange(width)] > best
        best = np.where(higher, f1[peak, np.arange(width)], best)
        threshold = np.where(higher, at[peak], threshold)
        before_tp, before_rows = tps[-1], counts[-1]
    defined = positives > 0
    return Ranked(
        ratio(area, positives * (every - positives)),
        ratio(precision, positives),
        np.where(defined, best, np.nan),
        np.where(defined, threshold, np.nan),
    )


def precision_recall(scores: np.ndarray, positive: np.ndarray, points: int = 50) -> np.ndarray:
    """Points of the curve of precision against recall: (p, 3) float64 threshold, recall, precision.

    scores, positive: as for `rank_against`. Calling positive what scores at least the threshold
    gives a point for each distinct score (scikit-learn, precision_recall_curve); of these, in order
    of falling thresholds, the first, the last, and the first to reach each of `points` equal steps
    of recall. None without a positive; rows without a score are never called positive.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits, every = scores[order], np.cumsum(positive[order]), int(positive.sum())
    steps = np.flatnonzero(np.append(scores[1:] != scores[:-1], True) & ~np.isneginf(scores))
    if not every or not len(steps):
        return np.zeros((0, 3))
    recall = hits[steps] / every
    levels = np.floor(recall * points)
    kept = np.append(True, levels[1:] > levels[:-1])
    kept[-1] = True
    steps, recall = steps[kept], recall[kept]
    return np.column_stack([scores[steps], recall, hits[steps] / (steps + 1)])


def curve_rows(points: np.ndarray, **named: str) -> list[dict[str, str | float]]:
    """What `precision_recall` gave, as rows of a table; named: further columns."""
    columns = ("threshold", "recall", "precision")
    return [{**named, **dict(zip(columns, point, strict=True))} for point in points.tolist()]


def _totals(positive: np.ndarray, keys: np.ndarray, columns: range, replicates: int) -> np.ndarray:
    """Positives and others in each replicate: (2, 1 + B)."""
    totals = np.zeros((2, len(columns)))
    for start in range(0, len(keys), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        weights = column_weights(keys[part], columns, replicates).astype(np.float64)
        totals += np.stack([positive[part], ~positive[part]]).astype(np.float64) @ weights
    return totals


def correlations(
    scores: np.ndarray, truth: np.ndarray, keys: np.ndarray, replicates: int, groups: int = 0
) -> dict[str, np.ndarray]:
    """Pearson's and Spearman's coefficients, each (1 + B,).

    scores, truth: (n,) finite. Spearman's is Pearson's of the ranks, rows of one value having the
    mean of their ranks (Kendall, Biometrika 33, 1945; scipy.stats.spearmanr); a replicate is
    ranked anew. NaN where either side is constant, as in scipy.
    """
    order = np.lexsort((truth, scores, keys))
    scores, truth = _scaled(scores), _scaled(truth)
    scores, truth, keys = scores[order], truth[order], keys[order]
    found: dict[str, list[np.ndarray]] = {"pearson": [], "spearman": []}
    ranks = [_Ranks(scores), _Ranks(truth)]
    step = max(1, _CELLS // max(1, len(keys)))
    columns = range(1 + replicates + groups)
    for first in columns[::step]:
        weights = column_weights(keys, columns[first : first + step], replicates).astype(np.float64)
        found["pearson"].append(_pearson(scores[:, None], truth[:, None], weights))
        found["spearman"].append(_pearson(ranks[0].of(weights), ranks[1].of(weights), weights))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _scaled(values: np.ndarray) -> np.ndarray:
    """The values times a power of two, at most 1 in size: their squares neither vanish nor exceed
    float64, and nothing else changes, not to the last bit.
    """
    _, exponent = np.frexp(np.abs(values).max(initial=0))
    scaled: np.ndarray = np.ldexp(values, -exponent)
    return scaled


class _Ranks:
    """Average ranks of fixed values in samples that weights make of them."""

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        fresh = np.append(True, ordered[1:] != ordered[:-1]) if len(values) else np.zeros(0, bool)
        self._starts = np.flatnonzero(fresh)
        self._tie = np.empty(len(values), np.int64)
        self._tie[self._order] = np.cumsum(fresh) - 1

    def of(self, weights: np.ndarray) -> np.ndarray:
        """weights: (n, R), whole numbers. Returns the ranks (n, R)."""
        if not len(self._starts):
            return weights
        sizes = np.add.reduceat(weights[self._order], self._starts, axis=0)
        ranks: np.ndarray = (np.cumsum(sizes, axis=0) - (sizes - 1) / 2)[self._tie]
        return ranks


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlation of the columns of x and y, (n, R) or (n, 1): (R,)."""
    total = weights.sum(axis=0)

    def centered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = ratio((weights * values).sum(axis=0), total)
        # Where all values are one, the mean must be that value, not close to it.
        present = weights > 0
        least = np.where(present, values, np.inf).min(axis=0, initial=np.inf)
        most = np.where(present, values, -np.inf).max(axis=0, initial=-np.inf)
        return values - mean, least == most

    (dx, flat_x), (dy, flat_y) = centered(x), centered(y)
    xx, yy = (weights * dx * dx).sum(axis=0), (weights * dy * dy).sum(axis=0)
    xy = (weights * dx * dy).sum(axis=0)
    result = ratio(xy, np.sqrt(xx) * np.sqrt(yy))
    result[flat_x | flat_y | (total < 2)] = np.nan
    clipped: np.ndarray = np.clip(result, -1, 1)
    return clipped
