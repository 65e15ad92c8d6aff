"""The script for cron, with another program for spark-submit; for Airflow see tests/schedules."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from ember.jobs.pipeline import JOBS
from ember.settings.config_keys import keys_of, walk

CONF = Path(__file__).parent.parent / "conf"
SCRIPT = CONF / "submit" / "nightly.sh"


def nightly(folder, *codes, **more):
    """Run it where the job ends with one code after the other; its code, and what it was given."""
    script = folder / "submit"
    script.write_text(
        f"#!/bin/sh\ncd {folder}\nn=$(ls call-* 2>/dev/null | wc -l)\n"
        'printf "%s\\n" "$@" >call-$n\n'
        f"set -- {' '.join(map(str, codes))}\nshift $n\nexit $1\n"
    )
    script.chmod(0o755)
    given = {"SUBMIT": str(script), "LOCK": str(folder / "lock"), "PAUSE": "0", "ROOT": "out"}
    ran = subprocess.run([SCRIPT, "--dry-run"], env=os.environ | given | more, check=False)
    calls = [file.read_text().splitlines() for file in sorted(folder.glob("call-*"))]
    return ran.returncode, calls


def test_a_run_that_was_killed_is_tried_again_with_a_run_id_of_its_own(tmp_path):
    code, calls = nightly(tmp_path, 137, 1, 0, DAY="2026-11-10")
    assert code == 0
    ids = [call[call.index("--run-id") + 1] for call in calls]
    assert ids == [f"nightly-2026-11-10-{attempt}" for attempt in (1, 2, 3)]
    where = "input.where=created >= DATE'2026-11-10' AND created < date_add(DATE'2026-11-10', 1)"
    for call in calls:
        assert {where, "output.path=out/embeddings/day=2026-11-10", "output.mode=resume"} <= {*call}
        assert call[-1] == "--dry-run"


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_what_would_end_in_the_same_way_is_not_tried_again(tmp_path, code):
    ended, calls = nightly(tmp_path, code, 0)
    assert (ended, len(calls)) == (code, 1)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert f"output.path=out/embeddings/day={yesterday:%F}" in calls[0]


def test_three_tries_are_all(tmp_path):
    code, calls = nightly(tmp_path, 1, 1, 137, 0)
    assert (code, len(calls)) == (137, 3)


def test_the_tasks_of_the_dag_set_keys_that_their_jobs_have(monkeypatch):
    operators = MagicMock()
    for name in ("airflow.sdk", "airflow.providers.apache.spark.operators.spark_submit"):
        module = ModuleType(name)
        for each in ("DAG", "CronDataIntervalTimetable", "SparkSubmitOperator"):
            setattr(module, each, operators if each == "SparkSubmitOperator" else MagicMock())
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(CONF / "airflow" / "ember_nightly.py"))
    tasks = [call.kwargs for call in operators.call_args_list]
    assert [task["task_id"] for task in tasks] == ["embed", "classify", "evaluate"]
    for task in tasks:
        job = task["task_id"]
        assert task["application"] == f"{{{{ var.value.ember }}}}/{job}.py"
        known = {key.name for key in walk(keys_of(JOBS[job][0]))}
        given = re.findall(r"--set=([\w.]+)=", "\n".join(task["application_args"]))
        assert given
        assert {*given} <= known
