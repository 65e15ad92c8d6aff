"""What is checked of all steps before the first one runs: whose files are there, who harms whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ember.errors import InvalidInput
from ember.jobs.pipeline import JOBS
from ember.pipeline.checking import check_steps
from ember.pipeline.planning import plan
from ember.settings.config import parse
from ember.settings.pipeline import PipelineConfig

KINDS = {name: kind for name, (kind, _) in JOBS.items()}
SHRINK = {
    "job": "project",
    "input": {"path": "in/e.parquet", "id": "id"},
    "dimension": 4,
    "output": {"path": "out/shrunk"},
}
FIND = {
    "job": "search",
    "queries": {"path": "$shrink", "id": "id"},
    "output": {"path": "out/found"},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "e.parquet").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    return tmp_path


@pytest.fixture
def problem(spark, here):
    """What is wrong with the steps; None where nothing is."""

    def check(output=f"{here}/out/pipeline", **steps):
        given = {"steps": steps, "output": {"path": output}}
        try:
            check_steps(spark, plan(parse(PipelineConfig, given, "test"), KINDS))
        except InvalidInput as error:
            return str(error)
        return None

    return check


def under(folder, step):
    """A step with its paths below a folder: Spark knows of no change of the working one."""
    text = json.dumps(step)
    for name in ("in", "out", "link"):
        text = text.replace(f'"{name}/', f'"{folder}/{name}/')
    return json.loads(text)


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("out/shrunk", "is steps.shrink.output.path"),
        ("out//x/../shrunk/part", "lies in steps.shrink.output.path"),
        ("link/shrunk/part", "lies in steps.shrink.output.path"),
        ("link/shrunk", "is steps.shrink.output.path"),
        ("out", "holds output.path"),
        ("link/pipeline", "is output.path"),
        ("out/shrunk.failures", "is the failed rows of steps.shrink.output.path"),
    ],
)
def test_outputs_that_would_replace_one_another_are_refused(problem, here, path, how):
    find = {**FIND, "output": {"path": f"{here}/{path}"}}
    told = problem(shrink=under(here, SHRINK), find=find)
    assert told.startswith(f"steps.find.output.path ({here}/{path}) {how}")
    assert "they would replace each other" in told


def test_what_an_earlier_step_makes_need_not_be_there_whatever_link_leads_to_it(problem, here):
    steps = {"shrink": under(here, SHRINK)}
    for read in ("out/shrunk", "link/shrunk", "link/shrunk/*.parquet"):
        assert problem(**steps, find={**under(here, FIND), "queries": _table(here, read)}) is None
    for read in ("link/shrunk2", "link/found"):
        told = problem(**steps, find={**under(here, FIND), "queries": _table(here, read)})
        assert f"steps.find.queries.path: there is nothing at {here}/{read}" in told


def _table(here, path):
    return {"path": f"{here}/{path}", "id": "id"}


def test_a_later_step_must_not_write_over_what_an_earlier_one_reads(problem, here):
    (here / "data").symlink_to(here / "in")
    find = {**under(here, FIND), "output": {"path": f"{here}/data/e.parquet/found"}}
    told = problem(shrink=under(here, SHRINK), find=find)
    assert "lies in steps.shrink.input.path" in told
    images = {"path": f"{here}/in/e.parquet", "id": "id", "modality": "image"}
    images |= {"content_is": "paths", "root": f"{here}/pictures/of/cats"}
    embed = {"job": "embed", "input": images, "model": {"name": "hf:none"}}
    embed["output"] = {"path": f"{here}/out/vectors"}
    pictures = {**under(here, FIND), "output": {"path": f"{here}/pictures"}}
    told = problem(embed=embed, shrink=under(here, SHRINK), find=pictures)
    assert f"steps.find.output.path ({here}/pictures) holds steps.embed.input.root" in told


@pytest.mark.parametrize("folder", ["out/pipeline", "link/pipeline"])
def test_a_table_is_this_pipeline_s_own_by_the_folder_of_the_pipeline_itself(problem, here, folder):
    """Seen: a step of the same name and job of another pipeline was replaced in mode fail."""
    Path("out/shrunk").mkdir()
    told = {"name": "shrink", "pipeline": f"file:{here}/out/pipeline", "inputs": {}}
    Path("out/shrunk/_manifest.json").write_text(json.dumps({"job": "project", "step": told}))
    steps = {"shrink": under(here, SHRINK)}
    assert problem(f"{here}/{folder}", **steps) is None
    assert "was not written by this step" in problem(f"{here}/out/other", **steps)
