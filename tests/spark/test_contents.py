"""What is in an output: whose it is, what is gone, what is not as it was written; no Spark."""

from __future__ import annotations

import json

import pytest

from ember.spark import contents
from ember.spark.staged_files import read_manifest
from staging_world import Disk, job

NAMES = ["part-0", "_SUCCESS", "figures/part-0", "_pictures/a.png", "report.html"]
LEFT_OUT = ["_SUCCESS", ".part-0.crc", "figures/.part-0.crc", "figures/_SUCCESS"]
STRANGE = ["notes.txt", "part-1", "mine/a.parquet", "_pictures/b.png", ".hidden", "figures/_x"]


@pytest.fixture
def output(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = contents.noted(Disk(), str(tmp_path))
    (tmp_path / "_manifest.json").write_text(json.dumps({"files": files}))
    return tmp_path


def asked(question, output, manifest=None):
    return question(Disk(), str(output), manifest or read_manifest(Disk(), str(output)))


def test_what_a_run_has_put_there_is_its_own_with_the_marks_that_spark_leaves(output):
    for name in LEFT_OUT:
        (output / name).write_text("")
    (output / "empty").mkdir()
    assert sorted(read_manifest(Disk(), str(output))["files"]) == sorted(NAMES)
    assert [asked(ask, output) for ask in (contents.foreign, contents.lacking)] == [None, None]


@pytest.mark.parametrize("name", STRANGE)
def test_anything_else_is_somebody_s(output, name):
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_text("mine")
    assert asked(contents.foreign, output) == name


def test_where_a_manifest_names_no_files_their_own_names_tell(output):
    old = {"job": "search"}
    (output / "report.html").unlink()
    assert asked(contents.foreign, output, old) is None
    assert "files" in asked(contents.lacking, output, old)
    (output / "a.parquet").write_text("mine")
    assert asked(contents.foreign, output, old) == "a.parquet"


@pytest.mark.parametrize("name", NAMES)
def test_of_rows_and_models_each_file_is_missed_and_of_pages_and_marks_none(output, name):
    counts = not name.startswith("_")
    (output / name).write_text("another")
    assert asked(contents.altered, output) == (name if counts else None)
    assert asked(contents.lacking, output) is None
    (output / name).unlink()
    assert asked(contents.altered, output) is None
    assert asked(contents.lacking, output) == (name if counts else None)


def test_a_table_that_lacks_a_file_or_has_one_written_over_is_not_finished(tmp_path):
    assert job(tmp_path, "fail", "mean").finish() == "published"
    (part,) = (tmp_path / "out").glob("part-b-*")
    written = part.read_text()
    assert job(tmp_path, "resume", "mean").staging_alone().is_finished()
    part.write_text(json.dumps({"b": "mean", "z": "mean"}))
    assert not job(tmp_path, "resume", "mean").staging_alone().is_finished()
    part.unlink()
    assert not job(tmp_path, "resume", "mean").staging_alone().is_finished()
    assert job(tmp_path, "resume", "mean").finish() == "published"
    (again,) = (tmp_path / "out").glob("part-b-*")
    assert again.read_text() == written
