"""Tables that would give a wrong figure in silence: it is undefined, named, or refused."""

from __future__ import annotations

import pytest
from scipy.stats import pearsonr

from ember.errors import InvalidInput
from ember.evaluation import (
    judge_classification,
    judge_multilabel,
    judge_retrieval,
    judge_similarity,
)
from ember.evaluation.matching import doubts
from ember.evaluation.result import Issue

SCHEMA = "id int, predictions array<struct<index: int, label: string, score: float>>"
NAMES = ["ant", "bee", "cat", "dog"]


def predictions(spark, *rows):
    """Of each row the places of its labels, best first."""
    made = [
        (n, [(place, NAMES[place], 0.9 - 0.1 * rank) for rank, place in enumerate(row)])
        for n, row in enumerate(rows)
    ]
    return spark.createDataFrame(made, SCHEMA)


def truth(spark, *labels):
    return spark.createDataFrame(list(enumerate(labels)), "id int, label string")


def judged(rows, labels, **options):
    return judge_classification(rows, labels, id="id", bootstrap=2, **options)


def test_the_first_k_of_lists_that_were_cut_before_are_not_known(spark):
    rows = predictions(spark, [0, 1], [1, 2], [3, 0])
    made = judged(rows, truth(spark, "bee", "ant", "dog"), top_k=[2, 3])
    assert made.figure("top_2_accuracy").value == pytest.approx(2 / 3)
    assert made.figure("top_3_accuracy").value is None
    made.release()
    whole = predictions(spark, [0, 1], [1, 0], [1, 0])  # there are no more classes than two
    made = judged(whole, truth(spark, "bee", "ant", "eel"), top_k=[3])
    assert made.figure("top_3_accuracy").value == pytest.approx(2 / 3)
    made.release()


def test_predictions_that_are_not_best_first_are_not_taken_for_answers(spark):
    rows = [(0, [(0, "ant", 0.2), (1, "bee", 0.8)]), (1, [(1, "bee", 0.5), (0, "ant", 0.5)])]
    made = judged(spark.createDataFrame(rows, SCHEMA), truth(spark, "ant", "bee"))
    assert made.figure("accuracy").value == 0.5
    assert made.issues == [
        Issue("with predictions that are not best first, counted as wrong", 1, ("0",))
    ]
    made.release()


@pytest.mark.parametrize("many", [False, True])
def test_an_empty_text_is_a_label_and_a_null_is_none(spark, many):
    """Also where a list has both; a score that is null or NaN is told apart from either."""
    nan = float("nan")
    lists = [
        [(0, "", 0.9), (1, "ant", 0.6)],
        [(0, "", 0.9), (1, None, 0.6)],
        [(1, "ant", 0.9), (1, None, 0.6)],
        [(0, "", 0.9), (1, "ant", None)],
        [(0, "", 0.9), (1, "ant", nan)],
        [],
    ]
    rows = spark.createDataFrame(list(enumerate(lists)), SCHEMA)
    kind, truths = ("array<string>", [["", "ant"]] * 6) if many else ("string", [""] * 6)
    labels = spark.createDataFrame(list(enumerate(truths)), f"id int, label {kind}")
    judge = judge_multilabel if many else judge_classification
    made = judge(rows, labels, id="id", bootstrap=2)
    assert made.figures[0].value == pytest.approx(1 / 6)
    found = {issue.reason: issue.ids for issue in made.issues}
    assert found == {
        "with a prediction that has no label, counted as wrong": ("1", "2", *"5"[many:]),
        "with a score that is null or NaN, counted as wrong": ("3", "4"),
    }
    made.release()


def test_labels_that_cannot_be_meant_are_named():
    """Without a label in common; or two that a reader takes for one, composed and not."""
    counts = {0: (0, 3, 0), 1: (0, 0, 2), 2: (0, 1, 0)}
    (found,) = doubts(["0", "ant", "1"], counts)
    assert (found.rows, "the truth has 0, 1, the answers are ant" in found.reason) == (4, True)
    assert doubts(["a", "b"], {0: (0, 1, 1), 1: (0, 1, 0)}) == []
    (found,) = doubts(["e\u0301", "\xe9", "x"], {0: (0, 2, 0), 1: (0, 0, 2), 2: (5, 5, 5)})
    assert found == Issue(r"with one of the labels 'e\u0301', '\xe9', which count as different", 2)


def test_documents_whose_label_is_nan_are_not_relevant_to_each_other(spark):
    nan = float("nan")
    labels = [(1, 1.0), (2, 1.0), (3, nan), (4, nan)]
    documents = spark.createDataFrame(labels, "id int, label double")
    found = [(1, 2, 1), (3, 4, 1)]
    neighbors = spark.createDataFrame(found, "query_id int, neighbor_id int, rank int")
    made = judge_retrieval(neighbors, truth=documents, at=[1], exclude_self=True, bootstrap=2)
    assert (made.figure("map").value, made.figure("map").n) == (1.0, 1)
    reasons = {issue.reason: issue.rows for issue in made.issues}
    assert reasons == {
        "queries without a truth, left out": 1,
        "neighbors without a label, counted as not relevant": 1,
    }
    made.release()


def test_a_query_of_another_type_than_the_documents_has_no_self_to_exclude(spark):
    neighbors = spark.createDataFrame([], "query_id string, neighbor_id int, rank int")
    relevance = spark.createDataFrame([], "query_id string, neighbor_id int")
    with pytest.raises(InvalidInput, match="the ids that exclude_self compares are string and int"):
        judge_retrieval(neighbors, relevance=relevance, exclude_self=True)


@pytest.mark.parametrize(
    ("rows", "lacking"), [([(1, 7), (1, None)], "neighbor_id"), ([(None, 7)], "query_id")]
)
def test_a_judgment_without_a_document_or_a_query_is_refused(spark, rows, lacking):
    neighbors = spark.createDataFrame([(1, 7, 1)], "query_id int, neighbor_id int, rank int")
    relevance = spark.createDataFrame(rows, "query_id int, neighbor_id int")
    with pytest.raises(InvalidInput, match=f"a row whose {lacking} is null; leave it out"):
        judge_retrieval(neighbors, relevance=relevance)


def test_an_infinite_grade_is_refused_and_large_ones_are_weighed(spark):
    def judged(*grades):
        rows = [(1, document, grade) for document, grade in enumerate(grades)]
        relevance = spark.createDataFrame(rows, "query_id int, neighbor_id int, grade double")
        return judge_retrieval(neighbors, relevance=relevance, at=[3], bootstrap=2)

    found = [(1, 0, 1), (1, 1, 2)]
    neighbors = spark.createDataFrame(found, "query_id int, neighbor_id int, rank int")
    with pytest.raises(InvalidInput, match="infinite grade, of document 1 for query 1; give a fin"):
        judged(1.0, float("inf"))
    large, small = judged(1e308, 1e308, 1e308), judged(1.0, 1.0, 1.0)
    assert large.figure("ndcg@3").value == pytest.approx(small.figure("ndcg@3").value)
    assert 0 < large.figure("ndcg@3").value < 1
    large.release()
    small.release()


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_scores_of_any_size_are_correlated(spark, size):
    scores = [(n, size * value) for n, value in enumerate([1.0, 2.0, -1.0, 0.5])]
    pairs = spark.createDataFrame(scores, "id int, score double")
    numbers = [(n, value) for n, value in enumerate([1.0, 3.0, 0.5, 2.0])]
    truth = spark.createDataFrame(numbers, "id int, label double")
    made = judge_similarity(pairs, truth, id="id", bootstrap=0)
    expected = pearsonr([1.0, 2.0, -1.0, 0.5], [1.0, 3.0, 0.5, 2.0]).statistic
    assert made.figure("pearson").value == pytest.approx(expected)
    made.release()


def test_labels_that_are_in_doubt_are_no_failed_rows(spark):
    rows = predictions(spark, [0], [1])
    labels = spark.createDataFrame([(0, ["eel"]), (1, ["fly"])], "id int, label array<string>")
    made = judge_multilabel(rows, labels, id="id", bootstrap=2)
    assert (made.failed, made.total) == (0, 2)
    assert "with a label that no answer has" in made.issues[0].reason
    made.release()


def test_slices_of_different_values_have_different_names(spark):
    texts = [None, "null", '"null"', "b=c", "", "c", "null "]
    bytes_ = [b"\xff", b"\xfe", None, b"null", b"ok", b"", b'"']
    numbers = [0.0, -0.0, float("nan"), None, 1.5, 1.5, 1.5]
    rows = list(zip(range(7), ["ant"] * 7, texts, bytes_, numbers, texts, strict=True))
    schema = "id int, label string, a string, raw binary, x double, `a=b` string"
    made = judged(
        predictions(spark, *[[0]] * 7),
        spark.createDataFrame(rows, schema),
        slices=["a", "raw", "x", "a=b"],
    )
    counts = {each.slice: each.n for each in made.figures if each.metric == "accuracy"}
    named = ["null", '"null"', r'"\"null\""', "b=c", "", "c", "null "]
    expected = {f"a={name}": 1 for name in named} | {f'"a=b"={name}': 1 for name in named}
    odd = [r'"\xFF"', r'"\xFE"', "null", '"null"', "ok", "", r'"\""']
    expected |= {f"raw={name}": 1 for name in odd}
    expected |= {"x=0.0": 2, "x=NaN": 1, "x=null": 1, "x=1.5": 3}
    assert counts == {"all": 7, **expected}
    made.release()


def test_a_slice_column_that_is_listed_twice_is_refused(spark):
    rows = predictions(spark, [0])
    with pytest.raises(InvalidInput, match="slices: the column label is listed twice"):
        judged(rows, truth(spark, "ant"), slices=["label", "label"])


def test_a_rank_that_is_asked_for_twice_has_one_figure(spark):
    rows = predictions(spark, [0])
    labels = spark.createDataFrame([(0, ["ant"])], "id int, label array<string>")
    neighbors = spark.createDataFrame([(1, 2, 1)], "query_id int, neighbor_id int, rank int")
    relevance = neighbors.select("query_id", "neighbor_id")
    for made in (
        judge_multilabel(rows, labels, id="id", top_k=[1, 1], bootstrap=0),
        judge_retrieval(neighbors, relevance=relevance, at=[1, 1], bootstrap=0),
    ):
        assert [each.metric for each in made.figures].count("precision@1") == 1
        assert made.figure("precision@1").value == 1.0
        made.release()


def test_a_query_is_in_the_slice_of_its_smallest_value(spark):
    """Not of the text that comes first; a null is no value, if there is another."""
    graded = [(1, 2, 10), (1, 3, 9), (1, 4, None), (2, 3, None)]
    relevance = spark.createDataFrame(graded, "query_id int, neighbor_id int, year int")
    neighbors = spark.createDataFrame([(1, 2, 1)], "query_id int, neighbor_id int, rank int")
    made = judge_retrieval(neighbors, relevance=relevance, at=[1], slices=["year"], bootstrap=0)
    assert {each.slice for each in made.figures} == {"all", "year=9", "year=null"}
    made.release()
