"""The job `doctor` on the suite's session: what it finds, tries, leaves behind and ends with."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version

import pytest

from corpora import leftovers, manifest, write_pictures
from ember.diagnosis.gathering import Silence, within
from ember.jobs import doctor
from ember.spark import classic


def test_a_sound_session_is_looked_at_and_nothing_is_left(spark, tmp_path, resnet, capsys):
    """Of a run to be: its input is read, its output tried, its model held against the machine."""
    corpus = write_pictures(tmp_path / "data" / "in.parquet", 3)
    keys = {
        "step.job": "embed",
        "step.input": f"{{path: {corpus}, id: image_id, modality: image}}",
        "step.model": f"{{name: '{resnet}', runtime: openvino}}",
        "step.output.path": tmp_path / "made" / "by" / "out",
        "output.path": tmp_path / "doctor",
    }
    assert doctor.main([f"--set={key}={value}" for key, value in keys.items()]) == 0
    page = capsys.readouterr().out
    told = manifest(tmp_path / "doctor")
    places = told["cluster"]["places"]
    assert [(each["use"], each["problem"]) for each in places] == [("read", ""), ("write", "")]
    assert leftovers(tmp_path) == ["data", "doctor"]

    cluster = told["cluster"]
    assert cluster["need"]["weights"] > 1000
    (worker,) = cluster["executors"]
    here = {"python": sys.version.split()[0], "executable": sys.executable}
    assert here.items() <= worker.items()
    assert worker["packages"]["numpy"] == version("numpy")
    assert worker["imports"] == {"openvino": ""}
    assert worker["source"] == cluster["driver"]["source"] != ""
    assert worker["cores"] == len(os.sched_getaffinity(0))
    assert (cluster["known"], cluster["slots"]) == (0, 2)
    assert {each["severity"] for each in told["findings"]} <= {"warning", "note"}
    assert f"numpy {version('numpy')}" in page
    assert "will go wrong:" not in page


def test_what_will_go_wrong_is_exit_code_2_and_a_dry_run_writes_nothing(run_job, tmp_path):
    locked = tmp_path / "file"
    locked.write_text("mine")
    code, err = run_job(
        "doctor",
        inputs=f"[{tmp_path}/none-*.parquet, nosuch://host/a]",
        outputs=f"[{locked}/out]",
    )
    assert code == 2
    assert "3 things will go wrong here; the first" in err
    assert f"{tmp_path}/none-*.parquet: cannot be read: there is no file" in err
    assert leftovers(tmp_path) == ["file"]
    settings = {"outputs": f"[{tmp_path}/new/out]", "output__path": tmp_path / "doctor"}
    assert run_job("doctor", "--dry-run", **settings) == (0, "")
    assert leftovers(tmp_path) == ["file"]


def test_a_step_is_checked_as_its_job_would(run_job):
    code, err = run_job("doctor", step__job="embed", step__inputt="x")
    assert code == 2
    assert "inputt" in err


def test_tasks_that_do_not_end_in_time_are_stopped(spark):
    """As where no executor comes. The session runs other jobs afterwards."""

    def sleep(_):
        time.sleep(30)
        yield 1

    with pytest.raises(Silence, match=r"no task ended within 0\.5 s"):
        within(spark, 0.5, lambda: classic.run_in_tasks(spark, 1, sleep))
    with pytest.raises(Silence, match="tasks fail: ZeroDivisionError: division by zero"):
        within(spark, 60, lambda: classic.run_in_tasks(spark, 1, lambda rows: iter([1 / 0])))
    assert within(spark, 60, lambda: classic.run_in_tasks(spark, 2, lambda rows: [1])) == [1, 1]
