"""Drift between two tables: what scipy and scikit-learn say of the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.neighbors import NearestNeighbors

import ember
from corpora import leftovers, manifest, write
from ember.errors import InvalidConfig
from ember.evaluation.running import check_inputs
from ember.settings.evaluation import EvaluateConfig
from evaluate_tables import figures, read

KINDS = "id int, embedding array<float>, score double, label string"
RNG = np.random.default_rng(17)


def rows(n, first, shift):
    """n rows; the last three lack a vector, a score and a label."""
    vectors = RNG.normal(size=(n, 8)).astype(np.float32)
    vectors[:, 0] += shift
    scores = (RNG.normal(size=n) + shift / 4).round(1)
    labels = RNG.choice(["ant", "bee", "cat"], n, p=[0.5, 0.3, 0.2])
    made = [[first + i, vectors[i].tolist(), float(scores[i]), str(labels[i])] for i in range(n)]
    made[-3][1], made[-2][2], made[-1][3] = None, float("nan"), None
    return made


REFERENCE, CURRENT = rows(303, 0, 0.0), rows(203, 1000, 0.7)


@pytest.fixture(scope="module")
def judged(spark):
    """The same judgment of tables in one partition and in five."""
    found = []
    for parts in (1, 5):
        one, other = (
            spark.createDataFrame(each, KINDS).repartition(parts) for each in (REFERENCE, CURRENT)
        )
        report = ember.evaluate(
            "drift", other, reference=one, bootstrap=20, max_failed_fraction=0.1
        )
        tables = {name: frame.toArrow().to_pylist() for name, frame in report.tables.items()}
        found.append((report, tables))
        report.release()
    return found


def column(table, place):
    return [row[place] for row in table if row[place] is not None and row[place] == row[place]]


def test_nothing_depends_on_the_partitions(judged):
    (one, tables), (other, same) = judged
    assert [each.as_row() for each in one.figures] == [each.as_row() for each in other.figures]
    assert tables == same
    assert (one.total, one.failed) == (506, 6)


def test_figures_and_tests_are_those_of_scipy(judged):
    report, tables = judged[0]
    scores = [np.array(column(table, 2)) for table in (REFERENCE, CURRENT)]
    labels = [column(table, 3) for table in (REFERENCE, CURRENT)]
    counts = np.array([[each.count(name) for name in ("ant", "bee", "cat")] for each in labels])
    p, q = counts / counts.sum(axis=1, keepdims=True)
    expected = {
        "score_ks": stats.ks_2samp(*scores).statistic,
        "score_wasserstein": stats.wasserstein_distance(*scores),
        "label_total_variation": np.abs(p - q).sum() / 2,
        "label_jensen_shannon": jensenshannon(p, q, base=2) ** 2,
    }
    for name, value in expected.items():
        figure = report.figure(name)
        assert figure.value == pytest.approx(value), name
        assert figure.n == 202
        assert figure.low <= figure.high
        assert figure.smallest_difference > 0
    found = {row["test"]: row for row in tables["tests"]}
    assert list(found) == ["scores", "labels", "embeddings"]
    chi = stats.chi2_contingency(counts, correction=False)
    assert found["labels"]["statistic"] == pytest.approx(chi.statistic)
    assert found["labels"]["p_value"] == pytest.approx(chi.pvalue, abs=0.04)
    assert found["scores"]["p_value"] == pytest.approx(stats.ks_2samp(*scores).pvalue, abs=0.04)
    assert found["embeddings"]["p_value"] == 0.001
    assert found["embeddings"]["drift"]
    # Holm: the least of three p-values counts three times.
    assert found["embeddings"]["adjusted_p_value"] == pytest.approx(0.003)
    assert report.figure("embedding_mmd2").low > 0
    assert [row["label"] for row in tables["labels"]] == sorted(
        ("ant", "bee", "cat"), key=lambda name: -abs((p - q)[("ant", "bee", "cat").index(name)])
    )
    assert sum(row["current"] for row in tables["scores"]) == 202
    clauses = report.unmet({"drift": "none", "score_ks": 1.0})
    assert [clause.split(" drifted")[0] for clause in clauses if "embeddings" in clause] == [
        "embeddings"
    ]


def test_rows_that_lack_a_value_are_counted_and_named(judged):
    report, _ = judged[0]
    assert {(issue.reason, issue.rows, issue.ids) for issue in report.issues} == {
        ("reference: null embedding, left out", 1, ("300",)),
        ("reference: with a score that is null or not finite, left out", 1, ("301",)),
        ("reference: with a null label, left out", 1, ("302",)),
        ("current: null embedding, left out", 1, ("1200",)),
        ("current: with a score that is null or not finite, left out", 1, ("1201",)),
        ("current: with a null label, left out", 1, ("1202",)),
    }


def test_scores_of_many_values_are_counted_in_groups_and_the_gate_is_exit_code_5(run_job, tmp_path):
    rng = np.random.default_rng(23)
    one, other = rng.normal(size=2000), rng.normal(size=1500) * 1.5
    tables = [
        write(tmp_path / f"{n}.parquet", id=[f"{n}-{k}" for k in range(len(each))], value=each)
        for n, each in enumerate((one, other))
    ]
    settings = {
        "kind": "drift",
        "reference": f"{{path: {tables[0]}, id: id, score: value}}",
        "current": f"{{path: {tables[1]}, id: id, score: value}}",
        "require": "{drift: none}",
        "bootstrap": 20,
        "output__path": tmp_path / "work" / "out",
    }
    code, message = run_job("evaluate", **settings)
    assert code == 5
    assert "scores drifted (p = 0.0005, 0.0005 among all tests), and no drift" in message
    out = tmp_path / "work" / "out"
    found = figures(out)
    ks, distance = found["score_ks", "all"], found["score_wasserstein", "all"]
    assert ks["value"] == pytest.approx(stats.ks_2samp(one, other).statistic, abs=2 / 256)
    assert distance["value"] == pytest.approx(stats.wasserstein_distance(one, other), abs=0.02)
    assert len(read(out, "scores")) == 256
    assert [row["drift"] for row in read(out, "tests")] == [True]
    assert [row["test"] for row in manifest(out)["tests"]] == ["scores"]
    page = (out / "report.html").read_text("utf-8")
    assert 'id="tests"' in page
    assert page.count('<svg class="chart"') == 1
    assert leftovers(tmp_path / "work") == ["out"]


def test_the_overlap_of_neighbors_is_scikit_learns(spark):
    """Two models: the second has fewer dimensions, and rows that the first has not."""
    rng = np.random.default_rng(29)
    one = rng.normal(size=(200, 10)).astype(np.float32)
    other = (one[:, :6] + 0.3 * rng.normal(size=(200, 6))).astype(np.float32)
    first = spark.createDataFrame(
        [(i, one[i].tolist()) for i in range(190)], "id int, embedding array<float>"
    )
    second = spark.createDataFrame(
        [(i, other[i].tolist()) for i in range(10, 200)], "id long, embedding array<float>"
    )
    given = {"k": 5, "sample": 1000, "least": 0.3}
    report = ember.evaluate(
        "drift", second, reference=first, overlap=given, bootstrap=20, max_failed_fraction=0.1
    )
    shared = slice(10, 190)
    near = [
        NearestNeighbors(n_neighbors=6, metric="cosine")
        .fit(each[shared])
        .kneighbors(each[shared], return_distance=False)[:, 1:]
        for each in (one, other)
    ]
    agreed = np.array([len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)])
    figure = report.figure("neighbor_overlap")
    assert figure.value == pytest.approx(agreed.mean())
    assert figure.n == 180
    assert figure.low < figure.value < figure.high
    (test,) = report.tests
    z = (agreed.mean() - 0.3) / (agreed.std(ddof=1) / np.sqrt(180))
    assert test["p_value"] == pytest.approx(stats.norm.cdf(z))
    assert test["drift"] == (z < -1.645)
    assert sorted((issue.rows, issue.ids[0]) for issue in report.issues) == [(10, "0"), (10, "190")]
    report.release()


def config(**settings):
    named = {"path": "somewhere", "id": "id"}
    given = {"reference": {**named, "score": "s"}, "current": {**named, "score": "s"}}
    given |= {"kind": "drift", "output": {"path": "out"}, **settings}
    return EvaluateConfig(
        **{
            key: {**named, **value}
            if key in ("reference", "current") and value is not None
            else value
            for key, value in given.items()
        }
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"current": {"score": "s", "label": "l"}}, "reference.label is missing"),
        ({"reference": {}, "current": {}}, "there is nothing to compare"),
        ({"reference": None}, "reference is missing; kind: drift needs it"),
        ({"slices": ["s"]}, "slices does not go with kind: drift"),
        ({"overlap": {}}, "embedding is missing"),
        ({"require": {"drift": 0.1}}, "drift is 0.1; write {drift: none}"),
        ({"require": {"score_ks": "none"}}, "score_ks is none; write score_ks: a number"),
        ({"require": {"accuracy": 0.9}}, "figures here: score_ks, score_wasserstein, score_psi, "),
        ({"kind": "similarity"}, "pairs is missing"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        check_inputs(config(**settings), {})
