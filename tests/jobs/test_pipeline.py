"""The pipeline job: what runs, what is skipped, what stops it, and what stays."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corpora import leftovers, manifest, picture, vectors, write
from ember.jobs import pipeline
from ember.settings.comparison import ProjectConfig
from ember.settings.outputs import OutputConfig
from ember.spark.publish import Output


class Resumable(ProjectConfig):
    """As `project` would be, if it could be resumed."""

    output: OutputConfig


PREDICTIONS = pa.list_(
    pa.struct([("index", pa.int32()), ("label", pa.string()), ("score", pa.float32())])
)


@pytest.fixture(autouse=True)
def told(caplog, monkeypatch):
    """What is logged goes to the test, too; the job sets its logger up anew for every run."""
    monkeypatch.setattr(pipeline.job, "log_as", lambda run_id: None)
    # Tests before this one have left their own handler there.
    monkeypatch.setattr(logging.getLogger("ember"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("ember"), "propagate", True)
    caplog.set_level(logging.INFO, "ember.pipeline")
    return caplog


def vector_table(path: Path, first: int, count: int = 20) -> None:
    matrix = np.random.default_rng(first).normal(size=(count, 6)).astype(np.float32)
    ids = list(range(first, first + count))
    write(path, id=ids, embedding=pa.array(list(matrix), pa.list_(pa.float32())))


def truth_tables(folder: Path) -> None:
    given = [[{"index": n % 2, "label": "ab"[n % 2], "score": 0.9}] for n in range(10)]
    write(folder / "p.parquet", id=list(range(10)), predictions=pa.array(given, PREDICTIONS))
    labels = ["ab"[n % 2] if n else "b" for n in range(10)]  # one of ten is wrong
    write(folder / "t.parquet", id=list(range(10)), label=labels)


STEPS = {
    "shrink": {
        "job": "project",
        "input": {"path": "$data/e", "id": "id"},
        "dimension": 3,
        "output": {"path": "$out/shrunk"},
    },
    "other": {
        "job": "export",
        "corpus": {"path": "$data/f.parquet", "id": "id"},
        "output": {"path": "$out/other"},
    },
    "index": {
        "job": "export",
        "corpus": {"path": "$shrink", "id": "id"},
        "metric": "inner_product",
        "output": {"path": "$out/index"},
    },
}

JUDGE = {
    "job": "evaluate",
    "kind": "classification",
    "predictions": {"path": "$data/p.parquet", "id": "id"},
    "truth": {"path": "$data/t.parquet"},
    "bootstrap": 0,
    "report": False,
    "output": {"path": "$out/judged"},
}


@pytest.fixture
def chain(run_job, tmp_path):
    """Run a pipeline of the steps above; its exit code, its error, what became of each step."""
    vector_table(tmp_path / "e" / "one.parquet", 0)
    vector_table(tmp_path / "f.parquet", 0)
    file = tmp_path / "pipeline.yaml"

    def run(*flags, steps=STEPS, **settings):
        values = {"vars": {"data": str(tmp_path), "out": f"{tmp_path}/out"}, "steps": steps}
        values |= {"output": {"path": "$out/all"}, "report": False}
        file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
        code, error = run_job("pipeline", f"--config={file}", *flags, **settings)
        path = tmp_path / "out" / "all" / "_manifest.json"
        done = json.loads(path.read_text())["steps"] if path.exists() else []
        return code, error, {step["name"]: step["outcome"] for step in done}

    return run


def test_what_is_up_to_date_is_skipped_and_what_changed_is_said(chain, tmp_path, told):
    out = tmp_path / "out"
    assert chain("--dry-run")[0] == 0
    assert not out.exists()
    ran = dict.fromkeys(STEPS, "ran")
    code, error, outcomes = chain("--run-id=one")
    assert error == ""
    assert code == 0
    assert outcomes == ran
    assert leftovers(out) == ["all", "index", "other", "shrunk", "shrunk.projection"]
    assert {manifest(out / name)["run_id"] for name in ("shrunk", "other", "index")} == {
        "one-shrink",
        "one-other",
        "one-index",
    }
    overall = manifest(out / "all")
    assert (overall["run_id"], overall["job"]) == ("one", "pipeline")
    assert overall["steps"][2]["needs"] == ["shrink"]
    assert overall["steps"][2]["run_id"] == "one-index"

    fresh = dict.fromkeys(STEPS, "up to date")
    code, error, outcomes = chain("--run-id=two")
    assert error == ""
    assert code == 0
    assert outcomes == fresh
    assert manifest(out / "shrunk")["run_id"] == "one-shrink"
    assert manifest(out / "all")["steps"][0]["run_id"] == "one-shrink"

    vector_table(tmp_path / "e" / "two.parquet", 100)
    told.clear()
    code, error, outcomes = chain("--run-id=three")
    assert error == ""
    assert code == 0
    assert outcomes == {**ran, "other": "up to date"}
    assert "shrink (project) runs because input.path changed: 1 file more" in told.text
    assert "index (export) runs because corpus.path changed: 1 file more" in told.text
    assert len(pq.read_table(out / "shrunk")) == 40
    assert len(pq.read_table(out / "index" / "ids.parquet")) == 40


def test_a_failed_step_stops_the_rest_and_the_next_run_goes_on_from_there(chain, tmp_path):
    truth_tables(tmp_path)
    last = {**STEPS["other"], "output": {"path": "$out/last"}}
    steps = {"first": STEPS["other"], "judge": JUDGE, "last": last}
    code, error, done = chain(steps=steps, steps__judge__require="{accuracy: 0.95}")
    assert code == 5
    assert error.startswith(
        "ember pipeline: step judge (evaluate): accuracy is 0.9, below the required 0.95."
    )
    assert done == {"first": "ran", "judge": "failed", "last": "not run"}
    assert manifest(tmp_path / "out" / "judged")["unmet"]  # published all the same
    assert not (tmp_path / "out" / "last").exists()
    failed = manifest(tmp_path / "out" / "all")["steps"][1]
    assert failed["why"] in error
    code, _, done = chain(steps=steps)
    assert (code, done) == (0, {"first": "up to date", "judge": "ran", "last": "ran"})


def publish_manifest(run):
    """The least that a job does."""
    output = Output(run.spark, run.config.output.path, run.config.output.mode, {})
    with output.attempt():
        output.publish(run.manifest())


def test_a_run_that_ends_between_steps_is_taken_up(chain, tmp_path, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    kinds = {job: pipeline.JOBS[job][0] for job in ("project", "export")}
    steps = {name: STEPS[name] for name in ("shrink", "index")}
    monkeypatch.setitem(pipeline.JOBS, "project", (kinds["project"], publish_manifest))
    monkeypatch.setitem(pipeline.JOBS, "export", (kinds["export"], interrupted))
    assert chain("--run-id=one", steps=steps)[0] == 130
    assert not (tmp_path / "out" / "all").exists()
    monkeypatch.setitem(pipeline.JOBS, "export", (kinds["export"], publish_manifest))
    done = {"shrink": "up to date", "index": "ran"}
    assert chain("--run-id=two", "--set=report=true", steps=steps) == (0, "", done)
    assert manifest(tmp_path / "out" / "shrunk")["run_id"] == "one-shrink"
    page = (tmp_path / "out" / "all" / "report.html").read_text("utf-8")
    assert "shrink" in page
    assert "its output is not there yet" in page  # why index ran


def test_a_step_killed_between_two_outputs_replaces_its_own(chain, monkeypatch):
    modes = []

    def body(run):
        modes.append(run.config.output.mode)
        groups = Output(run.spark, run.config.groups.path, run.config.output.mode, {})
        with groups.attempt():
            groups.publish(run.manifest())
        if len(modes) == 1:
            raise KeyboardInterrupt
        publish_manifest(run)

    monkeypatch.setitem(pipeline.JOBS, "join", (pipeline.JOBS["join"][0], body))
    pairs = {"job": "join", "left": {"path": "$data/e", "id": "id"}, "threshold": 0.9}
    pairs |= {"groups": {"path": "$out/groups"}, "output": {"path": "$out/pairs"}}
    assert chain(steps={"pairs": pairs})[0] == 130
    code, error, ran = chain(steps={"pairs": pairs})
    assert error == ""
    assert code == 0
    assert ran == {"pairs": "ran"}
    assert modes == ["fail", "overwrite"]
    assert chain(steps={"pairs": pairs})[2] == {"pairs": "up to date"}


def test_what_another_has_written_is_left_alone_unless_the_mode_says_overwrite(chain, tmp_path):
    index = {"index": {**STEPS["index"], "corpus": {"path": "$data/e", "id": "id"}}}
    write(tmp_path / "out" / "index" / "a.parquet", precious=[1])
    for mode in ("fail", "overwrite"):  # no mode replaces what no job of Ember's wrote
        code, error, done = chain(steps=index, steps__index__output__mode=mode)
        assert (code, done) == (2, {})
        assert "steps.index.output.path: " in error
        assert "exists and was not written by Ember" in error
        assert pq.read_table(tmp_path / "out" / "index").column_names == ["precious"]
    (tmp_path / "out" / "index" / "_manifest.json").write_text('{"job": "export"}')
    code, error, done = chain(steps=index)
    assert (code, done) == (2, {})
    assert "steps.index.output.path: " in error
    assert "exists and was not written by this step; give another path, or set its" in error
    assert pq.read_table(tmp_path / "out" / "index").column_names == ["precious"]
    code, error, done = chain(steps=index, steps__index__output__mode="overwrite")
    assert (code, done) == (2, {})  # what is in it is not what an export puts there
    assert f"{tmp_path}/out/index/a.parquet was not written by Ember" in error
    assert pq.read_table(tmp_path / "out" / "index").column_names == ["precious"]
    (tmp_path / "out" / "index" / "a.parquet").unlink()
    code, _, done = chain(steps=index, steps__index__output__mode="overwrite")
    assert (code, done) == (0, {"index": "ran"})
    assert chain(steps=index)[2] == {"index": "up to date"}  # the mode decides nothing then

    (tmp_path / "out" / "all" / "_manifest.json").unlink()  # nor is its own folder known to be so
    code, error, _ = chain(steps=index)
    assert code == 2
    assert "/out/all exists and was not written by a pipeline" in error


def test_a_step_of_another_pipeline_is_not_replaced_and_one_through_a_link_is_up_to_date(
    chain, tmp_path
):
    """Seen: a step of the same name and job of another pipeline was replaced in mode fail."""
    steps = {"other": STEPS["other"]}
    assert chain(steps=steps)[2] == {"other": "ran"}
    (tmp_path / "link").symlink_to(tmp_path / "out")
    through = {"vars__out": f"{tmp_path}/link"}
    assert chain(steps=steps, **through) == (0, "", {"other": "up to date"})
    run = manifest(tmp_path / "out" / "other")["run_id"]
    other = {"steps": steps, "output__path": f"{tmp_path}/another"}
    code, error, _ = chain(**other, steps__other__metric="inner_product")
    assert code == 2
    assert "exists and was not written by this step" in error
    assert not (tmp_path / "another").exists()
    code, error, _ = chain(**other, **through)  # nor taken for up to date
    assert code == 2
    assert manifest(tmp_path / "out" / "other")["run_id"] == run
    assert chain(**other, steps__other__output__mode="overwrite")[0] == 0
    assert manifest(tmp_path / "out" / "other")["run_id"] != run


def test_a_step_whose_files_are_gone_runs_again_and_one_with_others_in_it_is_left(
    chain, tmp_path, told
):
    steps = {"other": STEPS["other"]}
    assert chain(steps=steps)[2] == {"other": "ran"}
    out = tmp_path / "out" / "other"
    (out / "ids.parquet").unlink()
    told.clear()
    assert chain(steps=steps)[2] == {"other": "ran"}
    assert "other (export) runs because ids.parquet of output.path is gone" in told.text
    (out / "notes.txt").write_text("mine")
    assert chain(steps=steps)[2] == {"other": "up to date"}
    code, error, _ = chain(steps=steps, steps__other__metric="inner_product")
    assert code == 2
    assert "notes.txt was not written by Ember" in error
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "all" / "notes.txt").write_text("mine")  # known before any step runs
    code, error, _ = chain(steps=steps)
    assert (code, "all/notes.txt was not written by Ember" in error) == (2, True)


def test_nothing_runs_when_a_step_lacks_its_input_or_a_key_is_wrong(chain, tmp_path):
    code, error, _ = chain(steps__other__corpus__path="none", steps__index__corpus__path="$data/*x")
    assert code == 2
    assert "steps.other.corpus.path: there is nothing at none\n" in error
    assert f"steps.index.corpus.path: there is nothing at {tmp_path}/*x" in error
    code, error, _ = chain(steps__index__metrics="cosine")
    assert code == 2
    assert "unknown key steps.index.metrics (did you mean metric?)" in error
    assert not (tmp_path / "out").exists()


def test_a_resumed_step_keeps_the_rows_it_has_done(chain, resnet, tmp_path):
    data, out = tmp_path / "in", tmp_path / "out" / "vectors"
    write(data / "1.parquet", id=["a", "b"], content=[picture(1), picture(2)])
    embed = {
        "job": "embed",
        "input": {"path": "$data/in", "id": "id", "modality": "image"},
        "model": {"name": resnet},
        "output": {"path": "$out/vectors", "mode": "resume"},
    }
    code, error, ran = chain(steps={"embed": embed})
    assert error == ""
    assert code == 0
    assert ran == {"embed": "ran"}
    write(data / "2.parquet", id=["c"], content=[picture(3)])
    assert chain(steps={"embed": embed})[2] == {"embed": "ran"}
    assert manifest(out)["counts"]["reused"] == 2
    assert set(vectors(out, "id")) == {"a", "b", "c"}


def test_what_cannot_be_resumed_is_made_anew_unless_another_has_written_it(
    chain, monkeypatch, tmp_path
):
    """With a job that writes nothing but a manifest, and takes what is there for finished."""
    runs = []

    def body(run):
        dimension, given = run.config.dimension, run.config.output
        runs.append((given.mode, dimension))
        output = Output(run.spark, given.path, given.mode, {"dimension": dimension})
        output.check()
        if given.mode != "resume" or not Path(given.path).exists():
            with output.attempt():
                output.publish(run.manifest())

    monkeypatch.setitem(pipeline.JOBS, "project", (Resumable, body))
    steps = {"shrink": {**STEPS["shrink"], "output": {"path": "$out/shrunk", "mode": "resume"}}}
    assert chain(steps=steps)[2] == {"shrink": "ran"}
    assert runs == [("resume", 3)]
    assert chain(steps=steps, steps__shrink__dimension=2)[2] == {"shrink": "ran"}
    assert runs[1:] == [("resume", 2), ("overwrite", 2)]  # made with other settings
    vector_table(tmp_path / "e" / "two.parquet", 100)
    assert chain(steps=steps, steps__shrink__dimension=2)[2] == {"shrink": "ran"}
    assert runs[3:] == [("resume", 2), ("overwrite", 2)]  # finished, but of another input
    assert chain(steps=steps, steps__shrink__dimension=2)[2] == {"shrink": "up to date"}

    told = tmp_path / "out" / "shrunk" / "_manifest.json"
    told.with_name("._manifest.json.crc").unlink()  # Hadoop's checksum of what we replace
    told.write_text(json.dumps({**json.loads(told.read_text()), "step": {"name": "other"}}))
    code, error, _ = chain(steps=steps)
    assert code == 2
    assert "step shrink (project): " in error
    assert "were made with other settings (dimension was 2)" in error
    assert runs[5:] == [("resume", 3)]
