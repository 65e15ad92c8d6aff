"""The nearest neighbors of a few rows among all, found batch by batch.

Unit vectors are rounded to multiples of 2^-20, so that their products are sums of whole numbers
below 2^53: a pair has the same score in whatever batch it meets, and ties go to the smaller key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np

__all__ = ["Nearest", "Queries", "overlap_test"]

_STEP = 1 << 20
_ROWS = 2048


@dataclass(frozen=True)
class Queries:
    """keys: (q,) int64, hashes of ids. units: (q, d) float64, whole numbers."""

    keys: np.ndarray
    units: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, matrix: np.ndarray) -> Self:
        return cls(keys, _units(matrix))


@dataclass
class Nearest:
    """The k nearest of what was added so far, by cosine: rows of query, score and key.

    A query is no neighbor of itself.
    """

    queries: Queries
    k: int
    query: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    score: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    key: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        self._least = np.full(len(self.queries.keys), -np.inf)

    def add(self, keys: np.ndarray, matrix: np.ndarray) -> None:
        """keys: (n,) int64. matrix: (n, d), no row of it zero."""
        for start in range(0, len(keys), _ROWS):
            self._add(keys[start : start + _ROWS], matrix[start : start + _ROWS])

    def _add(self, keys: np.ndarray, matrix: np.ndarray) -> None:
        scores = self.queries.units @ _units(matrix).T
        scores[self.queries.keys[:, None] == keys] = -np.inf
        least = self._least
        if len(keys) > self.k:
            # No score below the k-th best of this batch is among the best of all.
            place = len(keys) - self.k
            least = np.maximum(least, np.partition(scores, place, axis=1)[:, place])
        query, row = np.nonzero((scores >= least[:, None]) & (scores > -np.inf))
        self.query = np.concatenate([self.query, query])
        self.score = np.concatenate([self.score, scores[query, row].astype(np.int64)])
        self.key = np.concatenate([self.key, keys[row]])
        self._cut()

    def _cut(self) -> None:
        order = np.lexsort((self.key, -self.score, self.query))
        query = self.query[order]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        order = order[place < self.k]
        self.query, self.score, self.key = (
            each[order] for each in (self.query, self.score, self.key)
        )
        full = np.flatnonzero(place == self.k - 1)
        self._least[query[full]] = self.score[np.searchsorted(self.query, query[full], "right") - 1]


def overlap_test(n: int, agreed: int, squares: int, k: int, least: float) -> float:
    """The p-value of whether a mean share of common neighbors can be `least` or more, one-sided.

    n rows are a random sample, of whose k neighbors `agreed` in all are common, and `squares` the
    sum of the squares of these counts; their mean is taken for normal. NaN for fewer than two rows.
    """
    if n < 2:
        return math.nan
    mean = agreed / n / k
    variance = max(squares / k**2 - n * mean**2, 0.0) / (n - 1)
    if variance < 1e-12:
        return 1.0 if mean >= least else 0.0
    return math.erfc((least - mean) / math.sqrt(2 * variance / n)) / 2


def _units(matrix: np.ndarray) -> np.ndarray:
    rows = matrix.astype(np.float64)
    rows /= np.abs(rows).max(axis=1, keepdims=True)  # so that no square is lost
    rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.rint(rows * _STEP)
