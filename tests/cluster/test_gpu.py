"""GPU scheduling without a GPU: a discovery script that claims two."""

from __future__ import annotations

import json

import pytest

from cluster.processes import PATIENCE, settings, start
from corpora import write_pictures


@pytest.fixture
def submit(tmp_path):
    script = tmp_path / "discover"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0", "1"]}\'\n')
    script.chmod(0o755)
    conf = {
        "spark.worker.resource.gpu.amount": "2",
        "spark.worker.resource.gpu.discoveryScript": str(script),
        "spark.executor.resource.gpu.amount": "2",
        "spark.task.resource.gpu.amount": "1",
    }

    def run(*command, **overrides):
        merged = {**conf, **{key.replace("__", "."): value for key, value in overrides.items()}}
        pairs = [f"--conf={key}={value}" for key, value in merged.items() if value]
        master = ["--master", "local-cluster[1,2,1024]"]
        process = start(["spark-submit", *master, *pairs, *command], tmp_path / "log")
        return process.wait(PATIENCE), (tmp_path / "log").read_text()

    return run


def test_two_workers_are_bound_to_the_two_addresses(submit):
    code, log = submit("tests/cluster/report_gpus.py")
    assert code == 0, log
    (line,) = (each for each in log.splitlines() if each.startswith("bound ["))
    bound = json.loads(line.removeprefix("bound "))
    assert sorted(gpu for _, gpu, _ in bound) == ["0", "1"]
    assert {device for device, _, _ in bound} == {"cuda"}
    assert len({pid for _, _, pid in bound}) == 2


def test_a_gpu_that_is_not_there_is_exit_code_4_not_a_run_on_the_cpu(submit, tmp_path, resnet):
    given = settings(
        input__path=write_pictures(tmp_path / "in.parquet", 3),
        input__id="image_id",
        input__modality="image",
        model__name=resnet,
        output__path=tmp_path / "work" / "out",
    )
    code, log = submit("jobs/embed.py", *given)
    assert code == 4, log
    assert "ember embed: Spark assigned GPU 0" in log
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("amount", "words"),
    [("0.5", "lets 2 tasks share a GPU"), (None, "spark.task.resource.gpu.amount is not set")],
)
def test_a_configuration_that_wastes_or_overloads_gpus_is_explained(amount, words, monkeypatch):
    from ember.errors import InvalidConfig
    from ember.spark import classic, gpu

    conf = {"spark.executor.resource.gpu.amount": "1"}
    conf |= {"spark.task.resource.gpu.amount": amount} if amount else {}
    monkeypatch.setattr(classic, "setting", lambda _, key: conf.get(key, ""))
    with pytest.raises(InvalidConfig, match=words):
        gpu.check(None)
