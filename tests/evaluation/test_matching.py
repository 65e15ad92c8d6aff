"""Whether a truth of integers is the label or the index of a prediction; no Spark but in the last.

The oracle of the last tests is counting by hand with the labels that the predictions name.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ember.errors import InvalidInput
from ember.evaluation import judge_classification, judge_multilabel
from ember.evaluation.matching import Matching, decide

LABEL, INDEX = Matching("label", integers=True), Matching("index")
SCHEMA = "id int, predictions array<struct<index: int, label: string, score: float>>"


def classes(*labels):
    return list(enumerate(labels))


def decided(named, truths, wanted="auto"):
    return decide(named, lambda: set(truths), wanted)


@pytest.mark.parametrize(
    ("named", "truths", "expected"),
    [
        (classes("0", "1", "2"), [0, 1, 2], INDEX),  # the same, either way
        (classes("1", "2", "3"), [1, 2, 3], LABEL),
        (classes("10", "20", "30"), [10, 20, 30], LABEL),
        (classes("-1", "0", "1"), [-1, 0, 1], LABEL),
        (classes("0", "1", "10", "2"), [0, 1, 2, 10], LABEL),  # strings, sorted as such
        (classes("1", "2", "3"), [2], LABEL),
        (classes("1", "2", "3"), [1, 2, 3, 4], LABEL),  # a label that no training row had
        (classes("1", "2", "3"), [0, 3], LABEL),
        (classes("1.0", "2.0"), [1, 2], LABEL),  # of a column of doubles
        (classes("01", "02"), [1, 2], LABEL),
        (classes("cat", "dog"), [0, 1], INDEX),
        (classes("cat", "dog"), [1], INDEX),
        (classes("false", "true"), [0, 1], INDEX),
        ([(7, "cat"), (3, "dog")], [7, 3, 900], INDEX),  # some classes of many
        ([(0, None), (1, None)], [0, 1], INDEX),
        (classes("1 star", "2 stars"), [0, 1], INDEX),
        ([], [1, 2], INDEX),
    ],
)
def test_integers_are_labels_where_the_labels_are_integers(named, truths, expected):
    assert decided(named, truths) == expected


@pytest.mark.parametrize(
    ("named", "truths", "words"),
    [
        (classes("1", "2", "3"), [0, 1, 2], "the truth has 0, the predictions have the labels 1"),
        (classes("10", "20"), [0, 1], "set match: label where the integers are labels, match: in"),
        (classes("cat", "dog"), [1, 2], "the truth has 2, which no prediction has as index"),
        (classes("1 star", "2 stars"), [1, 2], "have the labels 1 star, 2 stars for the indices"),
        (classes("cat", "dog"), [-1, 1], "the truth has -1"),
        (classes("1", "2", "other"), [1, 2], "integers and others (other): set match"),
        (classes("0.5", "1.0"), [1], "integers and others (0.5): set match"),
        (classes("1", "01"), [1], "the labels '01' and '1', which are one integer"),
        ([(0, "cat"), (0, "dog")], [0], "give index 0 the labels cat and dog"),
    ],
)
def test_what_may_be_meant_either_way_is_refused(named, truths, words):
    with pytest.raises(InvalidInput, match=re.escape(words)):
        decided(named, truths)


def test_the_user_can_say_which():
    assert decided(classes("10", "20"), [0, 1], "label") == LABEL
    with pytest.raises(InvalidInput, match="one integer"):
        decided(classes("1", "01"), [1], "label")


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=6, unique=True),
    st.data(),
)
def test_the_labels_of_a_head_meet_the_column_it_was_trained_on(labels, data):
    """Or the two readings come to the same."""
    named = classes(*map(str, sorted(labels)))
    truths = data.draw(st.lists(st.sampled_from(labels), min_size=1))
    found = decided(named, truths)
    assert found == LABEL or all(str(index) == label for index, label in named)


def listed(labels, scores, k):
    best = np.argsort(-scores, axis=1)[:, :k]
    return [
        (n, [(int(j), labels[j], float(row[j])) for j in order])
        for n, (row, order) in enumerate(zip(scores, best, strict=True))
    ]


@pytest.mark.parametrize(
    ("labels", "truths", "kind"),
    [
        (["-1", "5", "10"], [-1, 5, 10], "tinyint"),
        (["1.0", "2.0", "3.0"], [1, 2, 3], "bigint"),
        (["false", "maybe", "true"], [False, None, True], "boolean"),
    ],
)
def test_figures_are_those_of_counting_by_label(spark, labels, truths, kind):
    rng = np.random.default_rng(3)
    scores = rng.dirichlet(np.ones(3), 40).astype(np.float32)
    drawn = np.where(rng.random(40) < 0.6, scores.argmax(axis=1), rng.integers(0, 2, 40))
    drawn = np.minimum(drawn, len(truths) - 1)
    drawn[[truths[place] is None for place in drawn]] = 0
    predictions = spark.createDataFrame(listed(labels, scores, 2), SCHEMA)
    rows = [(n, truths[place]) for n, place in enumerate(drawn)]
    truth = spark.createDataFrame(rows, f"id int, label {kind}")
    made = judge_classification(predictions, truth, id="id", bootstrap=0, top_k=[2])
    answers = scores.argmax(axis=1)
    assert made.figure("accuracy").value == pytest.approx((answers == drawn).mean())
    first = np.argsort(-scores, axis=1)[:, :2]
    within = (first == drawn[:, None]).any(axis=1).mean()
    assert made.figure("top_2_accuracy").value == pytest.approx(within)
    f1 = metrics.f1_score(drawn, answers, average="macro", zero_division=0)
    assert made.figure("macro_f1").value == pytest.approx(f1)
    made.release()


def test_several_integer_labels_a_row_are_compared_as_labels(spark):
    rng = np.random.default_rng(4)
    labels = np.array([7, 30, -2])
    scores, true = rng.random((30, 3)).astype(np.float32), rng.random((30, 3)) < 0.4
    predictions = spark.createDataFrame(listed(list(map(str, labels)), scores, 3), SCHEMA)
    rows = [(n, labels[row].tolist()) for n, row in enumerate(true)]
    truth = spark.createDataFrame(rows, "id int, label array<int>")
    made = judge_multilabel(predictions, truth, id="id", bootstrap=0, classes=[7, 30, -2])
    answers = scores >= 0.5
    expected = {
        "subset_accuracy": metrics.accuracy_score(true, answers),
        "micro_f1": metrics.f1_score(true, answers, average="micro"),
        "lrap": metrics.label_ranking_average_precision_score(true, scores),
    }
    for name, value in expected.items():
        assert made.figure(name).value == pytest.approx(value), name
    assert [row["label"] for row in made.tables["per_label"].collect()] == ["-2", "7", "30"]
    made.release()


def test_the_index_can_be_asked_for(spark):
    predictions = spark.createDataFrame([(1, [(0, "10", 0.9)]), (2, [(1, "20", 0.8)])], SCHEMA)
    truth = spark.createDataFrame([(1, 0), (2, 0)], "id int, label int")
    made = judge_classification(predictions, truth, id="id", bootstrap=0, match="index")
    assert made.figure("accuracy").value == 0.5
    made.release()
    words = spark.createDataFrame([(1, "a")], "id int, label string")
    with pytest.raises(InvalidInput, match="match: index is for a truth of integers"):
        judge_classification(predictions, words, id="id", match="index")


def test_rows_without_any_label_on_either_side_are_refused(spark):
    predictions = spark.createDataFrame([(1, []), (2, [])], SCHEMA)
    truth = spark.createDataFrame([(1, []), (2, [])], "id int, label array<string>")
    before = spark.sparkContext._jsc.getPersistentRDDs().size()
    with pytest.raises(InvalidInput, match="no row of the truth has a label in column label"):
        judge_multilabel(predictions, truth, id="id")
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == before
    made = judge_multilabel(predictions.limit(0), truth.limit(0), id="id", bootstrap=0)
    assert {figure.value for figure in made.figures} == {None}
    made.release()
