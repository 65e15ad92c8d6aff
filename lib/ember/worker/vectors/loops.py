"""Compiled loops over the scores of a tile, without temporary arrays or the interpreter's lock.

For the lock, threads that do many small steps in numpy mostly wait. Shapes in the comments: a rows
on the left, b on the right, d coordinates, w packed ones, k places for each row on the left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ember.worker.compiled import ANY_ORDER, compiled
from ember.worker.vectors import bounds, int8_kernel
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.basis import METRICS
from ember.worker.vectors.scores import tie_floor

Rows = tuple[Any, Float32, Float64, Int64]
"""n rows: packed, as their filter has it; scaled (n, d), sizes (n,), keys (n,)."""
Rule = tuple[int, int, float]
"""Which pairs count, by their rows' keys: 0 all, 1 those that differ, 2 those whose right key is
larger; the metric's place in METRICS; bounds.dot_slack."""
Room = tuple[Float32, Int64, Int64, Float64, Float64]
"""Products of all a rows with as many columns as are compared at once; at least as many places
each for the pairs' positions, their F and a bound on its error."""

QueriesByPivot = tuple[Float32, Int64, Float32, Int64, Int64, int]
"""q queries: scaled (q, d), own keys (q,), an error (q,); places by probed pivot, (q * probes,),
where a place is query * probes + probe; where each pivot's places begin; and probes."""
RowsByPivot = tuple[Float32, Int64, Float32, Float32, Int64, Int64, int, bool]
"""n rows: scaled (n, d), own keys (n,), scale and shift (n,), which make the value
product * scale - shift - error; positions by pivot (n,), where each pivot's begin; how many of them
count; and whether rows with the query's own key do not."""

COSINE, EUCLIDEAN = METRICS.index("cosine"), METRICS.index("euclidean")
DENSE_SHARE = 0.1
"""Above this share of survivors one dense product is cheaper than separate dot products."""
RUN = 64
"""Entries that are compared at once: most of such runs have none that counts. With fewer the
compiler unrolls the loop instead of using vectors."""


@compiled()
def candidates(
    left: Rows, right: Rows, rule: Rule, floor: Float64, best: Float32, first: int, room: Room
) -> tuple[int, int]:
    """The pairs of a rows with b others that may reach their row's floor, which rises meanwhile.

    Args:
        left: a rows, packed in float32: (a, w).
        right: b others, (b, w).
        rule: which pairs count, and how.
        floor: (a,) F (bounds.py) that pairs must reach. Raised where ``best`` has places.
        best: (a, k) lower bounds of the k best F of each row, as heaps. Changed.
        first: the column to begin with.
        room: where the pairs go.

    Returns:
        How many pairs were found, and the column to go on with when there is no room for more.
    """
    products, i, j, _, _ = room  # (a * width,), then one place for each pair
    packed, packed_right = left[0], right[0]  # (a, w), (b, w)
    rows, columns = len(left[3]), len(right[3])
    width, found = len(products) // rows, 0
    least = np.empty(rows, np.float32)
    # Stop before a tile whose pairs would have no room if all of them passed.
    while first < columns and found + rows * width <= len(i):
        stop = min(first + width, columns)
        grid = products[: rows * (stop - first)].reshape((rows, stop - first))
        np.dot(packed, packed_right[first:stop].T, grid)  # (a, width), never below F
        for row in range(rows):  # anew for each tile: floors rise from tile to tile
            least[row] = _float32_below(floor[row])
        passed = reaching(grid, least, i[found:], j[found:])
        found = _kept(left, right, rule, floor, best, (first, stop), room, (found, passed))
        first = stop
    return found, first


@compiled()
def candidates_int8(
    left: Rows, right: Rows, rule: Rule, floor: Float64, best: Float32, first: int, room: Room
) -> tuple[int, int]:
    """`candidates` of rows that are packed in int8 (int8_filter.Int8Rows, Int8Columns)."""
    products, i, j, _, _ = room
    product, offset, squared = left[0]  # (words (a, w), int8 words, ratio), (a,), a number
    panels, bias = right[0]  # (ceil(b / 16), w, 16), (16 ceil(b / 16),)
    rows, columns = len(left[3]), len(right[3])
    width, found = len(products) // rows, 0
    least = np.empty(rows, np.int32)
    while first < columns and found + rows * width <= len(i):
        stop = min(first + width, columns)
        int8_kernel.floors(floor, offset, squared, least)
        # Tiles begin at panels, of which the last one may be filled up.
        begin, end = first // int8_kernel.COLUMNS, -(-stop // int8_kernel.COLUMNS)
        some = panels[begin:end], bias[first : end * int8_kernel.COLUMNS]
        passed = int8_kernel.reaching(product, some, least, i[found:], j[found:])
        found = _kept(left, right, rule, floor, best, (first, stop), room, (found, passed))
        first = stop
    return found, first


@compiled()
def _kept(
    left: Rows, right: Rows, rule: Rule, floor: Float64, best: Float32, columns: tuple[int, int],
    room: Room, passed: tuple[int, int],
) -> int:  # fmt: skip
    """Keep, of the pairs that passed the filter, those that count and may reach their row's floor.

    ``columns`` are the first one compared and the end; ``passed`` is how many pairs the room had
    before, and how many passed, whose positions follow there. Returns how many it has then.
    """
    _, vectors, norms, keys = left  # (a, d), (a,), (a,)
    _, vectors_right, norms_right, keys_right = right
    which, metric, slack = rule
    products, i, j, value, error = room
    first, stop = columns
    kept, more = passed
    # The filter's products (a, width) are read already, so their room is free for exact ones.
    grid = products[: len(keys) * (stop - first)].reshape((len(keys), stop - first))
    dense = more > DENSE_SHARE * grid.size
    if dense:
        np.dot(vectors, vectors_right[first:stop].T, grid)
    # What is kept moves to the front: `kept` never overtakes `place`.
    for place in range(kept, kept + more):
        row, column = i[place], first + j[place]
        if not _counts(keys[row], keys_right[column], which):
            continue
        # In float32, off by dot_slack: better than the filter's value, and not yet the score.
        dot = grid[row, column - first] if dense else _dot(vectors, row, vectors_right, column)
        near, off = _bounded(dot, norms[row], norms_right[column], metric, slack)
        if _offered(row, near, off, floor, best):
            i[kept], j[kept], value[kept], error[kept] = row, column, near, off
            kept += 1
    return kept


@compiled()
def _counts(key: int, other: int, which: int) -> bool:
    return which == 0 or (key != other if which == 1 else key < other)


@compiled()
def reaching(grid: NDArray[Any], least: NDArray[Any], row: Int64, column: Int64) -> int:
    """Find the entries that reach the least value of their row.

    Args:
        grid: (a, b).
        least: (a,) of the same type.
        row: int64, with places for all entries; receives positions, row by row.
        column: int64, the same.

    Returns:
        How many there are.
    """
    found = 0
    for i in range(grid.shape[0]):
        floor = least[i]
        whole = grid.shape[1] // RUN * RUN
        for start in range(0, whole, RUN):
            # No branch inside, so that the compiler compares with vector instructions.
            some = np.int32(0)
            for place in range(RUN):
                some = np.int32(some | np.int32(grid[i, start + place] >= floor))
            # Few runs have any entry that counts: those are searched by eights, then one by one.
            for eight in range(start, start + RUN if some else start, 8):
                if _largest_of_eight(grid, i, eight) >= floor:
                    for j in range(eight, eight + 8):
                        if grid[i, j] >= floor:
                            row[found] = i
                            column[found] = j
                            found += 1
        for j in range(whole, grid.shape[1]):  # what is left of the row
            if grid[i, j] >= floor:
                row[found] = i
                column[found] = j
                found += 1
    return found


@compiled()
def _largest_of_eight(grid: NDArray[Any], i: int, j: int) -> Any:
    """The largest of grid[i, j : j + 8]; a tree becomes a few vector instructions, a loop not."""
    a, b = max(grid[i, j], grid[i, j + 1]), max(grid[i, j + 2], grid[i, j + 3])
    c, d = max(grid[i, j + 4], grid[i, j + 5]), max(grid[i, j + 6], grid[i, j + 7])
    e, f = max(a, b), max(c, d)
    return max(e, f)


@compiled(fastmath=ANY_ORDER)
def _dot(left: Float32, i: int, right: Float32, j: int) -> np.float32:
    """The product of left[i] and right[j]; to slice them here would cost as much as that."""
    total = np.float32(0.0)
    for k in range(left.shape[1]):
        total += left[i, k] * right[j, k]
    return total


@compiled()
def _bounded(
    dot: np.float32, norm: float, other: float, metric: int, slack: float
) -> tuple[float, float]:
    """F (bounds.py) of a pair from its float32 dot product, and a bound on its error."""
    if norm + other == np.inf:  # a row beyond float32 products: nothing is known
        return 0.0, np.inf
    value, norms = np.float64(dot), norm * other
    if metric == COSINE:  # F = a.b / (|a| |b|)
        return value / norms, slack + bounds.TINY / norms
    error = slack * norms + bounds.TINY
    if metric == EUCLIDEAN:  # F = a.b - |a|^2 / 2 - |b|^2 / 2
        halves = 0.5 * (norm * norm + other * other)
        return value - halves, error + bounds.EXACT * halves
    return value, error


@compiled()
def _offered(row: int, value: float, error: float, floor: Float64, best: Float32) -> bool:
    """Whether a pair may reach its row's floor, which it may raise."""
    if value + error < floor[row]:
        return False
    if best.shape[1]:  # top-k; a threshold join has no places, and its floors stay
        lower = _float32_below(value - error)
        if lower > best[row, 0]:  # the least of the heap, the k-th best so far
            replace_least(best[row], lower)
            floor[row] = max(floor[row], _tie_floor(best[row, 0]))
    return True


@compiled()
def replace_least(heap: Float32, value: np.float32) -> None:
    """Put a value in the place of the least one, heap[0] (Williams, Algorithm 232: Heapsort, 1964).

    The children of place p are at 2 p + 1 and 2 p + 2, and neither is smaller than it.
    """
    size, place = len(heap), 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[place] = heap[child]  # the smaller child moves up
        place = child
    heap[place] = value


@compiled()
def _float32_below(value: float) -> np.float32:
    """As scores.float32_below, of one value."""
    rounded = np.float32(value)
    if rounded > value:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return rounded


_tie_floor = compiled()(tie_floor)


@compiled()
def compare_by_pivot(
    queries: QueriesByPivot, rows: RowsByPivot, pivots: Int64, best: Float32
) -> None:
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
