"""Vectors as points of the plane, and the sample of them that is drawn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.manifold import trustworthiness

from ember.worker.vectors.plane import plane, plane_batches
from ember.worker.vectors.sample import candidates, unusable_batches


def batches(hashes, matrix, ids=None, size=7):
    column = pa.array(list(matrix), pa.list_(pa.float32()))
    names = pa.array([f"i{n}" for n in range(len(hashes))] if ids is None else ids)
    whole = pa.RecordBatch.from_arrays(
        [names, pa.array(hashes, pa.int64()), column], ["i", "h", "v"]
    )
    return [whole.slice(at, size) for at in range(0, len(whole), size)]


def test_neighbors_stay_neighbors_better_than_by_two_components():
    draw = np.random.default_rng(0)
    middles = 6 * draw.normal(size=(12, 30))
    matrix = (middles[draw.integers(0, 12, 300)] + draw.normal(size=(300, 30))).astype(np.float32)
    points = plane(matrix, "euclidean")
    assert points.shape == (300, 2)
    assert points.dtype == np.float32
    centered = matrix - matrix.mean(axis=0)
    two = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T
    assert trustworthiness(matrix, points) > max(0.97, trustworthiness(matrix, two))
    # For cosine lengths count for nothing.
    lengths = draw.uniform(0.5, 2, size=(300, 1)).astype(np.float32)
    one, other = plane(matrix, "cosine"), plane(matrix * lengths, "cosine")
    assert trustworthiness(matrix, one, metric="cosine") > 0.97
    assert trustworthiness(matrix, other, metric="cosine") > 0.97


def test_the_order_and_the_batches_of_rows_decide_nothing():
    draw = np.random.default_rng(1)
    matrix = draw.normal(size=(60, 5)).astype(np.float32)
    hashes = draw.integers(-(2**62), 2**62, 60)
    hashes[7] = hashes[3]  # of an id that occurs twice
    matrix[20] = np.nan
    ids = ["twice" if n in (3, 7) else f"i{n}" for n in range(60)]
    (first,) = plane_batches(batches(hashes, matrix, ids), "cosine", 5, 50)
    order = draw.permutation(60)
    shuffled = batches(hashes[order], matrix[order], [ids[n] for n in order], 11)
    (second,) = plane_batches(shuffled, "cosine", 5, 50)
    assert first.equals(second)
    kept = sorted((hashes[n], ids[n]) for n in range(60) if n != 20)[:50]
    assert first.column(0).to_pylist() == [name for _, name in kept]
    assert first.column(1).to_pylist() == list(range(50))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 11, 12, 13])
def test_few_rows_and_equal_rows_have_a_map_as_well(count):
    draw = np.random.default_rng(2)
    for dimension in (1, 2, 40):
        points = plane(draw.normal(size=(count, dimension)).astype(np.float32), "euclidean")
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
    same = plane(np.ones((count, 3), np.float32), "cosine")
    assert not same.any()
    pairs = np.repeat(draw.normal(size=(count, 4)), 2, axis=0).astype(np.float64)
    assert np.isfinite(plane(pairs, "cosine")).all()


def test_a_sample_is_of_the_smallest_hashes_of_usable_rows():
    draw = np.random.default_rng(3)
    matrix = draw.normal(size=(90, 4)).astype(np.float32)
    matrix[::9] = 0
    hashes = [None if n == 5 else int(h) for n, h in enumerate(draw.integers(-99, 99, 90))]
    ids = [None if n == 5 else f"i{n}" for n in range(90)]
    seen = batches(hashes, matrix, ids)
    both = (batch.select(["h", "v"]) for batch in seen)
    (found,) = candidates(both, "cosine", 4, 20)
    usable = sorted(each for n, each in enumerate(hashes) if n % 9 and n != 5)
    told = found.to_pylist()
    assert [row["hash"] for row in told if row["hash"] is not None] == usable[:20]
    reasons = {row["reason"]: row["rows"] for row in told if row["hash"] is None}
    assert reasons == {"null id": 1, "": 79, "zero norm": 10}
    bad = [
        row
        for batch in unusable_batches((b.select(["i", "v"]) for b in seen), "cosine", 4)
        for row in batch.to_pylist()
    ]
    assert [row["reason"] for row in bad] == ["zero norm", "null id", *["zero norm"] * 9]
