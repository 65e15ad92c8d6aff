"""The k best of each query: a state that merges in any order to the same answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.worker.vectors.arrays import Float32, Int64

NOBODY = np.iinfo(np.int64).max
"""Id of an empty place: behind every real id."""


@dataclass
class Neighbors:
    """Best rows found so far, for each of q queries, in order: similarity falling, id rising.

    Attributes:
        ids: (q, k) int64, ``NOBODY`` in empty places.
        similarity: (q, k) float32, score or negative distance; -inf in empty places.
    """

    ids: Int64
    similarity: Float32

    @classmethod
    def empty(cls, queries: int, k: int) -> Neighbors:
        return cls(
            np.full((queries, k), NOBODY, np.int64), np.full((queries, k), -np.inf, np.float32)
        )

    def merge(self, other: Neighbors) -> Neighbors:
        """The k best of both; ids must not be in both.

        Raises:
            ValueError: different numbers of queries or of places.
        """
        if self.ids.shape != other.ids.shape:
            raise ValueError(
                f"cannot merge neighbors of shapes {self.ids.shape} and {other.ids.shape}; "
                "search the same queries with the same k"
            )
        ids = np.concatenate([self.ids, other.ids], axis=1)
        similarity = np.concatenate([self.similarity, other.similarity], axis=1)
        order = np.lexsort((ids, -similarity), axis=1)[:, : self.ids.shape[1]]
        return Neighbors(
            np.take_along_axis(ids, order, axis=1), np.take_along_axis(similarity, order, axis=1)
        )

    def add(self, query: Int64, ids: Int64, similarity: Float32) -> None:
        """Merge scored pairs, (p,) each: positions of queries, ids and similarities."""
        grid = best_of(query, similarity, ids, self.ids.shape)
        merged = self.merge(grid)
        self.ids[:], self.similarity[:] = merged.ids, merged.similarity

    def result(self, metric: str) -> tuple[Int64, Float32]:
        """Ids, -1 in empty places, and scores, NaN there; both (q, k)."""
        empty = self.ids == NOBODY
        score = -self.similarity if metric == "euclidean" else self.similarity
        return np.where(empty, -1, self.ids), np.where(empty, np.float32(np.nan), score)


def best_of(query: Int64, similarity: Float32, ids: Int64, shape: tuple[int, ...]) -> Neighbors:
    """The k best pairs of each query out of (p,) unordered ones, as (q, k) neighbors."""
    best = Neighbors.empty(shape[0], shape[1])
    order = np.lexsort((ids, -similarity, query))
    query, ids, similarity = query[order], ids[order], similarity[order]
    first = np.searchsorted(query, np.arange(shape[0]))
    rank = np.arange(len(query)) - first[query]
    kept = rank < shape[1]
    best.ids[query[kept], rank[kept]] = ids[kept]
    best.similarity[query[kept], rank[kept]] = similarity[kept]
    return best
