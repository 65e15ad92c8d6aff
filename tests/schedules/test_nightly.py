"""The DAG of conf/airflow, run by Airflow itself (`dags test`): killed once, retried, and gated."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyspark
import pytest

from cluster.processes import CONF, PATIENCE, ROOT, committed, descendants, start, stop, wait_for
from corpora import manifest, rows, write

WHERE = "EMBER_AIRFLOW"
ROWS = 60
BEGIN = datetime(2026, 11, 10, 3, tzinfo=UTC)
DAY = "2026-11-10"

pytestmark = pytest.mark.skipif(
    WHERE not in os.environ, reason="there is no Airflow here; scripts/cluster/airflow has it"
)


@pytest.fixture(autouse=True)
def environment_noted(record_property):
    record_property("environment", "Airflow")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Texts of the day, and before and after it some that are not to be read."""
    before = [BEGIN - timedelta(hours=1)] * 5
    after = [BEGIN + timedelta(days=1)] * 5
    created = [*before, *(BEGIN + timedelta(minutes=20 * n) for n in range(ROWS)), *after]
    numbers = range(len(created))
    texts = [f"{'the dog runs' if n % 2 else 'a small cat sat on mat'} {n}" for n in numbers]
    return write(
        tmp_path_factory.mktemp("corpus") / "in.parquet",
        id=[f"i{number:03}" for number in numbers],
        text=texts,
        label=["dog" if number % 2 else "cat" for number in numbers],
        created=created,
    )


@pytest.fixture
def config(corpus, bert, tmp_path, run_job):
    """The folder of the jobs' files, as a user makes it from conf/; and a head."""
    folder = tmp_path / "config"
    folder.mkdir()
    texts = {"path": corpus, "id": "id", "content": "text", "modality": "text"}
    labels = {"path": corpus, "id": "id", "label": "label"}
    model = {"name": bert, "runtime": "torch"}
    files = {
        "embed": {"input": texts, "model": model, "limits": {"rows_per_task": 4}},
        "classify": {"head": str(tmp_path / "head")},
        "evaluate": {
            "kind": "classification",
            "predictions": {"path": "of the DAG", "id": "id"},
            "truth": labels,
            "require": {"accuracy": 0.9},
            "report": False,
        },
    }
    for name, keys in files.items():
        (folder / f"{name}.yaml").write_text(json.dumps(keys), "utf-8")
    all_rows = tmp_path / "all"
    given = f"--config={folder}/embed.yaml"
    assert run_job("embed", given, output__path=all_rows)[0] == 0
    features = json.dumps([{"path": str(all_rows), "id": "id"}])
    table = {f"labels__{key}": value for key, value in labels.items()}
    head = {"features": features, **table, "output__path": tmp_path / "head"}
    assert run_job("train", **head)[0] == 0
    return folder


@pytest.fixture
def airflow(tmp_path, config):
    """Start a command of Airflow's, whose database is its own; its output goes to `log`."""
    home = Path(pyspark.__file__).parent
    settings = tmp_path / "conf"
    settings.mkdir()
    text = Path(CONF, "spark-defaults.conf").read_text("utf-8")
    few = "spark.sql.shuffle.partitions 4\n"
    (settings / "spark-defaults.conf").write_text(text + few, "utf-8")
    told = {"type": "file", "log_file_path": str(tmp_path / "events.jsonl"), "append": True}
    given = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "conf" / "airflow"),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(told),
        "AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO": "true",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "AIRFLOW_VAR_EMBER": str(ROOT / "jobs"),
        "AIRFLOW_VAR_EMBER_CONFIG": str(config),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(settings),
        "PYSPARK_PYTHON": sys.executable,
        "EMBER_CACHE": str(tmp_path / "cache"),
    }

    def begin(*words):
        program = str(Path(os.environ[WHERE], "bin", "airflow"))
        return start([program, *words], tmp_path / "log", **given)

    migrating = begin("db", "migrate")
    assert migrating.wait(PATIENCE) == 0, (tmp_path / "log").read_text("utf-8")
    return begin


def test_the_dag_goes_on_where_a_killed_task_was_and_a_gate_fails_it(
    airflow, config, tmp_path, record_property
):
    record_property("job", "embed, classify, evaluate")
    day = f"day={DAY}"
    out = tmp_path / "out" / "embeddings" / day
    root = json.dumps({"root": str(tmp_path / "out")})
    when = (BEGIN + timedelta(days=1)).isoformat()
    process = airflow("dags", "test", "ember_nightly", when, "-c", root)
    try:
        wait_for(lambda: len(committed(out)) >= 3, process)
        drivers = [pid for pid, line in descendants(process.pid).items() if "SparkSubmit" in line]
        for pid in [each for driver in drivers for each in (driver, *descendants(driver))]:
            os.kill(pid, signal.SIGKILL)
        code = process.wait(PATIENCE)
    finally:
        stop(process)
    said = (tmp_path / "log").read_text("utf-8")
    assert code == 0, said
    told = manifest(out)
    counts = told["counts"]
    assert counts["rows"] == ROWS, said
    assert 0 < counts["reused"] < ROWS
    assert told["run_id"].endswith("-embed")
    assert told["parent_run"]["job"] == "ember_nightly.embed"
    ids = {f"i{number:03}" for number in range(5, 5 + ROWS)}
    predicted = tmp_path / "out" / "predictions" / day
    assert rows(predicted, "id").keys() == rows(out, "id").keys() == ids
    figures = tmp_path / "out" / "figures" / day
    assert manifest(figures)["counts"]["rows"] == ROWS
    assert manifest(figures)["figures"]["accuracy"]["value"] >= 0.9

    # The same day again, with a gate that it cannot reach: the day fails, where `tasks test` of the
    # one task would end with 0.
    file = config / "evaluate.yaml"
    file.write_text(json.dumps({**json.loads(file.read_text()), "require": {"accuracy": 1.01}}))
    done = "--mark-success-pattern=embed|classify"
    process = airflow("dags", "test", "ember_nightly", when, "-c", root, done)
    try:
        code = process.wait(PATIENCE)
    finally:
        stop(process)
    said = (tmp_path / "log").read_text("utf-8")
    assert code != 0, said
    assert "DagRun failed" in said
    assert said.count("Error code is: 5") == 1, said
    assert manifest(figures)["unmet"]
