"""The evaluate job, kind by kind: figures of scikit-learn and trec_eval, tables, exit codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics

from corpora import leftovers, manifest, write
from evaluate_tables import PREDICTIONS, figures, listed, read, write_predictions

NAMES = ["ant", "bee", "cat", "dog", "eel"]
RNG = np.random.default_rng(11)
SCORES = RNG.random((60, 5)).round(2).astype(np.float32)
TRUTH = np.where(RNG.random(60) < 0.6, SCORES.argmax(axis=1), RNG.integers(0, 5, 60))
IDS = [f"r{n:02}" for n in range(60)]


@pytest.fixture
def evaluate(run_job):
    def run(*flags, **settings):
        return run_job("evaluate", *flags, bootstrap=20, **settings)

    return run


def assert_done(ended):
    code, message = ended
    assert message == ""
    assert code == 0


def classes(folder, **settings):
    """Predictions of one label a row with their truth, and the settings that judge them."""
    predictions = write_predictions(folder / "in" / "p.parquet", IDS, listed(SCORES, NAMES, 2))
    truth = write(folder / "in" / "t.parquet", id=IDS, label=[NAMES[t] for t in TRUTH])
    return {
        "kind": "classification",
        "predictions__path": predictions,
        "predictions__id": "id",
        "truth__path": truth,
        "output__path": folder / "work" / "out",
        **settings,
    }


def test_a_figure_below_its_requirement_is_exit_code_5_and_the_report_is_there(evaluate, tmp_path):
    settings = classes(tmp_path, require="{accuracy: 0.99, ece: 0.0, macro_f1: 0.1}", top_k=[2])
    code, message = evaluate(**settings)
    out = settings["output__path"]
    right = (SCORES.argmax(axis=1) == TRUTH).mean()
    assert code == 5
    assert f"accuracy is {right:.6g} (95%: " in message
    assert "), below the required 0.99; ece is " in message
    assert ", above the required 0. The report is at file:" in message
    assert "macro_f1" not in message
    parts = ["confusion", "figures", "issues", "most_confused", "per_class", "reliability"]
    parts += ["report.html", "worst"]
    assert [each for each in leftovers(out) if not each.startswith((".", "_"))] == parts
    assert leftovers(out.parent) == ["out"]
    told = manifest(out)
    assert told["figures"]["accuracy"]["value"] == pytest.approx(right)
    assert told["counts"] == {"rows": 60, "failed": 0}
    assert len(told["unmet"]) == 2
    row = figures(out)["accuracy", "all"]
    assert row["value"] == told["figures"]["accuracy"]["value"]
    assert row["low"] < row["value"] < row["high"]
    page = (out / "report.html").read_text("utf-8")
    tables = ("per_class", "reliability", "worst", "most_confused")
    numbers = [row["value"] for row in figures(out).values()]
    numbers += [row["f1"] for row in read(out, "per_class")]
    numbers += [row["score"] for row in read(out, "worst")]
    assert not [n for n in numbers if f'data-value="{n!r}"' not in page]
    assert all(f'<div class="table" id="{name}">' in page for name in tables)
    assert page.count('<svg class="chart"') == 3  # classes, confusion, reliability
    assert "<img" not in page
    assert "below the required 0.99" in page
    code, message = evaluate(**settings)
    assert (code, "exists; set output.mode" in message) == (2, True)


def test_too_many_rows_without_a_prediction_are_exit_code_3(evaluate, tmp_path):
    settings = classes(tmp_path, bins=5)
    write_predictions(tmp_path / "in" / "p.parquet", IDS[2:], listed(SCORES[2:], NAMES, 2))
    code, message = evaluate(**settings)
    assert code == 3
    assert "2 of 60 rows cannot be judged (2 without a prediction, counted as wrong" in message
    assert "such as r00, r01" in message
    kept = tmp_path / "work" / "out.failures"
    assert sorted(row["id"] for row in pq.read_table(kept).to_pylist()) == IDS[:2]
    assert leftovers(tmp_path / "work") == ["out.failures"]


def test_of_a_part_only_its_rows_are_judged_and_the_others_are_counted(evaluate, tmp_path):
    settings = classes(tmp_path, population="predictions", truth__id="name", report=False)
    settings["truth__path"] = write(tmp_path / "t.parquet", name=IDS, label=NAMES * 12)
    held = slice(40, None)
    answers = listed(SCORES[held], NAMES, 2)
    answers[3] = None
    write_predictions(tmp_path / "in" / "p.parquet", IDS[held], answers)
    out = settings["output__path"]
    assert_done(evaluate(**settings, limits__max_failed_fraction=0.1))
    right = (SCORES.argmax(axis=1) == np.arange(60) % 5)[held]
    right[3] = False
    assert figures(out)["accuracy", "all"]["value"] == pytest.approx(right.mean())
    assert manifest(out)["counts"] == {"rows": 20, "failed": 1}
    assert [(row["rows"], row["ids"]) for row in read(out, "issues")] == [
        (1, [IDS[43]]),
        (40, IDS[:5]),
    ]


def test_a_comparison_has_paired_intervals_and_the_rows_that_changed(evaluate, tmp_path):
    better = SCORES.copy()
    better[np.arange(40), TRUTH[:40]] = 1.5
    predictions = write_predictions(tmp_path / "in" / "n.parquet", IDS, listed(better, NAMES, 2))
    settings = classes(tmp_path, kind="compare", require="{difference_accuracy: 0}")
    settings |= {"baseline__path": settings["predictions__path"], "predictions__path": predictions}
    assert_done(evaluate(**settings))
    before, after = SCORES.argmax(axis=1), better.argmax(axis=1)
    found = figures(settings["output__path"])
    gain = (after == TRUTH).mean() - (before == TRUTH).mean()
    difference = found["difference_accuracy", "all"]
    assert difference["value"] == pytest.approx(gain)
    assert difference["value"] == pytest.approx(
        found["accuracy", "all"]["value"] - found["baseline_accuracy", "all"]["value"]
    )
    alone = found["accuracy", "all"]["high"] - found["accuracy", "all"]["low"]
    assert 0 < difference["low"] < difference["high"]
    assert difference["high"] - difference["low"] < alone
    changed = read(settings["output__path"], "changed")
    assert sorted(row["id"] for row in changed) == [IDS[n] for n in np.flatnonzero(before != after)]
    assert all((row["baseline_outcome"], row["outcome"]) == (0, 1) for row in changed)


def test_runs_on_other_queries_are_not_compared(evaluate, tmp_path):
    ranked = {"q0": ["q1", "q2"], "q1": ["q0", "q2"]}
    other = {"q1": ["q0", "q2"], "q2": ["q0", "q1"]}
    settings = {
        "kind": "compare",
        "of": "retrieval",
        "neighbors__path": neighbors(tmp_path / "in" / "n.parquet", ranked),
        "baseline__path": neighbors(tmp_path / "in" / "b.parquet", other),
        "truth__path": write(tmp_path / "in" / "t.parquet", id=["q0", "q1", "q2"], label=["x"] * 3),
        "output__path": tmp_path / "work" / "out",
    }
    code, message = evaluate(**settings, truth__id="id")
    assert (code, "1 queries only the run is judged on (such as q0)" in message) == (2, True)
    assert not (tmp_path / "work").exists() or not leftovers(tmp_path / "work")


def test_multilabel_figures_are_scikit_learns(evaluate, tmp_path):
    true = RNG.random((60, 5)) < 0.35
    true[0], true[1] = False, True
    true[2, 0] = True  # of a failed prediction, which is never right as a whole
    true[:, 4] = False  # a label without a positive row
    scores = SCORES.round(1)  # ties
    predictions = listed(scores, NAMES, 5)
    shown = [[each for each in row if each["score"] >= 0.3] for row in predictions]
    shown[2] = None
    out = tmp_path / "work" / "out"
    labels = [[NAMES[j] for j in np.flatnonzero(row)] for row in true]
    settings = {
        "kind": "multilabel",
        "predictions__path": write_predictions(tmp_path / "p.parquet", IDS, shown),
        "predictions__id": "id",
        "truth__path": write(tmp_path / "t.parquet", id=IDS, tags=labels, half=["a", "b"] * 30),
        "truth__label": "tags",
        "slices": ["half"],
        "threshold": 0.7,
        "top_k": [2],
        "output__path": out,
        "limits__max_failed_fraction": 0.1,
    }
    assert_done(evaluate(**settings))
    scores[scores < np.float32(0.3)] = 0
    scores[2] = 0
    answer = scores >= np.float32(0.7)
    found = figures(out)
    for name, rows in {"all": np.arange(60), "half=b": np.arange(1, 60, 2)}.items():
        y, p, s = true[rows], answer[rows], scores[rows]
        occurring = (y | p).any(axis=0)
        expected = {
            "subset_accuracy": metrics.accuracy_score(y, p),
            "hamming_loss": metrics.hamming_loss(y, p),
            "lrap": metrics.label_ranking_average_precision_score(y, s),
            "mean_average_precision": np.mean(
                [metrics.average_precision_score(y[:, j], s[:, j]) for j in range(4)]
            ),
        }
        for mean in ("macro", "weighted", "micro"):
            columns = occurring if mean == "macro" else np.ones(5, bool)
            values = metrics.precision_recall_fscore_support(
                y[:, columns], p[:, columns], average=mean, zero_division=0
            )
            expected |= {
                f"{mean}_{k}": v
                for k, v in zip(("precision", "recall", "f1"), values, strict=False)
            }
        first = np.argsort(-scores, axis=1, kind="stable")[rows, :2]
        hits = np.take_along_axis(y, first, axis=1) & (np.take_along_axis(s, first, axis=1) > 0)
        expected["precision@2"] = hits.sum(axis=1).mean() / 2
        for metric, value in expected.items():
            assert found[metric, name]["value"] == pytest.approx(value, abs=1e-12), (metric, name)
    per_label = {row["label"]: row for row in read(out, "per_label")}
    assert per_label["eel"]["average_precision"] is None
    expected = metrics.average_precision_score(true[:, 1], scores[:, 1])
    assert per_label["bee"]["average_precision"] == pytest.approx(expected)
    assert [row["reason"].split(",")[0] for row in read(out, "issues")] == [
        "with a failed prediction"
    ]


def neighbors(path, ranked):
    columns = [(q, d, rank) for q, found in ranked.items() for rank, d in enumerate(found, 1)]
    query, document, rank = zip(*columns, strict=True)
    return write(path, query_id=list(query), neighbor_id=list(document), rank=list(rank))


def trec(qrels, ranked):
    wanted = {"recip_rank", "map", "recall.3", "P.3", "success.3", "ndcg_cut.3"}
    run = {q: {d: -float(rank) for rank, d in enumerate(found)} for q, found in ranked.items()}
    found = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    names = ("mrr", "map", "recall@3", "precision@3", "hit_rate@3", "ndcg@3")
    theirs = ("recip_rank", "map", "recall_3", "P_3", "success_3", "ndcg_cut_3")
    judged = [q for q, grades in qrels.items() if max(grades.values()) > 0]
    return {
        name: sum(found.get(q, {}).get(measure, 0) for q in judged) / len(judged)
        for name, measure in zip(names, theirs, strict=True)
    }


def test_retrieval_by_grades_equals_trec_eval(evaluate, tmp_path):
    documents = [f"d{n:02}" for n in range(15)]
    qrels = {
        f"q{q:02}": {d: int(RNG.integers(0, 4)) for d in RNG.permutation(documents)[:8]}
        for q in range(20)
    }
    qrels["q00"] = dict.fromkeys(documents[:3], 0)
    ranked = {q: RNG.permutation(documents)[:6].tolist() for q in [*list(qrels)[:18], "stray"]}
    grades = [(q, d, grade) for q, row in qrels.items() for d, grade in row.items()]
    query, document, grade = zip(*grades, strict=True)
    out = tmp_path / "work" / "out"
    relevance = write(tmp_path / "r.parquet", query=query, doc=document, grade=grade)
    settings = {
        "kind": "retrieval",
        "neighbors__path": neighbors(tmp_path / "n.parquet", ranked),
        "relevance": f"{{path: {relevance}, query_id: query, neighbor_id: doc, grade: grade}}",
        "at": [3],
        "output__path": out,
        "limits__max_failed_fraction": 0.2,
    }
    assert_done(evaluate(**settings))
    found = figures(out)
    for metric, value in trec(qrels, ranked).items():
        assert found[metric, "all"]["value"] == pytest.approx(value, abs=1e-12), metric
        assert found[metric, "all"]["n"] == 19
    issues = {row["reason"]: (row["rows"], row["ids"]) for row in read(out, "issues")}
    assert issues == {
        "queries without a truth, left out": (1, ["stray"]),
        "queries without a relevant document, left out": (1, ["q00"]),
        "queries without a result, counted as 0": (2, ["q18", "q19"]),
    }
    worst = [row["map"] for row in read(out, "worst")]
    assert worst == sorted(worst)


def test_retrieval_by_label_leaves_the_query_itself_out(evaluate, tmp_path):
    label = {n: int(RNG.integers(0, 4)) for n in range(30)}
    label[30] = 99  # alone of its kind
    ranked = {n: [n, *RNG.permutation(30)[:7].tolist()] for n in label}
    ranked = {n: list(dict.fromkeys(found)) for n, found in ranked.items()}
    out = tmp_path / "work" / "out"
    settings = {
        "kind": "retrieval",
        "neighbors__path": neighbors(tmp_path / "n.parquet", ranked),
        "truth__path": write(
            tmp_path / "t.parquet",
            key=pa.array(label, pa.int32()),
            kind=list(label.values()),
            even=[n % 2 == 0 for n in label],
        ),
        "truth__id": "key",
        "truth__label": "kind",
        "exclude_self": "true",
        "slices": ["even"],
        "at": [3],
        "report": "false",
        "output__path": out,
    }
    assert_done(evaluate(**settings))
    assert not (out / "report.html").exists()
    found = figures(out)
    for name, queries in {"all": range(30), "even=true": range(0, 30, 2)}.items():
        qrels = {
            str(q): {str(d): int(label[d] == label[q]) for d in label if d != q} for q in queries
        }
        others = {str(q): [str(d) for d in ranked[q] if d != q] for q in queries}
        for metric, value in trec(qrels, others).items():
            assert found[metric, name]["value"] == pytest.approx(value, abs=1e-12), (metric, name)
    assert read(out, "issues") == [
        {"reason": "queries without a relevant document, left out", "rows": 1, "ids": ["30"]}
    ]


def test_similarity_of_pairs_against_yes_and_no(evaluate, tmp_path):
    left, right = [f"l{n}" for n in range(60)], [n % 7 for n in range(60)]
    score = SCORES[:, 0].astype(np.float64)
    truth = RNG.random(60) < score
    given = [None, np.nan, *score[2:].tolist()]
    out = tmp_path / "work" / "out"
    settings = {
        "kind": "similarity",
        "pairs__path": write(tmp_path / "p.parquet", left_id=left, right_id=right, cosine=given),
        "population": "predictions",
        "pairs__id": ["left_id", "right_id"],
        "pairs__score": "cosine",
        "truth__path": write(
            tmp_path / "t.parquet",
            a=[*left, "l0", "m"],
            b=[*right, 5, 0],
            same=[*truth, True, False],
            set=["x", "y"] * 31,
        ),
        "truth__id": ["a", "b"],
        "truth__label": "same",
        "slices": ["set"],
        "output__path": out,
        "limits__max_failed_fraction": 0.1,
    }
    assert_done(evaluate(**settings))
    found = figures(out)
    for name, rows in {"all": slice(2, None), "set=y": slice(3, None, 2)}.items():
        x, y = score[rows], truth[rows]
        expected = {
            "pearson": pearsonr(x, y).statistic,
            "spearman": spearmanr(x, y).statistic,
            "roc_auc": metrics.roc_auc_score(y, x),
            "average_precision": metrics.average_precision_score(y, x),
            "best_f1": max(metrics.f1_score(y, x >= at) for at in x),
        }
        for metric, value in expected.items():
            assert found[metric, name]["value"] == pytest.approx(value, abs=1e-12), (metric, name)
            assert found[metric, name]["low"] < value < found[metric, name]["high"]
        at = found["best_threshold", name]["value"]
        assert metrics.f1_score(y, x >= at) == pytest.approx(expected["best_f1"])
    assert [row["rows"] for row in read(out, "issues")] == [2, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"require": "{acuracy: 0.9}"},
            "there is no figure acuracy; figures here: accuracy, top_5",
        ),
        ({"require": "{top_3_accuracy: 0.9}"}, "there is no figure top_3_accuracy"),
        ({"kind": "similarity"}, "pairs is missing; kind: similarity needs it"),
        ({"kind": "compare"}, "baseline is missing; kind: compare of classification needs it"),
        ({"kind": "regression"}, "kind: input should be 'classification'"),
        ({"neighbors__path": "/x"}, "neighbors does not go with kind: classification, which reads"),
        ({"truth__label": "name"}, "there is no column name; the table has id, label"),
        ({"predictions__predictions": "id"}, "the predictions' column id is string; it must be"),
        ({"slices": ["city"]}, "slices: there is no column city in the tables that are judged"),
        ({"classes": [1, 2]}, "classes: the truth has labels of type string; list such"),
        (
            {"kind": "retrieval", "neighbors__path": "/x", "population": "predictions"},
            "population: predictions does not go with kind: retrieval",
        ),
        (
            {"truth__id": ["id", "label"]},
            "truth.id lists columns, and kind: classification has ids",
        ),
        ({"bins": 0}, "bins: input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_work_is_exit_code_2_and_nothing_written(evaluate, tmp_path, settings, words):
    code, message = evaluate(**{**classes(tmp_path), **settings})
    assert (code, words in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists() or not leftovers(tmp_path / "work")


def test_a_dry_run_writes_nothing(evaluate, tmp_path):
    assert_done(evaluate("--dry-run", **classes(tmp_path)))
    assert not (tmp_path / "work").exists()


def test_a_page_without_what_makes_it_is_exit_code_2(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("ember.report.publishing.find_spec", lambda name: None)
    code, message = evaluate(**classes(tmp_path))
    assert code == 2
    assert "pip install 'ember-spark[report]', or leave the page out" in message
    assert not (tmp_path / "work").exists()


def test_predictions_may_be_empty_tables(evaluate, tmp_path):
    settings = classes(tmp_path)
    write(
        tmp_path / "in" / "p.parquet",
        id=pa.array([], "string"),
        predictions=pa.array([], PREDICTIONS),
    )
    write(tmp_path / "in" / "t.parquet", id=pa.array([], "string"), label=pa.array([], "string"))
    code, message = evaluate(**settings, require="{accuracy: 0.5}")
    assert code == 5
    assert "accuracy is undefined for these rows and 0.5 is required" in message


def test_a_run_after_a_failed_one_reads_the_files_anew(evaluate, spark, tmp_path):
    """In one session, with one table or two that are judged: no row of it is left."""
    before = spark.sparkContext._jsc.getPersistentRDDs().size()
    settings = classes(tmp_path)
    whole = pq.read_table(settings["predictions__path"])
    pq.write_table(whole.slice(9), settings["predictions__path"])
    assert evaluate(**settings)[0] == 3
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == before
    twice = tmp_path / "in" / "twice.parquet"
    pq.write_table(pa.concat_tables([whole, whole]), twice)
    pq.write_table(whole, settings["predictions__path"])
    compared = {**settings, "kind": "compare", "of": "classification", "baseline__path": twice}
    assert evaluate(**compared)[0] == 2
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == before
    assert_done(evaluate(**settings))
    assert spark.sparkContext._jsc.getPersistentRDDs().size() == before
