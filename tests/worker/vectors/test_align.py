"""Alignments from moments of pairs against scikit-learn and scipy on the pairs themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from ember.worker.vectors.align import PENALTIES, fit_alignment
from ember.worker.vectors.pca import Moments


def pairs(seed=0, n=400, d=8, e=5, noise=0.3):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 4))
    x = common @ rng.normal(size=(4, d)) + noise * rng.normal(size=(n, d)) + 3
    y = common @ rng.normal(size=(4, e)) + noise * rng.normal(size=(n, e)) - 2
    return x.astype(np.float32), y.astype(np.float32)


def moments(x, y):
    both = np.concatenate([x, y], axis=1)
    return Moments.of(both[:100]).merge(Moments.of(both[100:]))


def test_ridge_is_that_of_scikit_learn():
    x, y = pairs()
    fitted, other = fit_alignment(moments(x, y), 8, "ridge", penalty=0.1)
    exact = x.astype(np.float64)
    penalty = 0.1 * np.trace(np.cov(exact.T, bias=True)) / 8 * len(x)
    theirs = Ridge(alpha=penalty).fit(exact, y.astype(np.float64))
    assert other is None
    np.testing.assert_allclose(fitted.apply(x), theirs.predict(exact), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(400, 8), (30, 40)])  # also fewer pairs than dimensions
def test_the_penalty_is_that_of_least_generalized_cross_validation_error(n, d):
    x, y = pairs(2, n, d, noise=1.0)
    fitted, _ = fit_alignment(moments(x, y), d, "ridge")
    left, right = x.astype(np.float64), y.astype(np.float64)
    mean = np.full((n, n), 1 / n)
    centered = left - left.mean(axis=0)
    diagonal = np.square(centered).sum() / d
    errors = []
    for penalty in PENALTIES:
        inverse = np.linalg.inv(centered.T @ centered + penalty * diagonal * np.eye(d))
        hat = mean + centered @ inverse @ centered.T
        residual = np.square(right - hat @ right).sum() / n
        errors.append(residual / (1 - np.trace(hat) / n) ** 2)
    assert fitted.facts["penalty"] == PENALTIES[int(np.argmin(errors))]
    assert PENALTIES[0] < fitted.facts["penalty"] < PENALTIES[-1]
    variance = np.square(right - right.mean(axis=0)).sum() / n
    unseen = 1 - min(errors) / (variance / (1 - 1 / n) ** 2)
    assert fitted.facts["explained_unseen"] == pytest.approx(unseen)
    residual = np.square(right - fitted.apply(x)).sum() / n
    assert fitted.facts["explained"] == pytest.approx(1 - residual / variance, abs=1e-4)


def test_where_one_side_tells_nothing_of_the_other_the_penalty_is_large():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 300, 6)).astype(np.float32)
    fitted, _ = fit_alignment(moments(x, y), 6, "ridge")
    assert fitted.facts["penalty"] > 1
    assert fitted.facts["explained_unseen"] == pytest.approx(0, abs=0.02)
    same, _ = fit_alignment(moments(x, np.ones_like(y)), 6, "ridge")
    assert np.abs(same.components).max() == 0


def test_procrustes_is_that_of_scipy():
    x, y = pairs(e=8)
    fitted, _ = fit_alignment(moments(x, y), 8, "procrustes")
    left, right = x - x.mean(0, dtype=float), y - y.mean(0, dtype=float)
    rotation, scale = orthogonal_procrustes(left, right)
    expected = left @ rotation * scale / np.square(left).sum() + y.mean(0)
    np.testing.assert_allclose(fitted.apply(x), expected, atol=1e-4)


@pytest.mark.parametrize(("d", "e"), [(8, 5), (5, 8)])
def test_procrustes_of_different_dimensions_has_orthonormal_rows_or_columns(d, e):
    x, y = pairs(d=d, e=e)
    weights = fit_alignment(moments(x, y), d, "procrustes")[0].components
    gram = weights.T @ weights if d > e else weights @ weights.T
    np.testing.assert_allclose(gram / gram[0, 0], np.eye(min(d, e)), atol=1e-9)


def test_canonical_coordinates_are_uncorrelated_but_with_their_partners():
    x, y = pairs()
    left, right = fit_alignment(moments(x, y), 8, "cca", dimension=4, penalty=0.0)
    a, b = left.apply(x), right.apply(y)
    table = np.corrcoef(a.T, b.T)
    np.testing.assert_allclose(table[:4, :4], np.eye(4), atol=1e-3)
    np.testing.assert_allclose(table[4:, 4:], np.eye(4), atol=1e-3)
    np.testing.assert_allclose(table[:4, 4:], np.diag(left.facts["correlations"]), atol=1e-3)
    # The first is the largest correlation that linear maps can reach: no regression beats it.
    exact = x.astype(np.float64)
    guess = Ridge(alpha=1e-9).fit(exact, b[:, 0]).predict(exact)
    assert np.corrcoef(guess, b[:, 0])[0, 1] == pytest.approx(left.facts["correlations"][0])


@pytest.mark.parametrize("method", ["ridge", "procrustes", "cca"])
def test_pairs_that_were_not_seen_find_each_other(method):
    x, y = pairs(1, 600, noise=0.05)
    left, right = fit_alignment(moments(x[:300], y[:300]), 8, method)
    a, b = left.apply(x[300:]), (right.apply(y[300:]) if right else y[300:])
    near = np.linalg.norm(a[:, None] - b[None], axis=2).argmin(axis=1)
    # By chance 1 in 300; an orthogonal map cannot stretch, so it fits these less well.
    assert (near == np.arange(300)).mean() > (0.05 if method == "procrustes" else 0.6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"method": "magic"}, "unknown method"),
        ({"method": "ridge", "dimension": 2}, "dimension is for cca"),
        ({"method": "cca", "dimension": 6}, "1 to 5 here, not 6"),
        ({"method": "ridge", "penalty": -1}, "penalty is -1"),
        ({"method": "procrustes", "penalty": 1}, "penalty is 1; give 0 or more to ridge or cca"),
    ],
)
def test_what_cannot_be_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        fit_alignment(moments(*pairs()), 8, **asked)
    with pytest.raises(ValueError, match="there are 1 pairs"):
        fit_alignment(Moments.of(np.ones((1, 4), np.float32)), 2, "ridge")
    with pytest.raises(ValueError, match="cannot be split at 4"):
        fit_alignment(Moments.of(np.ones((3, 4), np.float32)), 4, "ridge")
