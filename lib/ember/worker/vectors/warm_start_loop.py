"""The compiled loop behind warm_start.py: rows around pivots, compared with queries near them."""

from __future__ import annotations

import numpy as np

from ember.worker.vectors.arrays import Float32, Int64
from ember.worker.vectors.compiled import compiled
from ember.worker.vectors.loops import replace_least

QueriesByPivot = tuple[Float32, Int64, Float32, Int64, Int64, int]
"""q queries: scaled (q, d), own keys (q,), an error (q,); places by probed pivot, (q * probes,),
where a place is query * probes + probe; where each pivot's places begin; and probes."""
RowsByPivot = tuple[Float32, Int64, Float32, Float32, Int64, Int64, int, bool]
"""n rows: scaled (n, d), own keys (n,), scale and shift (n,), which make the value
product * scale - shift - error; positions by pivot (n,), where each pivot's begin; how many of them
count; and whether rows with the query's own key do not."""


@compiled()
def compare(queries: QueriesByPivot, rows: RowsByPivot, pivots: Int64, best: Float32) -> None:
    """Compare the rows of some pivots with the queries that probe them.

    Args:
        queries: by pivot.
        rows: by pivot.
        pivots: which of them.
        best: (q * probes, k) float32; the k best values of each place, as heaps. Changed.
    """
    left, own, error, places, starts, probes = queries
    right, other_own, scale, shift, order, begins, most, exclude_self = rows
    for pivot in pivots:
        mine = places[starts[pivot] : starts[pivot + 1]]  # (a,)
        first = begins[pivot]
        last = min(begins[pivot + 1], first + most)
        if len(mine) == 0 or first == last:
            continue
        products = np.dot(left[mine // probes], right[order[first:last]].T)  # (a, b)
        for i in range(len(mine)):
            query, heap = mine[i] // probes, best[mine[i]]
            for j in range(last - first):
                row = order[first + j]
                value = products[i, j] * scale[row] - shift[row] - error[query]
                # heap[0] is the least of the k best.
                if value > heap[0] and not (exclude_self and own[query] == other_own[row]):
                    replace_least(heap, value)
