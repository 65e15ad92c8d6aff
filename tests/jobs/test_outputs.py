"""What jobs do to files that are there: neither inputs nor what others made is harmed."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.processes import start, stop, wait_for
from corpora import leftovers, manifest, rows, write, write_pictures


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their bytes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def vector_table(path: Path, count: int = 20) -> str:
    matrix = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    vectors = pa.array(list(matrix), pa.list_(pa.float32()))
    labels = pa.array([number % 2 for number in range(count)], pa.int32())
    ids = [f"i{number}" for number in range(count)]
    return write(path, id=ids, embedding=vectors, label=labels)


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder of a user's: tables, and files that no job is told of."""
    write_pictures(tmp_path / "data" / "corpus" / "a.parquet", 3)
    vector_table(tmp_path / "data" / "vectors" / "a.parquet")
    (tmp_path / "data" / "precious").write_text("mine")
    return tmp_path / "data"


HARM = {
    "embed": {"input__id": "image_id", "input__modality": "image"},
    "classify": {"input__id": "image_id", "input__modality": "image"},
    "dedup": {"input__id": "image_id", "input__modality": "image"},
    "search": {"queries__id": "id", "corpus__id": "id"},
    "join": {"left__id": "id", "threshold": 0.9},
    "map": {"input__id": "id"},
    "project": {"input__id": "id", "dimension": 2},
    "export": {"corpus__id": "id"},
    "train": {"labels__id": "id"},
}
READS = {
    "embed": "input__path",
    "classify": "input__path",
    "dedup": "input__path",
    "search": "corpus__path",
    "join": "left__path",
    "map": "input__path",
    "project": "input__path",
    "export": "corpus__path",
    "train": "labels__path",
}


@pytest.mark.parametrize("job", HARM)
def test_no_job_writes_over_in_or_above_what_it_reads(run_job, data, resnet, job):
    """Nor over what nobody of Ember's wrote; in no mode."""
    read = data / ("corpus" if job in ("embed", "classify", "dedup") else "vectors")
    settings = {**HARM[job], READS[job]: read}
    if job in ("embed", "classify"):
        settings["model__name"] = resnet
    if job == "search":
        settings["queries__path"] = data / "vectors" / "a.parquet"
    if job == "train":
        settings["features"] = f"[{{path: {read}, id: id}}]"
    before = contents(data)
    for output in (read, read / "out", data, f"{data}/x/../{read.name}", data / "precious"):
        for mode in ("overwrite", "fail"):
            code, message = run_job(job, **settings, output__path=output, output__mode=mode)
            assert (code, "Traceback" in message) == (2, False), message
    assert contents(data) == before
    assert leftovers(data) == ["corpus", "precious", "vectors"]


def test_groups_and_projections_harm_nothing_either(run_job, data, tmp_path):
    read, out = data / "vectors", tmp_path / "out"
    before = contents(data)
    join = {"left__path": read, "left__id": "id", "threshold": 0.9, "output__mode": "overwrite"}
    for groups in (read, data, out / "groups", out):
        code, message = run_job("join", **join, output__path=out, groups__path=groups)
        assert code == 2, message
        assert "groups.path" in message
    project = {"input__path": read, "input__id": "id", "dimension": 2}
    for save in (read, data / "precious", out, out / "p"):
        code, message = run_job("project", **project, output__path=out, save=save)
        assert code == 2, message
    assert contents(data) == before
    assert not out.exists()


def test_a_user_s_own_failures_and_staging_folders_are_left_alone(run_job, data, tmp_path, resnet):
    settings = {
        "input__path": data / "corpus",
        "input__id": "image_id",
        "input__modality": "image",
        "model__name": resnet,
        "output__path": tmp_path / "out",
        "output__mode": "overwrite",
    }
    for name in ("out.failures", "out.rejected", ".out.staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
        code, message = run_job("embed", **settings)
        assert code == 2
        assert name in message
        assert (tmp_path / name / "mine").read_text() == "mine"
        (tmp_path / name / "mine").unlink()
        (tmp_path / name).rmdir()


def test_an_output_behind_a_link_is_replaced_and_the_link_stays(run_job, data, tmp_path, resnet):
    settings = {
        "input__path": data / "corpus",
        "input__id": "image_id",
        "input__modality": "image",
        "model__name": resnet,
        "output__mode": "overwrite",
    }
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run_job("embed", **settings, output__path=tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert sorted(rows(tmp_path / "real", "image_id")) == sorted(rows(data / "corpus", "image_id"))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    code, message = run_job("embed", **settings, output__path=tmp_path / "link")
    assert code == 2
    assert "is a link to" in message


KILLED_AFTER_EXCHANGE = """
import os, signal, sys
from ember.spark.storage import Storage
real = Storage.exchange
def exchange(self, one, other):
    done = real(self, one, other)
    os.kill(os.getpid(), signal.SIGKILL)
    return done
Storage.exchange = exchange
from ember.jobs.embed import main
sys.exit(main(sys.argv[1:]))
"""


def test_killed_right_after_the_exchange_an_old_table_s_rows_are_never_taken_for_new(
    run_job, tmp_path, bert
):
    """Seen: old vectors of layer mean under a manifest that says cls."""
    corpus = write(tmp_path / "in.parquet", id=["a", "b"], content=["some words", "others"])
    out = tmp_path / "work" / "out"
    settings = {
        "input__path": corpus,
        "input__id": "id",
        "input__modality": "text",
        "model__name": bert,
        "output__path": out,
    }
    assert run_job("embed", **settings, model__layer="mean")[0] == 0
    mean = {key: row["embedding"] for key, row in rows(out, "id").items()}
    given = {**settings, "model__layer": "cls", "output__mode": "overwrite"}
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(KILLED_AFTER_EXCHANGE))
    pairs = [f"--set={key.replace('__', '.')}={value}" for key, value in given.items()]
    process = start([sys.executable, str(script), *pairs], tmp_path / "log")
    assert process.wait(600) == -signal.SIGKILL, (tmp_path / "log").read_text()
    stop(process)
    assert manifest(out)["model"]["layer"] == "cls"
    killed = {key: row["embedding"] for key, row in rows(out, "id").items()}
    assert killed != mean
    assert run_job("embed", **{**given, "output__mode": "resume"})[0] == 0
    assert {key: row["embedding"] for key, row in rows(out, "id").items()} == killed
    assert manifest(out)["counts"]["reused"] == 2
    assert leftovers(out.parent) == ["out"]


def test_a_second_run_on_one_output_is_refused_with_the_name_of_the_first(
    run_job, tmp_path, resnet
):
    out = tmp_path / "work" / "out"
    settings = {
        "input__path": write_pictures(tmp_path / "in.parquet", 60),
        "input__id": "image_id",
        "input__modality": "image",
        "model__name": resnet,
        "output__path": out,
        "output__mode": "overwrite",
        "limits__rows_per_task": 5,
    }
    pairs = [f"--set={key.replace('__', '.')}={value}" for key, value in settings.items()]
    command = ["python", "jobs/embed.py", *pairs, "--run-id=first"]
    process = start(command, tmp_path / "log")
    try:
        places = ".out.staging/*/attempt.json"
        wait_for(lambda: any(file.read_text() for file in out.parent.glob(places)), process)
        os.kill(process.pid, signal.SIGSTOP)
        for mode in ("overwrite", "resume", "fail"):
            code, message = run_job("embed", **{**settings, "output__mode": mode})
            assert (code, "run first is writing" in message) == (2, True), message
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(600) == 0, (tmp_path / "log").read_text()
    finally:
        stop(process)
    assert manifest(out)["run_id"] == "first"
    assert len(pq.read_table(out)) == 60
    assert leftovers(out.parent) == ["out"]


TABLES = {
    "embed": {"input__path": "corpus", "input__id": "image_id", "input__modality": "image"},
    "join": {"left__path": "vectors", "left__id": "id", "threshold": -1},
    "export": {"corpus__path": "vectors", "corpus__id": "id"},
    "train": {"labels__path": "vectors", "labels__id": "id"},
}


@pytest.fixture
def write_output(run_job, data, resnet, tmp_path):
    """Run a job of `TABLES` into the folder `work/out`; its exit code and error."""

    def run(job: str, **settings) -> tuple[int, str]:
        given = {**TABLES[job], "output__path": tmp_path / "work" / "out"}
        for key in [key for key in given if key.endswith("__path") and key != "output__path"]:
            given[key] = data / given[key]
        if job == "embed":
            given["model__name"] = resnet
        if job == "train":
            given["features"] = f"[{{path: {data}/vectors, id: id}}]"
        return run_job(job, **{**given, **settings})

    return run


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("embed", "part-mine.parquet"),
        ("join", "notes.txt"),
        ("export", "mine/notes.txt"),
        ("train", ".mine"),
    ],
)
def test_what_somebody_put_into_an_output_is_named_and_not_taken_along(
    write_output, tmp_path, job, name
):
    out = tmp_path / "work" / "out"
    assert write_output(job) == (0, "")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = contents(out)
    for mode in ("overwrite", "resume") if job in ("embed", "join") else ("overwrite",):
        code, message = write_output(job, output__mode=mode)
        assert (code, f"{out}/{name} was not written by Ember" in message) == (2, True), message
        assert contents(out) == before
    (out / name).unlink()
    assert write_output(job, output__mode="overwrite") == (0, "")
    assert leftovers(out.parent)[0] == "out"


def test_failed_rows_that_somebody_has_added_to_are_not_replaced(write_output, tmp_path, data):
    write(data / "corpus" / "bad.parquet", image_id=["bad"], content=[b"no picture"])
    kept = tmp_path / "work" / "out.failures"
    assert write_output("embed")[0] == 3
    (kept / "notes.txt").write_text("mine")
    for settings in ({}, {"limits__max_failed_fraction": 1}):
        code, message = write_output("embed", **settings)
        assert (code, f"{kept}/notes.txt exists and was not written" in message) == (2, True)
        assert (kept / "notes.txt").read_text() == "mine"
    (kept / "notes.txt").unlink()
    assert write_output("embed")[0] == 3  # Ember's own are replaced
    assert write_output("embed", limits__max_failed_fraction=1)[0] == 0
    assert leftovers(kept.parent) == ["out"]


def a_part(out: Path) -> Path:
    return max(out.glob("part-*.parquet"), key=lambda file: len(pq.read_table(file)))


@pytest.mark.parametrize("job", ["embed", "join"])
def test_rows_deleted_by_hand_are_made_again_by_a_run_that_resumes(write_output, tmp_path, job):
    """Seen: a join with a part less was there already, and said nothing."""
    out = tmp_path / "work" / "out"
    settings = {"limits__rows_per_task": 1} if job == "embed" else {}
    assert write_output(job, **settings, output__mode="resume") == (0, "")
    whole = pq.read_table(out).num_rows
    assert whole == (3 if job == "embed" else 190)
    a_part(out).unlink()
    assert pq.read_table(out).num_rows < whole
    assert write_output(job, **settings, output__mode="resume")[0] == 0
    assert pq.read_table(out).num_rows == whole
    for part in out.glob("part-*.parquet"):
        part.unlink()
    assert write_output(job, **settings, output__mode="resume")[0] == 0
    assert pq.read_table(out).num_rows == whole


@pytest.mark.parametrize("job", ["embed", "join"])
def test_rows_cut_from_a_file_by_hand_are_made_again(write_output, tmp_path, job):
    out = tmp_path / "work" / "out"
    assert write_output(job) == (0, "")
    whole = pq.read_table(out).num_rows
    part = a_part(out)
    table = pq.read_table(part)
    part.with_name(f".{part.name}.crc").unlink()
    pq.write_table(table.slice(0, 1), part)
    assert write_output(job, output__mode="resume")[0] == 0
    assert pq.read_table(out).num_rows == whole


def test_groups_that_are_gone_are_made_again_of_the_pairs_that_are_there(write_output, tmp_path):
    out, groups = tmp_path / "work" / "out", tmp_path / "work" / "groups"
    settings = {"groups__path": groups, "output__mode": "resume"}
    assert write_output("join", **settings)[0] == 0
    was, pairs = rows(groups, "id"), manifest(out)["run_id"]
    counted = manifest(groups)["counts"]
    for gone in ("all", "a part"):
        if gone == "all":
            shutil.rmtree(groups)
        else:
            a_part(groups).unlink()
        assert write_output("join", **settings)[0] == 0
        assert rows(groups, "id") == was
        assert manifest(groups)["counts"] == counted
        assert manifest(out)["run_id"] == pairs
        assert leftovers(out.parent) == ["groups", "out"]
