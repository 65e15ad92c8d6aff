"""What two runs that are compared share: the ids, the slice of each, the reading of the truth."""

from __future__ import annotations

import pytest
from sklearn import metrics

from ember.errors import InvalidInput
from ember.evaluation import compare, judge_classification
from ember.evaluation.running import Inputs, judge
from ember.settings.evaluation import EvaluateConfig

ENTRIES = "predictions array<struct<index: int, label: string, score: float>>"
JUDGED = {"classification": "predictions", "multilabel": "predictions"}
JUDGED |= {"retrieval": "neighbors", "similarity": "pairs"}


def compared(spark, kind, run, baseline, truth, schema, truth_schema, **settings):
    """As the job compares two tables, of rows given here; settings: of the configuration."""
    judged = JUDGED[kind]
    sections = {judged: {"path": "run"} | ({} if kind == "retrieval" else {"id": "id"})}
    if kind == "retrieval":
        settings = {"at": [1], **settings}
    config = EvaluateConfig(
        kind="compare",
        of=kind,
        **sections,
        baseline={"path": "baseline"},
        truth={"path": "truth", "id": "id"},
        output={"path": "out"},
        bootstrap=2,
        **settings,
    )
    frames = {
        judged: spark.createDataFrame(run, schema),
        "baseline": spark.createDataFrame(baseline, schema),
        "truth": spark.createDataFrame(truth, truth_schema),
    }
    return judge(config, Inputs(kind, frames))


def answers(*labels, names=("ant", "bee", "cat")):
    """A row for each list of labels, ids from 0, scores falling from 0.9."""
    return [
        (n, [(names.index(label), label, 0.9 - 0.1 * k) for k, label in enumerate(row)])
        for n, row in enumerate(labels)
    ]


def test_retrieval_of_other_queries_is_not_compared(spark):
    found = "query_id int, neighbor_id int, rank int"
    labels = [(n, "ab"[n % 2]) for n in range(8)]
    run, baseline = [(0, 2, 1), (1, 3, 1), (6, 2, 1)], [(6, 2, 1), (4, 5, 1), (5, 6, 1)]
    with pytest.raises(InvalidInput) as told:
        compared(spark, "retrieval", run, baseline, labels, found, "id int, label string")
    assert str(told.value).startswith(
        "the run and the baseline are not judged alike: 2 queries only the baseline is judged on "
        "(such as 4, 5); 2 queries only the run is judged on (such as 0, 1); give both tables the "
        "same rows, or name the queries"
    )


def test_scores_of_other_pairs_are_not_compared(spark):
    truth = [(n, float(n % 3)) for n in range(6)]
    run = [(n, 0.1 * n if n != 1 else None) for n in range(6)]
    baseline = [(n, 0.2 * n if n != 4 else None) for n in range(6)]
    tables = run, baseline, truth, "id int, score double", "id int, label double"
    with pytest.raises(InvalidInput, match=r"1 rows only the baseline is judged on \(such as 1\)"):
        compared(spark, "similarity", *tables)
    made = compared(spark, "similarity", run, run, truth, *tables[3:])
    assert made.figure("difference_pearson").value == 0
    assert made.figure("difference_pearson").n == 5
    made.release()


@pytest.mark.parametrize("kind", ["classification", "multilabel", "similarity"])
def test_slices_of_predictions_are_those_of_the_run(spark, kind):
    """The same id is in the same slice on both sides, also where the run has no row of it."""
    run = answers(["ant"], ["bee"], ["ant"], ["ant"])
    before = answers(["ant"], ["ant"], ["bee"], ["bee"])
    truth = [(n, ["ant"] if kind == "multilabel" else "ant") for n in range(5)]
    schema, labels = f"id int, {ENTRIES}, part string", "id int, label string"
    if kind == "multilabel":
        labels = "id int, label array<string>"
    if kind == "similarity":
        run, before = ([(n, float(n)) for n in range(4)] for _ in range(2))
        truth = [(n, n % 2) for n in range(4)]
        schema, labels = "id int, score double, part string", "id int, label int"
    run = [(*row, part) for row, part in zip(run, "xxyy", strict=True)]
    before = [(*row, part) for row, part in zip(before, "yxyx", strict=True)]
    made = compared(spark, kind, run, before, truth, schema, labels, slices=["part"])
    whole = made.figures[0].metric
    counts = {each.slice: each.n for each in made.figures if each.metric == f"baseline_{whole}"}
    if kind == "similarity":
        assert counts == {"all": 4, "part=x": 2, "part=y": 2}
    else:
        assert counts == {"all": 5, "part=null": 1, "part=x": 2, "part=y": 2}
        found = [made.figure(f"baseline_{whole}", f"part={part}").value for part in "xy"]
        assert found == [1.0, 0.0]
        found = [made.figure(whole, f"part={part}").value for part in "xy"]
        assert found == [0.5, 1.0]
    made.release()


def test_integers_mean_the_same_for_both_runs(spark):
    """The run's labels are its indices, so that only the baseline shows that labels are meant."""
    run = answers(["1"], ["1"], ["2"], names=["0", "1", "2"])
    baseline = answers(["1"], ["2"], ["3"], names=["1", "2", "3"])
    schema, labels = f"id int, {ENTRIES}", "id int, label int"
    truth = [(0, 1), (1, 1), (2, 2)]
    made = compared(spark, "classification", run, baseline, truth, schema, labels)
    found = made.figure("accuracy").value, made.figure("baseline_accuracy").value
    assert found == (1.0, pytest.approx(1 / 3))
    made.release()
    # Alone the run would be read by label, and the baseline by index.
    named = answers(["bee"], ["bee"], ["cat"])
    shifted = answers(["1"], ["2"], ["3"], names=["1", "2", "3"])
    with pytest.raises(InvalidInput, match="the truth is integers, and the predictions have label"):
        compared(spark, "classification", shifted, named, truth, schema, labels)
    other = answers(["bee"], ["bee"], ["ant"], names=["bee", "ant"])
    with pytest.raises(InvalidInput, match="give index 0 the labels ant and bee"):
        compared(spark, "classification", answers(["ant"]), other, truth, schema, labels)
    padded = answers(["01"], ["02"], ["03"], names=["01", "02", "03"])
    made = compared(spark, "classification", shifted, padded, truth, schema, labels)
    assert made.figure("difference_accuracy").value == 0
    made.release()


def test_labels_that_one_run_lists_count_for_both(spark):
    run = answers(["ant"], ["bee", "ant"])
    baseline = answers(["ant", "cat"], ["cat"])
    truth = [(0, ["ant"]), (1, ["ant"])]
    schema, labels = f"id int, {ENTRIES}", "id int, label array<string>"
    made = compared(spark, "multilabel", run, baseline, truth, schema, labels, threshold=0.1)
    true = [[1, 0, 0], [1, 0, 0]]
    ours, theirs = [[1, 0, 0], [1, 1, 0]], [[1, 0, 1], [0, 0, 1]]
    for name, answer in (("", ours), ("baseline_", theirs)):
        expected = metrics.hamming_loss(true, answer)
        assert made.figure(f"{name}hamming_loss").value == pytest.approx(expected), name
    lrap = metrics.label_ranking_average_precision_score
    expected = lrap(true, [[0.9, 0, 0], [0.8, 0.9, 0]])
    assert made.figure("lrap").value == pytest.approx(expected)
    expected = lrap(true, [[0.9, 0, 0.8], [0, 0, 0.9]])
    assert made.figure("baseline_lrap").value == pytest.approx(expected)
    made.release()


def test_judgments_that_differ_in_more_than_the_run_are_not_compared(spark):
    def judged(rows, truth, **options):
        table = spark.createDataFrame(rows, f"id int, {ENTRIES}, part string")
        made = judge_classification(table, truth, id="id", bootstrap=0, **options)
        held.append(made)
        return made

    held: list = []
    rows = [(*row, "x") for row in answers(["ant"], ["bee"])]
    words = spark.createDataFrame([(0, "ant"), (1, "ant")], "id int, label string")
    others = spark.createDataFrame([(0, "ant"), (1, "bee")], "id int, label string")
    moved = [(*row[:2], "y") for row in rows[1:]] + rows[:1]
    one = judged(rows, words, slices=["part"])
    with pytest.raises(InvalidInput, match=r"1 rows have two truths \(such as 1\)"):
        compare(one, judged(rows, others, slices=["part"]))
    with pytest.raises(InvalidInput, match=r"1 rows are in two slices \(such as 1\)"):
        compare(one, judged(moved, words, slices=["part"]))
    numbers = spark.createDataFrame([(0, 0), (1, 1)], "id int, label int")
    tens = [(*row, "x") for row in answers(["10"], ["0"], names=["10", "0"])]
    by_index, by_label = judged(rows, numbers), judged(tens, numbers, match="label")
    with pytest.raises(InvalidInput, match="the index of the run's predictions and with the label"):
        compare(by_index, by_label)
    for each in held:
        each.release()
