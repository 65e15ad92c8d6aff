"""Each job once on a Master and two Workers whose Python is that of the packed environment."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from cluster.every_job import STEPS, columns, job, pipeline
from cluster.processes import settings
from corpora import assert_close, manifest, vectors, write
from tiny_models import tiny_gpt2

ROWS = 40
ENVIRONMENT = "standalone"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write(tmp_path_factory.mktemp("corpus") / "in.parquet", **columns(ROWS))


@pytest.fixture(scope="module")
def ran(cluster, corpus, resnet, bert, tmp_path_factory):
    """Where a pipeline ran there, how its steps ended, by name, and what it said."""
    folder = tmp_path_factory.mktemp("ran")
    file = folder / "pipeline.yaml"
    file.write_text(json.dumps(pipeline(corpus, str(folder / "out"), resnet, bert)), "utf-8")
    given = ["jobs/pipeline.py", f"--config={file}"]
    _, log = cluster.submit(folder / "log", *given, EMBER_CACHE=str(folder / "cache"))
    out = folder / "out"
    there = (out / "pipeline").exists()
    steps = manifest(out / "pipeline")["steps"] if there else []
    return out, {each["name"]: each["outcome"] for each in steps}, log


@pytest.mark.parametrize("step", STEPS)
def test_a_job_runs_on_the_packed_environment(ran, record_property, step):
    record_property("environment", ENVIRONMENT)
    record_property("job", job(step))
    out, outcomes, log = ran
    assert outcomes.get(step) == "ran", log
    assert (out / step / "_manifest.json").is_file()


def test_what_comes_out_is_what_one_machine_computes(ran, corpus, resnet, tmp_path, embed_job):
    out, *_ = ran
    given = {"input__path": corpus, "input__id": "id", "input__content": "image"}
    given |= {"input__modality": "image", "model__name": resnet, "model__runtime": "openvino"}
    assert embed_job(**given, output__path=tmp_path / "here") == (0, "")
    ours, theirs = vectors(out / "embed", "id"), vectors(tmp_path / "here", "id")
    assert ours.keys() == theirs.keys()
    for key, vector in theirs.items():
        assert_close(ours[key], vector)
    pairs = pq.read_table(out / "join").to_pylist()
    copies = {(f"i{number:02}", f"i{number + 1:02}") for number in range(0, ROWS, 2)}
    assert copies <= {(pair["left_id"], pair["right_id"]) for pair in pairs}


def test_the_tasks_ran_in_the_archive_and_on_both_workers(
    cluster, corpus, tmp_path, record_property
):
    """`doctor` says where: no Python of this machine's, two executors, nothing that goes wrong."""
    record_property("environment", ENVIRONMENT)
    record_property("job", "doctor")
    places = [f"--set=inputs=[{corpus}]", f"--set=outputs=[{tmp_path}/made/out]"]
    own = f"--set=output.path={tmp_path}/doctor"
    code, log = cluster.submit(tmp_path / "log", "jobs/doctor.py", *places, own)
    assert code == 0, log
    told = manifest(tmp_path / "doctor")["cluster"]
    assert len({each["executor"] for each in told["executors"]}) == 2
    for each in told["executors"]:
        assert each["executable"].endswith("/environment/bin/python")
        assert "openvino" in each["packages"]
        assert "pyspark" not in each["packages"]  # which is the cluster's own
        assert each["source"] == told["driver"]["source"]


def test_executors_without_torch_say_so(cluster, corpus, tmp_path, record_property):
    record_property("environment", ENVIRONMENT)
    record_property("job", "describe")
    record_property("note", "ends with exit code 2: executors want torch, variant torch or gpu")
    (tmp_path / "gpt2").mkdir()
    given = {
        "input__path": corpus,
        "input__id": "id",
        "input__modality": "text",
        "input__content": "text",
        "model__name": f"hf:{tiny_gpt2(tmp_path / 'gpt2')}",
        "output__path": tmp_path / "out",
    }
    code, log = cluster.submit(tmp_path / "log", "jobs/describe.py", *settings(**given))
    assert code == 2, log
    assert "no module torch" in log
    assert not (tmp_path / "out").exists()


def test_two_executors_are_bound_to_the_gpus_of_their_workers(cluster, tmp_path):
    gpus = ["spark.executor.resource.gpu.amount=1", "spark.task.resource.gpu.amount=1"]
    given = [word for each in gpus for word in ("--conf", each)]
    code, log = cluster.submit(tmp_path / "log", *given, "tests/cluster/report_gpus.py")
    assert code == 0, log
    (line,) = (each for each in log.splitlines() if each.startswith("bound ["))
    bound = json.loads(line.removeprefix("bound "))
    assert sorted(gpu for _, gpu, _ in bound) == ["0", "1"]


def test_spark_itself_refuses_cluster_mode_for_python_on_standalone(cluster, corpus, tmp_path):
    """So the driver runs where spark-submit does; docs/cluster.md says what to do instead."""
    given = ["--deploy-mode", "cluster", "jobs/doctor.py"]
    code, log = cluster.submit(tmp_path / "log", *given)
    assert code != 0
    assert "not supported for python applications on standalone clusters" in log
