"""A corpus divided into lists around centroids, for approximate search.

Rows go to the list of their nearest centroid, queries search the nearest few (the inverted file
of Sivic and Zisserman, Video Google, 2003; Jégou, Douze and Schmid, Product quantization for
nearest neighbor search, 2011, section 4). What "near" means follows the metric:

    cosine         rows scaled to length 1, spherical k-means, by inner product with the centroid
    euclidean      rows as they are (far from the origin, or very long or short, moved as in
                   scaling.py), k-means, by distance
    inner_product  rows lifted to a sphere, (x, sqrt(M^2 - |x|^2)) / M with M the largest norm of
                   the sample, queries (q, 0) / |q|: the order of inner products is that of cosines
                   there (Bachrach et al., Speeding up the Xbox recommender system, 2014)

Nearest centroids are found by the exact kernel, so that lists and probes do not depend on how rows
are batched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64, Stored
from ember.worker.vectors.basis import Basis, fit_basis, scale_of
from ember.worker.vectors.block import prepare
from ember.worker.vectors.kmeans import CHUNK_ROWS, lloyd, squares
from ember.worker.vectors.neighbors import Neighbors
from ember.worker.vectors.threads import run_tiles
from ember.worker.vectors.topk import search

ITERATIONS = 6
ROWS_PER_LIST = 24
"""Rows of the sample for each list, at least."""
QUERIES_PER_LIST = 20
FARTHEST = 1e9
"""Points further from the origin are drawn in; any list will do for an outlier."""


@dataclass(frozen=True)
class Lists:
    """Centroids, and how rows are compared with them.

    Attributes:
        metric: of the search.
        centroids: (lists, d) float32; d + 1 columns for inner_product.
        radius: M above; what points are divided by for Euclidean distance; 1 for cosine.
        center: (d,) what is subtracted from points before; zeros but for Euclidean distance.
        basis: for searching the centroids.
    """

    metric: str
    centroids: Float32
    radius: float
    center: Float32
    basis: Basis

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(
        self,
        rows: Stored,
        count: int,
        *,
        queries: bool = False,
        ordered: bool = True,
        threads: int = 1,
    ) -> Int64:
        """(n, count) the lists nearest to (n, d) rows, nearest first, ties by number.

        queries: the rows are queries and not rows of the corpus (which matters to inner_product).
        ordered: False gives the same lists sooner, in an order that may differ by rounding.
        """
        metric = self.basis.metric
        centroids = prepare(self.centroids, metric, self.basis, threads=threads)
        result = np.empty((len(rows), count), np.int64)
        for start in range(0, len(rows), CHUNK_ROWS):
            points = self.points(rows[start : start + CHUNK_ROWS], queries=queries)
            part = result[start : start + CHUNK_ROWS]
            open_rows = np.arange(len(points))
            if count == 1 or not ordered:
                part[:], open_rows = self._nearest(points, count)
            if len(open_rows):
                block = prepare(points[open_rows], metric, self.basis, threads=threads)
                found = Neighbors.empty(len(block), count)
                part[open_rows] = search(block, [centroids], found, threads=threads).ids
        return result

    def _nearest(self, points: Float32, count: int) -> tuple[Int64, Int64]:
        """The nearest lists of each point, and the points for which rounding leaves them open.

        Those are few, so this costs far less than a search for the exact order.
        """
        values, halves = points @ self.centroids.T, 0.5 * squares(self.centroids)
        longest = np.sqrt(2.0 * halves.max())
        error = np.sqrt(squares(points)) * longest
        if self.basis.metric == "euclidean":
            values -= halves
            error += longest * longest
        nearest = _largest(values, count)
        if count == len(self):
            return nearest, np.empty(0, np.int64)
        least = np.take_along_axis(values, nearest, axis=1).min(axis=1)
        np.put_along_axis(values, nearest, -np.inf, axis=1)
        # Twice the error of either, and as much again for what is rounded here.
        margin = 4.0 * bounds.dot_slack(points.shape[1]) * error
        return nearest, np.flatnonzero(values.max(axis=1) >= least - margin)

    def points(self, rows: Stored, *, queries: bool = False) -> Float32:
        """Rows as they are compared with centroids."""
        return _points(rows, self.metric, (self.radius, self.center), queries)


def fit_lists(sample: Stored, metric: str, count: int, *, seed: int = 0) -> Lists:
    """Lists by Lloyd's k-means on a sample, (n, d) finite rows, n >= count.

    Starts from rows chosen at random by `seed`; a list that becomes empty starts again beside the
    centroid of the largest one. The same sample gives the same lists on the same machine.

    Raises:
        ValueError: fewer rows than lists.
    """
    if not 1 <= count <= len(sample):
        raise ValueError(f"cannot make {count} lists of a sample of {len(sample)} rows")
    norms = np.sqrt(np.square(sample, dtype=np.float64).sum(axis=1))
    radius = float(norms.max()) or 1.0 if metric == "inner_product" else 1.0
    center = np.zeros(sample.shape[1], np.float32)
    if metric == "euclidean":
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        exponent, moved = scale_of(sample.astype(np.float64) - mean, mean)
        radius, center = 2.0**exponent, mean if moved else center
    points = _points(sample, metric, (radius, center), False)
    spherical = metric != "euclidean"
    rng = np.random.default_rng(seed)
    start = points[np.sort(rng.choice(len(points), count, replace=False))]
    # On one thread, whose order of summation is always the same.
    (centroids,) = run_tiles(
        lambda start: lloyd(points, start, ITERATIONS, rng, spherical=spherical), [start], 1
    )
    basis = fit_basis(centroids, "inner_product" if spherical else "euclidean")
    return Lists(metric, centroids, radius, center, basis)


def _points(rows: Stored, metric: str, scale: tuple[float, Float32], queries: bool) -> Float32:
    radius, center = scale
    if metric == "euclidean":
        moved = radius != 1.0 or center.any()
        return _drawn_in((rows.astype(np.float64) - center) / radius if moved else rows)
    exact = rows.astype(np.float64)
    norms = np.sqrt(np.square(exact).sum(axis=1, keepdims=True))
    if metric == "cosine" or queries:
        exact /= np.where(norms > 0, norms, 1.0)
        height = np.zeros_like(norms)
    else:
        exact /= radius
        height = np.sqrt(np.maximum(1.0 - np.square(norms / radius), 0.0))
    if metric == "inner_product":
        exact = np.concatenate([exact, height], axis=1)
    return _drawn_in(exact)


def _drawn_in(points: Float32 | Float64) -> Float32:
    """Points in float32, those beyond FARTHEST drawn in."""
    sizes = np.abs(points).max(axis=1, initial=0.0)
    if len(points) and sizes.max() > FARTHEST:
        points = points * np.minimum(1.0, FARTHEST / np.maximum(sizes, 1.0))[:, None]
    return points.astype(np.float32, copy=False)


def _largest(values: Float32, count: int) -> Int64:
    """(n, count) places of the largest values of each row, the largest first."""
    places: Int64 = values.argmax(axis=1)[:, None]
    if count > 1:
        some = np.argpartition(values, -count, axis=1)[:, -count:]
        order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1)
        places = np.take_along_axis(some, order, axis=1)
    return places


def count_for(rows: int, queries: int, sample: int) -> int:
    """How many lists: sqrt(rows), so that centroids cost no more than rows.

    Fewer where there are few queries, for which all rows are compared with the centroids, or where
    the sample cannot support so many.
    """
    return max(1, min(int(np.sqrt(rows)), queries // QUERIES_PER_LIST, sample // ROWS_PER_LIST))
