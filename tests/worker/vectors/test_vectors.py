"""Arrow columns: rejected rows have their reasons, good columns are not copied."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ember.worker.vectors.vectors import read_vectors

NAN = float("nan")
ROWS = [
    [1, 2, 3],
    None,
    [1, 2],
    [NAN, 0, 0],
    [0, 0, 0],
    [float("inf"), 1, 1],
    [4, None, 6],
    [],
    [7, 8, 9],
]
KINDS = [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float64())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("offset", [0, 1])
def test_rows_that_cannot_be_compared_have_a_reason(kind, offset):
    column = pa.array([[9, 9, 9]] * offset + ROWS, kind)[offset:]
    vectors = read_vectors(column, "cosine")
    np.testing.assert_array_equal(vectors.matrix, [[1, 2, 3], [7, 8, 9]])
    assert vectors.matrix.dtype == np.float32
    assert np.flatnonzero(vectors.kept).tolist() == [0, 8]
    assert vectors.reasons == {
        1: "null embedding", 2: "wrong length: 2 instead of 3", 3: "not finite", 4: "zero norm",
        5: "not finite", 6: "null embedding", 7: "wrong length: 0 instead of 3",
    }  # fmt: skip


def test_zero_rows_are_points_like_others_for_a_distance():
    vectors = read_vectors(pa.array(ROWS, KINDS[0]), "euclidean")
    assert 4 not in vectors.reasons


@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4)], ids=str)
def test_a_clean_column_is_not_copied(kind, offset):
    rows = np.arange(1, 41, dtype=np.float32).reshape(10, 4)
    column = pa.array(rows.tolist(), kind)[offset:]
    vectors = read_vectors(column, "cosine", 4)
    np.testing.assert_array_equal(vectors.matrix, rows[offset:])
    assert vectors.kept.all()
    assert not vectors.reasons
    buffer = column.values.buffers()[1]
    assert np.shares_memory(vectors.matrix, np.frombuffer(buffer, np.float32))


def test_fixed_size_lists_with_nulls_and_slices():
    column = pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.float32(), 2))[1:]
    vectors = read_vectors(column, "cosine")
    np.testing.assert_array_equal(vectors.matrix, [[3, 4], [5, 6]])
    assert vectors.reasons == {0: "null embedding"}


def test_several_chunks_and_an_expected_dimension():
    column = pa.chunked_array([pa.array([[1.0]], KINDS[0]), pa.array([[1.0, 2.0]], KINDS[0])])
    vectors = read_vectors(column, "cosine", 2)
    assert vectors.reasons == {0: "wrong length: 1 instead of 2"}
    np.testing.assert_array_equal(vectors.matrix, [[1, 2]])


@pytest.mark.parametrize("rows", [[], [None, None], [[]]])
def test_columns_without_a_usable_row(rows):
    vectors = read_vectors(pa.array(rows, KINDS[0]), "cosine", 3)
    assert vectors.matrix.shape == (0, 3)
    assert len(vectors.reasons) == len(rows)


def test_a_column_of_something_else_is_refused():
    with pytest.raises(
        ValueError, match=r"lists of floating-point numbers, got list<item: string>"
    ):
        read_vectors(pa.array([["a"]]), "cosine")
    with pytest.raises(ValueError, match="unknown metric"):
        read_vectors(pa.array([[1.0]], KINDS[0]), "dot")
