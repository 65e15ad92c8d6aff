"""Lloyd's k-means (Least squares quantization in PCM, IEEE Trans. Information Theory 28, 1982).

Why not a library's: docs/decisions/0021-own-k-means.md.
"""

from __future__ import annotations

import numpy as np

from ember.worker.vectors.arrays import Float32, Int64

CHUNK_ROWS = 4096


def lloyd(
    points: Float32,
    centroids: Float32,
    rounds: int,
    rng: np.random.Generator,
) -> Float32:
    """Centroids moved to the middle of their points, some rounds of it.

    Args:
        points: (n, d), n > 0 where there are centroids.
        centroids: (c, d) to start from.
        rounds: how many times points are assigned anew.
        rng: moves a centroid without points beside one with the most, a little off.

    Returns:
        (c, d). The same arguments give the same centroids on the same machine.
    """
    count = len(centroids)
    for _ in range(rounds if count else 0):
        owners = nearest(points, centroids)
        sizes = np.bincount(owners, minlength=count)
        filled, empty = np.flatnonzero(sizes), np.flatnonzero(sizes == 0)
        order = np.argsort(owners, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes[filled])[:-1]])
        sums = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64)
        means = np.empty((count, points.shape[1]))
        means[filled] = sums / sizes[filled, None]
        # From the first again, where fewer have points than have none.
        largest = np.resize(np.argsort(-sizes, kind="stable")[: len(filled)], len(empty))
        nudge = 1.0 + 2.0**-10 * rng.choice([-1.0, 1.0], (len(empty), points.shape[1]))
        means[empty] = means[largest] * nudge
        centroids = means.astype(np.float32)
    return centroids


def nearest(points: Float32, centroids: Float32) -> Int64:
    """(n,) the nearest centroid of each point, in float32 arithmetic."""
    halves = 0.5 * np.einsum("ij,ij->i", centroids, centroids)
    owners = np.empty(len(points), np.int64)
    for start in range(0, len(points), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        owners[part] = (points[part] @ centroids.T - halves).argmax(axis=1)
    return owners
