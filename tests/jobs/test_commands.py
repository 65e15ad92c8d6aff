"""The ways to run a job, as a user types them; `python jobs/…` is what tests/cluster kills."""

from __future__ import annotations

import subprocess

from cluster.processes import BIN, ROOT, environment, settings
from corpora import manifest, vectors, write_pictures


def run(command, **extra):
    command = [str(BIN / command[0]), *command[1:]]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**extra), capture_output=True, text=True, check=False
    )


def test_spark_submit_writes_the_table_and_refuses_to_write_it_twice(tmp_path, resnet):
    given = settings(
        input__path=write_pictures(tmp_path / "in.parquet", 10),
        input__id="image_id",
        model__name=resnet,
        output__path=tmp_path / "out",
        input__modality="image",
    )
    command = ["spark-submit", "jobs/embed.py", "--config", "conf/embed_images.yaml", *given]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert len(vectors(tmp_path / "out", "image_id")) == 10
    assert "10 rows" in done.stdout
    again = run(command)  # spark-submit has an exit code of its own to pass on
    assert again.returncode == 2
    said = again.stdout + again.stderr  # and puts both streams of its program on stdout
    assert "exists; set output.mode" in said
    assert "Traceback" not in said


def test_the_console_script_starts_a_session_that_a_properties_file_decides(tmp_path, resnet):
    (tmp_path / "spark-defaults.conf").write_text(
        "# a comment\n\nspark.master local[1]\nspark.driver.memory=600m\n"
        "spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1\n"
    )
    given = settings(
        input__path=write_pictures(tmp_path / "in.parquet", 3),
        input__id="image_id",
        input__modality="image",
        model__name=resnet,
        output__path=tmp_path / "out",
    )
    done = run(["ember", "embed", *given], SPARK_CONF_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "3 rows" in done.stdout
    assert manifest(tmp_path / "out")["spark"]["master"] == "local[1]"


def test_an_unknown_job_shows_the_usage():
    done = run(["ember", "embde"])
    assert done.returncode == 2
    assert "usage: ember {classify,describe,embed," in done.stderr
