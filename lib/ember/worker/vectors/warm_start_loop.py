"""The compiled loop behind warm_start.py: rows around pivots, compared with queries near them."""

from __future__ import annotations

import numpy as np

from ember.worker.vectors.arrays import Float32, Int64
from ember.worker.vectors.compiled import compiled
from ember.worker.vectors.loops import replace_least

Asking = tuple[Float32, Int64, Float32, Int64, Int64, int]
"""Queries: scaled (q, d), own keys (q,) and an error (q,); query * probes + probe, by the probed
pivot, (q * probes,), where each pivot's begin, and probes."""
Near = tuple[Float32, Int64, Float32, Float32, Int64, Int64, int, bool]
"""n rows: scaled (n, d), own keys, scale and shift, which make the value product * scale - shift -
error; the rows' positions by pivot, where each pivot's begin, how many of them count, and whether
those with the query's own key do not."""


@compiled()
def look(asking: Asking, near: Near, pivots: Int64, best: Float32) -> None:
    """Compare the rows of some pivots with the queries that probe them.

    Args:
        asking: the queries.
        near: the rows.
        pivots: (n,) which of them.
        best: (places, k) float32; the k best values of each place, as heaps. Changed.
    """
    rows, ids, error, places, starts, probes = asking
    vectors, own_ids, scale, shift, order, begins, most, exclude_self = near
    for pivot in pivots:
        mine = places[starts[pivot] : starts[pivot + 1]]
        first = begins[pivot]
        last = min(begins[pivot + 1], first + most)
        if len(mine) == 0 or first == last:
            continue
        products = np.dot(rows[mine // probes], vectors[order[first:last]].T)
        for i in range(len(mine)):
            query, heap = mine[i] // probes, best[mine[i]]
            for j in range(last - first):
                other = order[first + j]
                value = products[i, j] * scale[other] - shift[other] - error[query]
                if value > heap[0] and not (exclude_self and ids[query] == own_ids[other]):
                    replace_least(heap, value)
