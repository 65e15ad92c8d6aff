"""Jobs on YARN, of tables on HDFS: every job in client mode, killed and resumed in cluster mode.

Run by scripts/cluster/yarn, which has the jars and the packed environment; skipped without them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hadoop import running

from cluster.every_job import STEPS, THRESHOLD, columns, job, pipeline
from cluster.processes import BIN, ROOT, settings, stop, wait_for
from corpora import assert_close, vectors, write

ROWS = 60
ENVIRONMENT = "YARN, HDFS"
# The packed environment of the small variant has no torch, which converts models.
WITH_TORCH = {"DRIVER_PYTHON": str(BIN / "python")}


@pytest.fixture(scope="module")
def hadoop(tmp_path_factory):
    jars, archive = os.environ.get("EMBER_HADOOP_JARS"), os.environ.get("EMBER_CLUSTER_ARCHIVE")
    if not jars or not archive:
        pytest.skip("there are no jars of Hadoop's mini clusters here; run scripts/cluster/yarn")
    with running(tmp_path_factory.mktemp("hadoop"), jars.split(), archive) as clusters:
        yield clusters


@pytest.fixture(scope="module")
def corpus(hadoop):
    return hadoop.write("/data/in.parquet", **columns(ROWS))


@pytest.fixture(scope="module")
def ran(hadoop, corpus, resnet, bert, tmp_path_factory):
    """How the steps of a pipeline ended, by name, and what was said."""
    folder = tmp_path_factory.mktemp("ran")
    file = folder / "pipeline.yaml"
    file.write_text(json.dumps(pipeline(corpus, "hdfs:///out", resnet, bert)), "utf-8")
    given = ["--deploy-mode", "client", "jobs/pipeline.py", f"--config={file}"]
    _, log = hadoop.submit(folder / "log", *given, **WITH_TORCH, EMBER_CACHE=str(folder / "cache"))
    there = "/out/pipeline/_manifest.json" in hadoop.files("/out/pipeline")
    steps = hadoop.manifest("/out/pipeline")["steps"] if there else []
    return {each["name"]: each["outcome"] for each in steps}, log


@pytest.mark.parametrize("step", STEPS)
def test_a_job_reads_and_writes_hdfs_in_client_mode(hadoop, ran, record_property, step):
    record_property("environment", ENVIRONMENT)
    record_property("job", job(step))
    outcomes, log = ran
    assert outcomes.get(step) == "ran", log
    assert hadoop.manifest(f"/out/{step}")["run_id"]


def test_its_vectors_are_those_of_one_machine(hadoop, ran, resnet, tmp_path, embed_job):
    table = write(tmp_path / "in.parquet", **columns(ROWS))
    given = {"input__path": table, "input__id": "id", "input__content": "image"}
    given |= {"input__modality": "image", "model__name": resnet, "model__runtime": "openvino"}
    assert embed_job(**given, output__path=tmp_path / "here") == (0, "")
    ours = {row["id"]: row["embedding"] for row in hadoop.rows("/out/embed")}
    theirs = vectors(tmp_path / "here", "id")
    assert ours.keys() == theirs.keys()
    for key, vector in theirs.items():
        assert_close(vector, ours[key])


def test_a_job_killed_by_yarn_in_cluster_mode_is_resumed_there(
    hadoop, corpus, resnet, tmp_path, record_property
):
    record_property("environment", f"{ENVIRONMENT}, cluster mode")
    record_property("job", "embed")
    given = {
        "input__path": corpus,
        "input__id": "id",
        "input__content": "image",
        "input__modality": "image",
        "model__name": resnet,
        "model__runtime": "openvino",
        "output__path": "hdfs:///cut/embed",
        "output__mode": "resume",
        "limits__rows_per_task": 1,
    }
    words = ["jobs/embed.py", *settings(**given)]
    slow = {
        "spark.python.daemon.module": "slow_daemon",
        "spark.executorEnv.PYTHONPATH": str(ROOT / "tests" / "cluster"),
        "spark.executorEnv.TASK_SECONDS": "4",
    }
    conf = [word for key, value in slow.items() for word in ("--conf", f"{key}={value}")]
    log = tmp_path / "log"
    process = hadoop.begin(log, *conf, *words, **WITH_TORCH)

    def done() -> list[str]:
        found = hadoop.files("/cut/.embed.staging")
        return [each for each in found if re.search(r"/new/part-", each)]

    try:
        wait_for(lambda: len(done()) >= 4, process)
        hadoop.kill(re.search(r"application_\d+_\d+", log.read_text("utf-8"))[0])
        assert process.wait() != 0
    finally:
        stop(process)
    assert not hadoop.files("/cut/embed")
    before = len(done())  # its tasks go on for a moment, while YARN ends the containers

    code, said = hadoop.submit(tmp_path / "log2", *words, **WITH_TORCH)
    assert code == 0, said
    assert "/container_" in re.search(r"to openvino at (\S+)", said)[1]
    assert sorted(row["id"] for row in hadoop.rows("/cut/embed")) == columns(ROWS)["id"]
    counts = hadoop.manifest("/cut/embed")["counts"]
    assert (counts["rows"], counts["embedded"]) == (ROWS, ROWS - counts["reused"])
    assert before <= counts["reused"] < ROWS
    assert {Path(each).parts[2] for each in hadoop.files("/cut")} == {"embed"}


def test_the_driver_runs_in_the_packed_environment_in_cluster_mode(
    hadoop, ran, tmp_path, record_property
):
    record_property("environment", f"{ENVIRONMENT}, cluster mode")
    record_property("job", "join")
    given = {"left__path": "hdfs:///out/embed", "left__id": "id", "threshold": THRESHOLD}
    words = settings(**given, output__path="hdfs:///cut/join")
    code, said = hadoop.submit(tmp_path / "log", "jobs/join.py", *words)
    assert code == 0, said

    def pairs(table: str) -> list[tuple[str, str]]:
        return sorted((each["left_id"], each["right_id"]) for each in hadoop.rows(table))

    assert pairs("/cut/join") == pairs("/out/join") != []
