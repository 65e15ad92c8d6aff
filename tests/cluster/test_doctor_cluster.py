"""`doctor` on a cluster of two executors, as spark-submit runs it."""

from __future__ import annotations

import sys

import pytest

from cluster.processes import LOCAL_CLUSTER, PATIENCE, start
from corpora import leftovers, manifest, write_pictures


@pytest.fixture
def submit(tmp_path):
    def run(*given, **environment):
        process = start([*LOCAL_CLUSTER, *given], tmp_path / "log", **environment)
        return process.wait(PATIENCE), (tmp_path / "log").read_text()

    return run


def test_both_executors_are_asked_and_read_and_write(submit, tmp_path):
    corpus = write_pictures(tmp_path / "in.parquet", 3)
    places = [f"--set=inputs=[{corpus}]", f"--set=outputs=[{tmp_path}/a/out]"]
    code, log = submit("jobs/doctor.py", *places, f"--set=output.path={tmp_path}/doctor")
    assert code == 0, log
    told = manifest(tmp_path / "doctor")["cluster"]
    assert sorted(each["executor"] for each in told["executors"]) == ["0", "1"]
    assert len({each["process"] for each in told["executors"]} - {told["driver"]["process"]}) == 2
    assert {each["source"] for each in told["executors"]} == {told["driver"]["source"]}
    assert (told["known"], told["slots"], told["skews"]) == (2, 2, [0.0, 0.0])
    assert [each["problem"] for each in told["places"]] == ["", ""]
    assert leftovers(tmp_path) == ["doctor", "in.parquet", "log"]


def test_executors_without_ember_and_its_packages_are_told_of(submit, tmp_path):
    """Their Python is one without a site: not a package is there, and they answer all the same."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    code, log = submit("--conf", f"spark.pyspark.python={bare}", "jobs/doctor.py")
    assert code == 2, log
    assert "Ember is not installed" in log
    assert "not installed: pyarrow, numpy" in log
    assert "--archives" in log


def test_executors_that_never_come_are_told_of(submit):
    """More cores are asked for than a worker has: no task would ever run."""
    code, log = submit("--conf", "spark.executor.cores=3", "jobs/doctor.py", "--set=wait=8")
    assert code == 2, log
    assert "no task ended within 8 s" in log
    assert "spark.executor.cores" in log
