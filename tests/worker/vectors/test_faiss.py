"""The kernels against faiss, where both are defined: inner products of float32 vectors."""

from __future__ import annotations

import faiss
import numpy as np

from ember.worker.vectors import prepare, threshold_pairs, top_k
from vector_cases import clustered

ROUNDING = 1e-5


def unit(matrix: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled: np.ndarray = (matrix / lengths).astype(np.float32)
    return scaled


def test_a_join_finds_the_pairs_of_range_search() -> None:
    rows = unit(clustered(np.random.default_rng(0), 600, 48))
    index = faiss.IndexFlatIP(48)
    index.add(rows)
    limits, _, ids = index.range_search(rows, 0.8 - ROUNDING)
    theirs = {
        (row, int(other))
        for row in range(len(rows))
        for other in ids[limits[row] : limits[row + 1]]
        if row < other
    }
    block = prepare(rows, "cosine")
    chunks = list(threshold_pairs(block, block, 0.8, triangle=True))
    ours = {
        pair
        for chunk in chunks
        for pair in zip(chunk.left.tolist(), chunk.right.tolist(), strict=True)
    }
    assert len(ours) > 1000
    assert ours <= theirs
    for row, other in theirs - ours:  # what rounding may have put on the other side
        assert abs(float(rows[row].astype(float) @ rows[other].astype(float)) - 0.8) < 2 * ROUNDING


def test_top_k_finds_the_neighbors_of_a_flat_index() -> None:
    random = np.random.default_rng(1)
    corpus, queries = unit(clustered(random, 2000, 48)), unit(clustered(random, 100, 48))
    index = faiss.IndexFlatIP(48)
    index.add(corpus)
    their_scores, their_ids = index.search(queries, 10)
    block = prepare(corpus, "cosine")
    ids, scores = top_k(prepare(queries, "cosine", block.basis), [block], 10)
    np.testing.assert_allclose(scores, their_scores, atol=ROUNDING)
    clear = np.diff(their_scores, axis=1).max(axis=1) < -ROUNDING
    assert clear.any()
    np.testing.assert_array_equal(ids[clear], their_ids[clear])
