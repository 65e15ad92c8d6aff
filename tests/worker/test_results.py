"""From the model's matrix to the column of predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ember.errors import InvalidInput
from ember.worker.encoder import Slot
from ember.worker.results import PREDICTIONS, Predictions, best_first

LABELS = ("ant", "bee", "cow")


def slot(matrix, errors=()) -> Slot:
    made = Slot([b""] * (len(matrix) if matrix is not None else len(errors)))
    made.vectors = None if matrix is None else np.asarray(matrix, np.float32)
    made.errors = dict.fromkeys(errors, "null content")
    return made


@dataclass
class Doubler:
    """A head that doubles; 9 becomes NaN."""

    dimension: int = 3

    def scores(self, matrix):
        return np.where(matrix == 9, np.nan, 2 * matrix).astype(np.float32)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    ),
    st.integers(1, 9),
)
def test_best_first_is_by_score_then_by_index(scores, k):
    expected = [sorted(range(len(row)), key=lambda i: (-row[i], i))[:k] for row in scores.tolist()]
    assert best_first(scores, k).tolist() == expected


def test_rows_get_their_best_labels_and_failed_ones_null():
    column = Predictions(LABELS, 2).column(slot([[0.2, 0.5, 0.5], [0, 0, 0], [0.9, 0, 0.1]], [1]))
    column.validate(full=True)
    assert column.type == PREDICTIONS
    assert [row and [(p["index"], p["label"]) for p in row] for row in column.to_pylist()] == [
        [(1, "bee"), (2, "cow")],
        None,
        [(0, "ant"), (2, "cow")],
    ]
    assert column.to_pylist()[2][0]["score"] == np.float32(0.9)


def test_thresholds_leave_labels_out_each_by_its_own():
    predictions = Predictions(LABELS, 3, thresholds=(0.1, 0.6, 0.5))
    rows = predictions.column(slot([[0.1, 0.5, 0.6], [0, 0.5, 0.4]])).to_pylist()
    assert [[each["label"] for each in row] for row in rows] == [["cow", "ant"], []]


def test_a_head_makes_the_scores_and_its_nan_is_an_error_of_the_row():
    made = slot([[0.1, 0.2, 0], [9, 0, 0], [0, 0, 0.5]])
    rows = Predictions(LABELS, 1, head=Doubler()).column(made).to_pylist()
    assert rows[1] is None
    assert [(row[0]["label"], row[0]["score"]) for row in (rows[0], rows[2])] == [
        ("bee", np.float32(0.4)),
        ("cow", 1.0),
    ]
    assert list(made.errors) == [1]
    assert made.errors[1].startswith("not finite: ")


def test_a_head_on_normalized_embeddings_gets_unit_length():
    rows = Predictions(LABELS, 3, head=Doubler(), normalize=True).column(slot([[0, 3, 4]]))
    scores = [each["score"] for each in rows.to_pylist()[0]]
    np.testing.assert_allclose(scores, [1.6, 1.2, 0], rtol=1e-6)


@pytest.mark.parametrize("matrix", [None, [[0.5, 0.3, 0.2]] * 2])
def test_all_rows_may_fail(matrix):
    column = Predictions(LABELS, 2).column(slot(matrix, [0, 1]))
    assert column.type == PREDICTIONS
    assert column.to_pylist() == [None, None]


def test_classes_and_dimensions_that_do_not_agree_are_told():
    with pytest.raises(InvalidInput, match="gives 2 classes and there are 3 labels"):
        Predictions(LABELS, 1).column(slot([[0.5, 0.5]]))
    with pytest.raises(InvalidInput, match="takes embeddings of 7 numbers and the model gives 2"):
        Predictions(LABELS, 1, head=Doubler(7)).column(slot([[0.5, 0.5]]))
