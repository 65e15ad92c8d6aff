"""Classification on Spark: scikit-learn's figures, whatever the partitions and the bad rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from ember.errors import InvalidInput
from ember.evaluation import Evaluation, judge_classification
from ember.worker.metrics.weights import poisson_weights
from evaluate_tables import expanded, listed

ROWS, NAMES = 240, ["ant", "bee", "cat", "dog", "eel"]
SCHEMA = "id string, predictions array<struct<index: int, label: string, score: float>>"
BOOTSTRAP = 30


@pytest.fixture(scope="module")
def case():
    """Truth, answers ("" for none), whether the truth is among the first two, confidence, ids."""
    rng = np.random.default_rng(7)
    scores = rng.dirichlet(np.ones(5) / 2, ROWS).astype(np.float32)
    best = np.argsort(-scores, axis=1, kind="stable")
    truth = np.where(rng.random(ROWS) < 0.5, best[:, 0], rng.integers(0, 4, ROWS))
    rows = dict(zip([f"r{n:03}" for n in range(ROWS)], listed(scores, NAMES, 3), strict=True))
    del rows["r003"], rows["r004"]
    rows["r005"] = None
    rows["r006"] = []
    rows["r007"][1]["score"] = float("nan")
    rows["r008"][0]["label"] = None
    rows["stranger"] = rows["r009"]
    ids = [f"r{n:03}" for n in range(ROWS)]
    bad = np.isin(ids, [f"r00{n}" for n in range(3, 9)])
    answer = np.where(bad, "", np.array(NAMES)[best[:, 0]])
    second = ~bad & ((best[:, :2] == truth[:, None]).any(axis=1))
    confidence = np.where(bad, np.nan, np.take_along_axis(scores, best, axis=1)[:, 0])
    return rows, ids, np.array(NAMES)[truth], answer, second, confidence


def frames(spark, case, parts):
    rows, ids, truth, *_ = case
    groups = [None if n % 5 == 0 else ("x" if n % 2 else "y") for n in range(ROWS)]
    extra = [("untold", None, "x")]
    listed_rows = [
        (key, None if value is None else [tuple(each.values()) for each in value])
        for key, value in rows.items()
    ]
    predictions = spark.createDataFrame(listed_rows, SCHEMA).repartition(parts)
    truths = spark.createDataFrame(
        [*zip(ids, truth.tolist(), groups, strict=True), *extra],
        "`the.id` string, label string, `my group` string",
    )
    return predictions, truths.repartition(parts)


def judge(spark, case, parts, **options) -> Evaluation:
    given = {"slices": ["my group"], "top_k": [2], "bootstrap": BOOTSTRAP, **options}
    return judge_classification(*frames(spark, case, parts), id="id", truth_id="the.id", **given)


@pytest.fixture(scope="module")
def report(spark, case):
    made = judge(spark, case, 1)
    yield made
    made.release()


def expected(truth, answer, second, confidence):
    """Every figure by scikit-learn and by hand."""
    labels = sorted({*truth, *answer} - {""})
    found = {"accuracy": metrics.accuracy_score(truth, answer), "top_2_accuracy": second.mean()}
    for mean in ("macro", "weighted", "micro"):
        values = metrics.precision_recall_fscore_support(
            truth, answer, labels=labels, average=mean, zero_division=0
        )
        found |= {
            f"{mean}_{name}": value
            for name, value in zip(("precision", "recall", "f1"), values, strict=False)
        }
    given = answer != ""
    bins = np.ceil(confidence[given].astype(np.float64) * 15)
    right, sure = (answer == truth)[given], confidence[given].astype(np.float64)
    gaps = [abs(right[bins == b].sum() - sure[bins == b].sum()) for b in set(bins)]
    found["ece"] = sum(gaps) / given.sum()
    return found


def test_every_figure_and_replicate_equals_scikit_learn(spark, case, report):
    _, ids, *columns = case
    keys = [
        row[0]
        for row in spark.createDataFrame([(i,) for i in ids], "id string")
        .selectExpr("xxhash64(id)")
        .collect()
    ]
    weights = poisson_weights(np.array(keys), range(BOOTSTRAP + 1))
    for replicate in (0, 1, BOOTSTRAP):
        drawn = expanded(weights[:, replicate])
        for metric, value in expected(*(column[drawn] for column in columns)).items():
            ours = report.figure(metric).values[replicate]
            assert ours == pytest.approx(value, abs=1e-7 if metric == "ece" else 1e-9), metric
            if replicate == 0 and metric != "ece":
                assert ours == pytest.approx(value, abs=1e-14), metric
    assert report.figure("accuracy").n == ROWS
    assert report.figure("ece").n == ROWS - 6
    for figure in report.figures:
        assert figure.low <= np.median(figure.values[1:]) <= figure.high


def test_slices_are_judged_by_themselves_nulls_too(case, report):
    _, _, *columns = case
    numbers = np.arange(ROWS)
    for name, rows in {
        "my group=null": numbers % 5 == 0,
        "my group=x": (numbers % 5 > 0) & (numbers % 2 == 1),
    }.items():
        for metric, value in expected(*(column[rows] for column in columns)).items():
            assert report.figure(metric, name).value == pytest.approx(value, abs=1e-7), metric
        assert report.figure("accuracy", name).n == rows.sum()


def test_what_is_amiss_is_counted_and_named(report):
    found = {issue.reason.split(",")[0]: (issue.rows, issue.ids) for issue in report.issues}
    assert found == {
        "without a prediction": (2, ("r003", "r004")),
        "with a failed prediction": (1, ("r005",)),
        "with a prediction that has no label": (2, ("r006", "r008")),
        "with a score that is null or NaN": (1, ("r007",)),
        "without a truth": (1, ("stranger",)),
        "with a null truth": (1, ("untold",)),
    }
    assert (report.total, report.failed) == (ROWS, 6)


def test_the_tables_are_scikit_learns(spark, case, report):
    _, _, truth, answer, *_ = case
    tables = {name: each.collect() for name, each in report.tables.items()}
    labels = sorted({*truth, *answer} - {""})
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, answer, labels=labels, zero_division=0
    )
    assert [row["class"] for row in tables["per_class"]] == labels
    for place, row in enumerate(tables["per_class"]):
        assert row["precision"] == pytest.approx(precision[place])
        assert row["recall"] == pytest.approx(recall[place])
        assert row["f1"] == pytest.approx(f1[place])
        assert row["support"] == support[place]
        assert row["f1_low"] <= row["f1_high"]
    pairs = {(row["truth"], row["predicted"] or ""): row["count"] for row in tables["confusion"]}
    matrix = metrics.confusion_matrix(truth, answer, labels=[*labels, ""])
    for i, one in enumerate(labels):
        for j, other in enumerate([*labels, ""]):
            assert pairs.get((one, other), 0) == matrix[i, j]
    confused = [row["count"] for row in tables["most_confused"]]
    off = [n for (one, other), n in pairs.items() if other not in {one, ""}]
    assert confused == sorted(off, reverse=True)
    whole = [row for row in tables["reliability"] if row["slice"] == "all"]
    assert sum(row["count"] for row in whole) == ROWS - 6
    wrong = tables["worst"]
    assert len(wrong) == min(100, (truth != answer).sum())
    scores = [row["score"] for row in wrong if row["score"] is not None]
    assert scores == sorted(scores, reverse=True)


def test_partitions_do_not_show(spark, case, report):
    again = judge(spark, case, 7)
    assert len(again.figures) == len(report.figures)
    for one, other in zip(again.figures, report.figures, strict=True):
        assert (one.metric, one.slice, one.n) == (other.metric, other.slice, other.n)
        np.testing.assert_array_equal(one.values, other.values)
    again.release()


def test_integer_truths_meet_the_index_and_a_class_list_leaves_others_out(spark, case):
    _, ids, truth, *_ = case
    predictions, _ = frames(spark, case, 2)
    indices = [NAMES.index(each) for each in truth]
    truths = spark.createDataFrame(list(zip(ids, indices, strict=True)), "id string, label short")
    made = judge_classification(
        predictions, truths, id="id", classes=[0, 1, 2], bootstrap=0, top_k=[2]
    )
    kept = np.isin(indices, [0, 1, 2])
    rows, right = case[0], 0
    for key, index in zip(np.array(ids)[kept], np.array(indices)[kept], strict=True):
        listed_row = rows.get(key)
        usable = key not in {"r003", "r004", "r005", "r006", "r007"}
        right += bool(usable and listed_row[0]["index"] == index)
    figure = made.figure("accuracy")
    assert (figure.value, figure.n, figure.low) == (right / kept.sum(), kept.sum(), None)
    left_out = [issue.rows for issue in made.issues if "outside the class list" in issue.reason]
    assert left_out == [(~kept).sum()]
    made.release()


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ("id int, label string", "ids of predictions and truth are string and int; write both"),
        ("id string, label double", "column label is double; give labels"),
        ("id string, label array<string>", "use kind: multilabel"),
        ("id array<string>, label string", "the id column id is array<string>, not one value"),
        ("id string, name string", "there is no column label; the table has id, name"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(spark, truth, words):
    with pytest.raises(InvalidInput) as raised:
        judge_classification(
            spark.createDataFrame([], SCHEMA), spark.createDataFrame([], truth), id="id"
        )
    assert words in str(raised.value)


def test_ids_that_occur_twice_are_refused(spark):
    rows = [("a", "ant"), ("b", "bee"), ("a", "cat")]
    truth = spark.createDataFrame(rows, "id string, label string")
    with pytest.raises(InvalidInput, match=r"the truth: .*not unique: a \(2 times\)"):
        judge_classification(spark.createDataFrame([], SCHEMA), truth, id="id")
