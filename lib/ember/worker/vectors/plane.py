"""Vectors as points of the plane in which near vectors are near: t-SNE, from principal components.

van der Maaten and Hinton, Visualizing Data using t-SNE, 2008, with the Barnes-Hut tree (van der
Maaten, 2014) of scikit-learn. Begun at the principal components, as Kobak and Berens (The art of
using t-SNE for single-cell transcriptomics, 2019) advise, large distances mean something as well,
and nothing is random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ember.errors import InvalidInput
from ember.worker.vectors.arrays import Float32, Float64, Stored
from ember.worker.vectors.pca import Moments, fit_pca
from ember.worker.vectors.vectors import read_vectors

__all__ = ["plane", "plane_batches"]

_COMPONENTS = 50
"""Beyond these, the distances of neighbors hardly change, and finding them takes longer."""
_PERPLEXITY = 30.0
"""About how many neighbors of a row pull at it."""
_STEPS = 750
"""Of which 250 with exaggerated pulls."""
_FEW = 12
"""So few rows have no neighborhoods; their principal components are their map."""
_START = 1e-4
"""Standard deviation of the first coordinate to begin with."""


def plane(vectors: Stored, metric: str) -> Float32:
    """(n, d) usable vectors to (n, 2); the same ones to the same points, in this order.

    metric: cosine or euclidean, by which vectors are near. The sums of t-SNE are those of one
    thread, since several would add them in any order.
    """
    if not len(vectors) or (vectors == vectors[0]).all():
        return np.zeros((len(vectors), 2), np.float32)
    import threadpoolctl

    _check_library()
    with threadpoolctl.threadpool_limits(limits=1):
        components = _components(vectors, metric)
        start = _two_columns(components)
        spread = float(start[:, 0].std())
        if len(vectors) < _FEW or not spread:
            return start.astype(np.float32)
        return _neighborly(components, start / spread * _START)


def plane_batches(
    batches: Iterable[pa.RecordBatch], metric: str, dimension: int, count: int
) -> Iterator[pa.RecordBatch]:
    """All batches (id, hash, embedding) of a sample as one (id, position, x, y).

    Rows come in any order and leave by hash, `count` of them at most, those of unusable vectors
    left out. position: counts them from 0. Equal hashes, as of an id that occurs twice, go by their
    vectors.
    """
    table = pa.Table.from_batches(batches)
    found = read_vectors(table.column(2), metric, dimension, exact=True)
    ids, hashes = (table.column(place).filter(pa.array(found.kept)) for place in (0, 1))
    words = np.ascontiguousarray(found.matrix).view(np.uint8).reshape(len(found.matrix), -1)
    texts = [row.tobytes() for row in words]
    keys = hashes.to_numpy()
    order = sorted(range(len(keys)), key=lambda row: (keys[row], texts[row]))[:count]
    points = plane(found.matrix[order], metric)
    yield pa.RecordBatch.from_arrays(
        [
            ids.take(pa.array(order, pa.int64())).combine_chunks(),
            pa.array(np.arange(len(order)), pa.int32()),
            pa.array(points[:, 0]),
            pa.array(points[:, 1]),
        ],
        names=["id", "position", "x", "y"],
    )


def _components(vectors: Stored, metric: str) -> Float64:
    """Principal components (n, at most _COMPONENTS); for cosine of the rows at length 1."""
    rows = vectors.astype(np.float64)
    if metric == "cosine":
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    dimension = min(_COMPONENTS, rows.shape[1])
    return fit_pca(Moments.of(rows), dimension=dimension).apply(rows).astype(np.float64)


def _two_columns(components: Float64) -> Float64:
    """The first two components; nought for those that one-dimensional vectors lack."""
    missing = max(0, 2 - components.shape[1])
    return np.pad(components[:, :2], ((0, 0), (0, missing)))


def _check_library() -> None:
    """Load what lays out, since only what is loaded can be limited. Raises InvalidInput."""
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        raise InvalidInput(
            "the layout of a map needs scikit-learn, which the workers lack; install the extra "
            "there with pip install 'ember-spark[map]'"
        ) from None


def _neighborly(components: Float64, start: Float64) -> Float32:
    from sklearn.manifold import TSNE

    fitted = TSNE(
        perplexity=min(_PERPLEXITY, (len(components) - 1) / 3),
        init=start.astype(np.float32),
        max_iter=_STEPS,
        n_jobs=1,
        random_state=0,
    )
    found: Float32 = fitted.fit_transform(components.astype(np.float32))
    return found
