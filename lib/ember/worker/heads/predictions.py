"""Scores as the column `predictions` of the contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ember.worker.heads.head import Float32

__all__ = ["predictions"]


def predictions(scores: Float32, labels: tuple[str, ...], top_k: int | None = None) -> pa.ListArray:
    """(n, c) scores as list<struct<index int, label string, score float>>, best first.

    Ties go to the smaller index. top_k: how many labels a row gets; by default all.
    """
    n, c = scores.shape
    k = c if top_k is None else min(top_k, c)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    index = order.ravel().astype(np.int32)
    names = pa.array(labels, pa.string()).take(pa.array(index))
    ranked = pa.array(np.take_along_axis(scores, order, axis=1).ravel())
    struct = pa.StructArray.from_arrays(
        [pa.array(index), names, ranked], names=["index", "label", "score"]
    )
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * k), struct)
