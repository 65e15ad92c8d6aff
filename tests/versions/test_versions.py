"""Each job once on the Spark that is first on PYTHONPATH; see scripts/cluster/versions.

The results are held against numpy, not against another version of Spark.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.every_job import NEIGHBORS, STEPS, THRESHOLD, WITH_TORCH, columns, job, pipeline
from cluster.processes import finished, start
from corpora import manifest, picture, rows, vectors, write

WANTED = "EMBER_SPARK_VERSION"
ROWS = 40
ALL = (*STEPS, *WITH_TORCH)

pytestmark = pytest.mark.skipif(
    WANTED not in os.environ, reason="runs on other versions of Spark by scripts/cluster/versions"
)


@pytest.fixture(autouse=True)
def environment_noted(record_property):
    record_property("environment", f"Spark {os.environ[WANTED]}")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One of the pictures is none."""
    table = columns(ROWS)
    table["image"][-1] = b"no picture"
    return write(tmp_path_factory.mktemp("corpus") / "in.parquet", **table)


def run(command, log, **extra):
    """Run a command as a user would; its exit code and what it printed."""
    return finished(start(command, log, **extra), log)


@pytest.fixture(scope="module")
def ran(corpus, resnet, bert, tmp_path_factory):
    """Where a pipeline ran under spark-submit, how its steps ended, by name, and what it said."""
    import pyspark

    from tiny_models import tiny_gpt2

    folder = tmp_path_factory.mktemp("ran")
    gpt2 = f"hf:{tiny_gpt2(tmp_path_factory.mktemp('gpt2'), max_new_tokens=4)}"
    file, out = folder / "pipeline.yaml", folder / "out"
    file.write_text(json.dumps(pipeline(corpus, str(out), resnet, bert, gpt2, "torch")), "utf-8")
    home = Path(pyspark.__file__).parent
    submit = [str(home / "bin" / "spark-submit"), "--master", "local[2]"]
    submit += ["--conf", "spark.sql.shuffle.partitions=4", "jobs/pipeline.py"]
    _, log = run(
        [*submit, f"--config={file}"],
        folder / "log",
        SPARK_HOME=str(home),
        PYSPARK_PYTHON=sys.executable,
        EMBER_CACHE=str(folder / "cache"),
    )
    steps = manifest(out / "pipeline")["steps"] if (out / "pipeline").exists() else []
    return out, {each["name"]: each["outcome"] for each in steps}, log


def test_the_version_is_the_one_that_is_asked_for():
    assert version("pyspark") == os.environ[WANTED]


@pytest.mark.parametrize("step", ALL)
def test_a_job_runs(ran, record_property, step):
    out, outcomes, log = ran
    record_property("job", job(step))
    assert outcomes.get(step) == "ran", log
    assert manifest(out / step)["versions"]["pyspark"] == os.environ[WANTED]


def test_the_pipeline_has_its_page(ran, record_property):
    record_property("job", "pipeline")
    out, outcomes, log = ran
    assert set(outcomes) == set(ALL), log
    assert (out / "pipeline" / "report.html").exists()
    assert (out / "evaluate" / "report.html").exists()


def test_what_the_jobs_found_is_what_numpy_finds(ran, record_property):
    record_property("job", "search")
    out, _, log = ran
    table = rows(out / "embed", "id")
    assert len(table) == ROWS, log
    assert [key for key, row in table.items() if row["status"] == "error"] == [f"i{ROWS - 1}"]
    found = vectors(out / "embed", "id")
    ids = sorted(found)
    matrix = np.stack([found[key] for key in ids]).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    scores = matrix @ matrix.T
    best = {}
    for row in pq.read_table(out / "search").to_pylist():
        best.setdefault(row["query_id"], []).append((row["rank"], row["score"]))
    for place, key in enumerate(ids):
        expected = np.sort(np.delete(scores[place], place))[::-1][:NEIGHBORS]
        np.testing.assert_allclose([score for _, score in sorted(best[key])], expected, atol=1e-5)
    pairs = {(row["left_id"], row["right_id"]) for row in pq.read_table(out / "join").to_pylist()}
    places = [(left, right) for left in range(len(ids)) for right in range(left + 1, len(ids))]
    clear = {each: scores[each] for each in places if abs(scores[each] - THRESHOLD) > 1e-4}
    named = {(ids[left], ids[right]): score for (left, right), score in clear.items()}
    assert {pair for pair, score in named.items() if score > THRESHOLD} == pairs & named.keys()
    assert len(rows(out / "embed_texts", "id")) == ROWS // 2
    kept = pq.read_table(out / "dedup" / "kept").num_rows
    assert kept == ROWS // 2 + 1  # of each picture one, and what is no picture


@pytest.fixture
def embed(resnet, record_property, tmp_path):
    """Embed the pictures at a path by plain Python; the exit code, and what was said."""
    record_property("job", "embed")

    def run_on(corpus):
        given = {
            "input.path": corpus,
            "input.id": "id",
            "input.content": "image",
            "input.modality": "image",
            "model.name": resnet,
            "model.runtime": "torch",
            "limits.max_failed_fraction": 0.1,
            "output.path": tmp_path / "out",
            "output.mode": "resume",
        }
        command = [sys.executable, "jobs/embed.py", *(f"--set={k}={v}" for k, v in given.items())]
        return run(command, tmp_path / "log", EMBER_CACHE=str(tmp_path / "cache"))

    return run_on


def test_plain_python_starts_a_session_and_resumes(corpus, embed, tmp_path):
    for reused in (0, ROWS - 1):
        code, log = embed(corpus)
        assert code == 0, log
        assert manifest(tmp_path / "out")["counts"]["reused"] == reused


def test_rows_of_megabytes_are_embedded(embed, tmp_path):
    """Of which fewer go to Python at once, by whatever settings this version has."""
    large = [picture(number).ljust(20 * 2**20, b"\0") for number in range(4)]
    code, log = embed(write(tmp_path / "in.parquet", id=list("abcd"), image=large))
    assert code == 0, log
    assert "for this run: a row group of" in (tmp_path / "log").read_text("utf-8")
    assert len(vectors(tmp_path / "out", "id")) == 4


def test_a_damaged_file_among_good_ones_is_told_of(embed, tmp_path):
    for name in ("a", "b"):
        pictures = [picture(number) for number in range(9)]
        path = write(tmp_path / "in" / f"{name}.parquet", id=list(range(9)), image=pictures)
    good = Path(path).read_bytes()
    Path(path).write_bytes(good[:4] + b"\xff" * 4000 + good[4004:])
    code, log = embed(tmp_path / "in")
    assert (code, "an input file cannot be read" in log) == (2, True), log


def test_doctor_knows_this_version(record_property, tmp_path):
    record_property("job", "doctor")
    code, log = run([sys.executable, "jobs/doctor.py"], tmp_path / "log")
    assert (code, "Traceback" in log) == (0, False), log
