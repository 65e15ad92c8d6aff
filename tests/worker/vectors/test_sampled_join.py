"""What samples say of a join, against all of its pairs."""

import numpy as np
import pytest

from ember.worker.vectors.sampled_join import sample_join

THRESHOLD = 0.9


def vectors(seed: int, rows: int) -> np.ndarray:
    """Groups of near-duplicates of very different sizes, and rows that are like no other."""
    rng = np.random.default_rng(seed)
    groups = rng.zipf(1.7, rows) % 400
    centers = rng.standard_normal((400, 16))
    return (centers[groups] + 0.15 * rng.standard_normal((rows, 16))).astype(np.float32)


def pairs(left: np.ndarray, right: np.ndarray | None) -> float:
    """The share of pairs that reach the threshold, by a product in float64."""
    a = left.astype(np.float64) / np.linalg.norm(left.astype(np.float64), axis=1)[:, None]
    if right is None:
        return float((np.triu(a @ a.T, 1) >= THRESHOLD).sum() / (len(a) * (len(a) - 1) / 2))
    b = right.astype(np.float64) / np.linalg.norm(right.astype(np.float64), axis=1)[:, None]
    return float((a @ b.T >= THRESHOLD).mean())


@pytest.mark.parametrize("itself", [True, False])
def test_of_whole_tables_the_share_is_exact(itself):
    left, right = vectors(0, 900), None if itself else vectors(1, 700)
    found = sample_join(left, right, "cosine", THRESHOLD, drawn=(1.0, 1.0), threads=1)
    expected = pairs(left, right)
    assert found.share == pytest.approx(expected, rel=1e-6)
    assert found.low == found.high == found.share
    assert min(found.pair_seconds, found.row_seconds) > 0
    assert found.row_bytes >= 16 * 4


@pytest.mark.parametrize("itself", [True, False])
def test_the_interval_holds_the_share_of_all_rows_about_as_often_as_it_says(itself):
    left, right = vectors(2, 3000), None if itself else vectors(3, 2500)
    expected, hits = pairs(left, right), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a = left[rng.choice(len(left), 600, replace=False)]
        b = None if right is None else right[rng.choice(len(right), 500, replace=False)]
        found = sample_join(a, b, "cosine", THRESHOLD, drawn=(0.2, 0.2), threads=1)
        hits += found.low <= expected <= found.high
        assert found.low <= found.share <= found.high
    # 57 of 60 are meant; fewer than 51 happen once in a hundred times, were it so.
    assert hits >= 51


def test_where_a_sample_has_no_pair_there_may_be_some():
    rows = np.eye(40, 64, dtype=np.float32)
    found = sample_join(rows, None, "cosine", THRESHOLD, drawn=(0.1, 0.1), threads=1)
    assert (found.share, found.low) == (0, 0)
    assert found.high == pytest.approx(3 / (40 * 39 / 2))
