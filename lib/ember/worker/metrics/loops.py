"""Compiled loops of the bootstrap: weights from keys, and sums of weighted rows.

They cost each row about a microsecond for 1,000 replicates. numpy needs ten times as much, since it
writes every step of SplitMix64 and every product to memory. Shapes in the comments: n rows, s
columns of weights, e entries, k values of an entry, h items that are held.
"""

from __future__ import annotations

import numpy as np

from ember.worker.compiled import compiled

GAMMA = np.uint64(0x9E3779B97F4A7C15)


@compiled()
def draw(keys: np.ndarray, first: int, thresholds: np.ndarray, weights: np.ndarray) -> None:
    """Fill `weights` (n, s), uint8, columns of a matrix, with the Poisson draws from `first` on.

    keys: (n,) uint64. thresholds: (8,) int32, the least 16-bit number of which the draw is 1, 2, …
    """
    start, count = first % 4, weights.shape[1]
    lanes = np.empty((start + count + 3) // 4 * 4, np.uint16)
    words = lanes.view(np.uint64)
    t1, t2, t3, t4, t5, t6, t7, t8 = thresholds
    for row in range(len(keys)):
        for place in range(len(words)):
            # SplitMix64; see ember.worker.splitmix.
            word = keys[row] + np.uint64(first // 4 + place + 1) * GAMMA
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            words[place] = word ^ (word >> np.uint64(31))
        drawn = weights[row]
        for column in range(count):
            # Comparisons fit into vector instructions; a table of the quantiles would not.
            u = np.int32(lanes[start + column])
            low = np.int32(u >= t1) + np.int32(u >= t2) + np.int32(u >= t3) + np.int32(u >= t4)
            high = np.int32(u >= t5) + np.int32(u >= t6) + np.int32(u >= t7) + np.int32(u >= t8)
            drawn[column] = low + high


@compiled()
def add_weighted(
    items: np.ndarray, rows: np.ndarray, values: np.ndarray, weights: np.ndarray, held: np.ndarray
) -> None:
    """Add each entry's values, times the weights of its row, to what is held of its item.

    items, rows: (e,) int64, in range. values: (e, k) int8 or int64. weights: (n, s) uint8.
    held: (h, k, s) int32 or int64.
    """
    for entry in range(len(items)):
        of_row = weights[rows[entry]]
        for place in range(values.shape[1]):
            value = values[entry, place]
            if value == 0:
                continue
            sums = held[items[entry], place]
            if value == 1:
                for column in range(len(sums)):
                    sums[column] += of_row[column]
            else:
                for column in range(len(sums)):
                    sums[column] += value * of_row[column]
