"""Principal components from merged moments against scikit-learn; the folder of a projection."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.decomposition import PCA

from ember.worker.vectors.pca import Moments, fit_pca
from ember.worker.vectors.projection import Projection, project_column


def falling(seed, n, d, rank=None):
    rng = np.random.default_rng(seed)
    rank = rank or d
    rows = rng.normal(size=(n, rank)) * np.geomspace(1, 0.1, rank)
    return (rows @ np.linalg.qr(rng.normal(size=(d, rank)))[0].T + 5.0).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        (falling(0, 300, 20), 7),
        (falling(1, 5000, 12), 12),
        (falling(2, 200, 30, rank=5), 5),
        (falling(3, 9, 40), 8),
    ],
    ids=["random", "several chunks", "rank deficient", "fewer rows than dimensions"],
)
@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_scikit_learn(rows, size, whiten):
    ours = fit_pca(Moments.of(rows), dimension=size, whiten=whiten)
    theirs = PCA(size, svd_solver="full", whiten=whiten).fit(rows.astype(np.float64))
    signs = np.sign((ours.components * theirs.components_.T).sum(axis=0))
    expected = theirs.transform(rows.astype(np.float64)) * signs
    np.testing.assert_allclose(ours.apply(rows), expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(ours.facts["explained_variance"], theirs.explained_variance_)
    np.testing.assert_allclose(ours.facts["explained_ratio"], theirs.explained_variance_ratio_)
    largest = np.abs(ours.components).argmax(axis=0)
    assert (ours.components[largest, np.arange(size)] > 0).all()


def test_directions_beyond_the_rank_are_zero():
    rows = falling(2, 200, 30, rank=5)
    fitted = fit_pca(Moments.of(rows), dimension=9)
    assert fitted.facts["rank"] == 5
    assert np.abs(fitted.apply(rows)[:, :5]).max() > 1
    assert not fitted.apply(rows)[:, 5:].any()
    constant = fit_pca(Moments.of(np.full((10, 4), 3, np.float32)), dimension=2, whiten=True)
    assert not constant.apply(np.full((3, 4), 7, np.float32)).any()


@pytest.mark.parametrize("share", [0.3, 0.8, 0.999])
def test_the_fewest_components_that_explain_a_share(share):
    rows = falling(4, 400, 25)
    theirs = PCA(share, svd_solver="full").fit(rows.astype(np.float64))
    assert fit_pca(Moments.of(rows), explained=share).output_dimension == theirs.n_components_
    few = falling(2, 200, 30, rank=5)
    assert fit_pca(Moments.of(few), explained=1.0).output_dimension == 5


def test_without_centering_all_dimensions_keep_inner_products():
    rows = falling(5, 50, 8)
    projected = fit_pca(Moments.of(rows), dimension=8, center=False).apply(rows)
    np.testing.assert_allclose(projected @ projected.T, rows @ rows.T, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_moments_are_the_same_in_any_partitioning_and_order(data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 5)))
    values = st.floats(-1e4, 1e4, width=32)
    rows = data.draw(arrays.arrays(np.float32, shape, elements=values))
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=6))
    parts = [Moments.of(part) for part in np.split(rows, sorted(cuts))]
    while len(parts) > 1:
        one = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(Moments.unpack(one.merge(other).pack(), shape[1]))
    exact = rows.astype(np.float64)
    centered = exact - exact.mean(axis=0)
    scale = np.square(exact).sum() + 1e-30
    assert parts[0].count == len(rows)
    np.testing.assert_allclose(parts[0].mean, exact.mean(axis=0), atol=1e-13 * np.sqrt(scale))
    np.testing.assert_allclose(parts[0].scatter, centered.T @ centered, atol=1e-12 * scale)


def test_a_mean_far_from_the_origin_costs_no_digits():
    near = np.random.default_rng(0).integers(-8, 8, (1000, 3)).astype(np.float32)
    far = Moments.of(near + np.float32(2**20)).scatter
    np.testing.assert_allclose(far, Moments.of(near).scatter, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"dimension": 5}, "cannot project 4 dimensions to 5"),
        ({"explained": 1.5}, "explained is 1.5"),
        ({"explained": 0.5}, "all rows are equal"),
    ],
)
def test_sizes_that_cannot_be_are_refused(size, words):
    with pytest.raises(ValueError, match=words):
        fit_pca(Moments.of(np.ones((3, 4), np.float32)), **size)
    with pytest.raises(ValueError, match="no rows"):
        fit_pca(Moments.empty(4), **size)


def test_a_saved_projection_is_the_same_and_a_damaged_one_is_refused(tmp_path):
    fitted = fit_pca(Moments.of(falling(6, 60, 6)), dimension=3)
    fitted.save(tmp_path)
    again = Projection.load(tmp_path)
    assert again.fingerprint == fitted.fingerprint
    assert again.describe() == json.loads((tmp_path / "projection.json").read_text())
    fit_pca(Moments.of(falling(7, 60, 6)), dimension=3).save(tmp_path / "other")
    (tmp_path / "other" / "projection.safetensors").rename(tmp_path / "projection.safetensors")
    with pytest.raises(ValueError, match="is not the file that projection"):
        Projection.load(tmp_path)
    (tmp_path / "projection.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no usable projection"):
        Projection.load(tmp_path)


def test_a_column_is_projected_row_by_row_with_reasons_for_the_rest():
    fitted = Projection("given", np.array([1.0, 0.0]), np.array([[2.0], [3e38]]), np.array([5.0]))
    column = pa.array(
        [[1, 0], None, [3, 0], [1], [0, float("inf")], [0, 2]], pa.list_(pa.float64())
    )
    vectors, reasons = project_column(column, fitted)
    assert vectors.to_pylist() == [[5.0], None, [9.0], None, None, None]
    assert reasons.to_pylist() == [
        None, "null embedding", None, "wrong length: 1 instead of 2", "not finite",
        "not finite after projection",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="takes 2 dimensions, the rows have 3"):
        fitted.apply(np.ones((1, 3), np.float32))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("whiten", [True, False])
def test_rows_that_are_kept_give_what_their_square_matrix_gives(center, whiten):
    rows = falling(4, 30, 80, rank=11)
    kept = Moments.of(rows[:13]).merge(Moments.of(rows[13:]))
    assert kept.square is None
    square = Moments(kept.count, kept.mean, None, kept.scatter)
    np.testing.assert_allclose(kept.squares, square.squares)
    fits = [fit_pca(m, dimension=12, center=center, whiten=whiten) for m in (kept, square)]
    assert fits[0].facts["rank"] == fits[1].facts["rank"] == (11 if center else 12)
    one, other = (fit.apply(rows) for fit in fits)
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    again = Moments.unpack(kept.pack(), 80)
    np.testing.assert_array_equal(again.factor, kept.factor)
    np.testing.assert_array_equal(Moments.unpack(square.pack(), 80).scatter, square.scatter)


def test_doubles_far_from_the_origin_lose_no_component():
    rng = np.random.default_rng(5)
    rows = 5_500_000 + rng.normal(size=(200, 3)) * [9.0, 3.0, 0.1]
    fitted = fit_pca(Moments.of(rows), dimension=3)
    assert fitted.facts["rank"] == 3
    theirs = PCA(3, svd_solver="full").fit(rows)
    found = np.abs(fitted.apply(rows).astype(np.float64))
    np.testing.assert_allclose(found, np.abs(theirs.transform(rows)), atol=1e-5)


def test_rows_and_dimensions_that_are_both_too_many_are_refused(monkeypatch):
    monkeypatch.setattr("ember.worker.vectors.pca.MOST_BYTES", 8 * 100 * 20)
    few, many = np.ones((9, 100), np.float32), np.ones((30, 100), np.float32)
    assert Moments.of(few).merge(Moments.of(few)).count == 18
    with pytest.raises(ValueError, match=r"up to 20, chosen with input\.where"):
        Moments.of(many).merge(Moments.of(few))
