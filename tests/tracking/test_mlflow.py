"""Runs that jobs have logged in a file store of MLflow's, read back by its client."""

from __future__ import annotations

import json

import numpy as np
import pytest

from corpora import manifest, rows, write

# MLflow warns of its file store, and of what it imports.
pytestmark = pytest.mark.filterwarnings("default")
ROWS = 40


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ember")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    return MlflowClient()


@pytest.fixture
def table(tmp_path):
    """Vectors of two classes far apart."""
    rng = np.random.default_rng(5)
    labels = ["cat" if number % 2 else "dog" for number in range(ROWS)]
    center = {"cat": 4.0, "dog": -4.0}
    vectors = [list((rng.standard_normal(6) + center[each]).astype("float32")) for each in labels]
    ids = [f"i{number}" for number in range(ROWS)]
    return write(tmp_path / "in.parquet", id=ids, embedding=vectors, label=labels)


def test_a_head_its_figures_and_the_page_are_logged(run_job, client, table, tmp_path):
    features = json.dumps([{"path": table, "id": "id"}])
    labels = {"labels__path": table, "labels__id": "id", "labels__label": "label"}
    head = tmp_path / "head"
    assert run_job("train", features=features, **labels, output__path=head)[0] == 0
    trained, own = only_run(client, "train")
    assert own["job"] == "train"
    assert trained.info.status == "FINISHED"
    assert trained.data.params["head"] == "logistic"
    model = client.download_artifacts(trained.info.run_id, "model", str(tmp_path))
    scored = tmp_path / "scored"
    given = {"head": f"{model}/data", "output__path": scored}
    assert run_job("classify", features=features, **given)[0] == 0
    predicted = {key: row["predictions"][0]["label"] for key, row in rows(scored, "id").items()}
    assert predicted == {key: row["label"] for key, row in rows(table, "id").items()}

    given = {"predictions__path": scored, "predictions__id": "id", "require": '{"accuracy": 1.01}'}
    truth = {"truth__path": table, "truth__id": "id", "truth__label": "label"}
    judged = tmp_path / "judged"
    ran = run_job("evaluate", kind="classification", **given, **truth, output__path=judged)
    assert ran[0] == 5
    run, _ = only_run(client, "evaluate")
    assert run.info.status == "FAILED"
    for name, figure in manifest(judged)["figures"].items():
        logged = run.data.metrics
        assert logged[name] == pytest.approx(figure["value"])
        ends = [logged.get(f"{name}.{end}") for end in ("low", "high")]
        assert ends == [pytest.approx(figure[end]) for end in ("low", "high")]
    names = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert names == {"_manifest.json", "report.html"}
    # A retry is not logged again.
    assert (
        run_job("classify", features=features, head=head, output__path=tmp_path / "again")[0] == 0
    )
    assert len(all_runs(client, "classify")) == 2


def test_a_store_that_is_not_there_fails_no_run(run_job, client, table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "file" / "runs").as_uri())
    given = {"input__path": table, "input__id": "id", "dimension": 2}
    code, said = run_job("project", **given, output__path=tmp_path / "out")
    assert code == 0
    assert "MLflow has nothing of this run" in said


def all_runs(client, job):
    found = client.search_runs(
        [each.experiment_id for each in client.search_experiments()], f"tags.`ember.job` = '{job}'"
    )
    return list(found)


def only_run(client, job):
    """The one run of a job, and the manifest among its artifacts."""
    (run,) = all_runs(client, job)
    file = client.download_artifacts(run.info.run_id, "_manifest.json")
    with open(file, encoding="utf-8") as stream:  # noqa: PTH123  # a path as MLflow gives it
        return run, json.load(stream)
