"""`doctor` on a cluster that is not sound: executors that lack everything, or never come."""

from __future__ import annotations

import sys

import pytest

ENVIRONMENT = "standalone"


@pytest.fixture(autouse=True)
def noted(record_property):
    record_property("environment", ENVIRONMENT)
    record_property("job", "doctor")


def test_executors_without_ember_and_its_packages_are_told_of(cluster, tmp_path):
    """Their Python is one without a site: not a package is there, and they answer all the same."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    given = ["--conf", f"spark.pyspark.python={bare}", "jobs/doctor.py"]
    code, log = cluster.submit(tmp_path / "log", *given)
    assert code == 2, log
    assert "Ember is not installed" in log
    assert "not installed: pyarrow, numpy" in log
    assert "--archives" in log


def test_executors_that_never_come_are_told_of(cluster, tmp_path):
    """More cores are asked for than a worker has: no task would ever run."""
    given = ["--conf", "spark.executor.cores=3", "jobs/doctor.py", "--set=wait=8"]
    code, log = cluster.submit(tmp_path / "log", *given)
    assert code == 2, log
    assert "no task ended within 8 s" in log
    assert "spark.executor.cores" in log
