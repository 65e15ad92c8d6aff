"""Packing: bounds that hold, blocks that survive a file, inputs that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from ember.worker.vectors import METRICS, Block, fit_basis, prepare, threshold_pairs, top_k
from ember.worker.vectors.int8_filter import Int8Rows
from ember.worker.vectors.scores import similarities
from vector_cases import KINDS, PRECISIONS, chosen, integer_sums, operands, random, spectrum


def exact_values(left, right, metric):
    """F of bounds.py in float64."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    if metric == "euclidean":
        return -0.5 * np.square(a[:, None] - b[None]).sum(axis=2)
    if metric == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def filter_values(a, b):
    """What the filter compares with F, of all pairs of two operands."""
    if not isinstance(a, Int8Rows):
        return a.values @ b.values.T
    sums = integer_sums(a, b)[:, b.bias > np.iinfo(np.int32).min]
    assert np.abs(sums).max() < 2**31
    return (sums + a.offset[:, None]) / a.scales.squared


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_filter_values_are_never_below_the_exact_ones(kind, metric, precision):
    rng = np.random.default_rng(1)
    rows, others = kind(rng, 150, 100), kind(rng, 160, 100)
    basis = fit_basis(others[:20], metric)
    left, right = prepare(rows, metric, basis), prepare(others, metric, basis)
    exact = exact_values(rows, others, metric)
    for width in (None, *basis.widths):
        a, b = operands(left, right, chosen(width, precision))
        assert (filter_values(a, b) >= exact).all()


def test_bounds_are_tight_where_all_dimensions_are_used():
    rng = np.random.default_rng(2)
    rows = spectrum(rng, 200, 64)
    block = prepare(rows, "cosine")
    a, b = operands(block, block, chosen(None))
    assert (a.values @ b.values.T - exact_values(rows, rows, "cosine")).max() < 1e-4


def test_a_pair_has_one_score_whatever_stands_beside_it():
    rng = np.random.default_rng(3)
    block = prepare(random(rng, 300, 129), "cosine")
    i, j = rng.integers(0, 300, 2000), rng.integers(0, 300, 2000)
    together = similarities(block, block, i, j)
    for at in range(0, 2000, 97):
        alone = similarities(block, block, i[at : at + 1], j[at : at + 1])
        turned = similarities(block, block, j[at : at + 1], i[at : at + 1])
        assert alone[0] == together[at] == turned[0]


def test_saved_blocks_are_mapped_and_give_the_same_answers(tmp_path):
    block = prepare(random(np.random.default_rng(4), 40, 6), "euclidean", ids=np.arange(40) + 5)
    block.save(tmp_path / "block")
    mapped = Block.load(tmp_path / "block", block.basis)
    assert isinstance(mapped.rows, np.memmap)
    np.testing.assert_array_equal(top_k(mapped, [mapped], 3), top_k(block, [block], 3))
    other = fit_basis(random(np.random.default_rng(5), 40, 6), "euclidean")
    with pytest.raises(ValueError, match="another basis"):
        Block.load(tmp_path / "block", other)


def test_read_only_rows_are_taken_as_they_are():
    rows = random(np.random.default_rng(6), 20, 3)
    rows.flags.writeable = False
    block = prepare(rows, "cosine")
    assert np.shares_memory(block.rows, rows)
    assert sum(len(chunk.score) for chunk in threshold_pairs(block, block, -2.0)) == 400


def test_truncated_bases_make_narrower_blocks():
    rows = spectrum(np.random.default_rng(7), 100, 64)
    basis = fit_basis(rows, "cosine").truncate(32)
    assert prepare(rows, "cosine", basis).prefix.shape == (100, 32)


def test_what_cannot_be_packed_is_said():
    rows = random(np.random.default_rng(8), 10, 4)
    with pytest.raises(ValueError, match="unknown metric 'dot'; choose one of cosine"):
        prepare(rows, "dot")
    with pytest.raises(ValueError, match="float32 matrix"):
        prepare(rows.astype(np.float16), "cosine")
    with pytest.raises(ValueError, match="wrong length: 3 instead of 4"):
        prepare(rows[:, :3], "cosine", fit_basis(rows, "cosine"))
    with pytest.raises(ValueError, match="the basis is for cosine"):
        prepare(rows, "euclidean", fit_basis(rows, "cosine"))
    with pytest.raises(ValueError, match="zero norm"):
        prepare(np.zeros((2, 4), np.float32), "cosine", fit_basis(rows, "cosine"))
    with pytest.raises(ValueError, match="not finite"):
        prepare(np.full((2, 4), np.nan, np.float32), "cosine", fit_basis(rows, "cosine"))
    with pytest.raises(ValueError, match="one id for each row"):
        prepare(rows, "cosine", ids=np.arange(3))
