"""Steps from a configuration, all problems at once; no Spark."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from ember.errors import InvalidConfig
from ember.jobs.pipeline import JOBS
from ember.pipeline.planning import plan
from ember.settings.config import Config, load, parse
from ember.settings.files import local_files, sources, targets, use_of
from ember.settings.pipeline import PipelineConfig

ROOT = Path(__file__).parents[2]
KINDS = {name: kind for name, (kind, _) in JOBS.items()}
SHRINK = {
    "job": "project",
    "input": {"path": "$data/e.parquet", "id": "id"},
    "dimension": 4,
    "output": {"path": "$out/shrunk"},
}
FIND = {
    "job": "search",
    "queries": {"path": "$shrink", "id": "id"},
    "output": {"path": "$out/found"},
}


def planned(overrides=(), output="out/pipeline", **steps):
    values = {"vars": {"out": "out", "data": "in"}, "steps": steps, "output": {"path": output}}
    Path("pipeline.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    return plan(load(PipelineConfig, "pipeline.yaml", overrides), KINDS)


def problem(*overrides, **steps):
    with pytest.raises(InvalidConfig) as caught:
        planned(overrides, **steps)
    return str(caught.value)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_steps_are_resolved_in_the_order_written_and_know_what_they_need():
    pairs = {"job": "join", "left": {"path": "out/shrunk", "id": "id"}, "threshold": 0.9}
    pairs["output"] = {"path": "$out/pairs"}
    alone = {**SHRINK, "output": {"path": "$out/shrunk_2"}}
    work = planned(shrink=SHRINK, find=FIND, pairs=pairs, alone=alone)
    assert [step.name for step in work.steps] == ["shrink", "find", "pairs", "alone"]
    shrink, find, joined, _ = work.steps
    assert shrink.config.input.path == "in/e.parquet"
    assert (find.config.queries.path, find.output) == ("out/shrunk", "out/found")
    # By reference, by the path alone, and by a path that only begins like another.
    assert [step.needs for step in work.steps] == [(), ("shrink",), ("shrink",), ()]
    assert joined.config.threshold == 0.9
    assert work.output == "out/pipeline"


def test_a_step_needs_what_it_reads_by_way_of_a_link(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    find = {**FIND, "queries": {"path": "link/shrunk/*.parquet", "id": "id"}}
    other = {**find, "queries": {"path": "link/shrunk2", "id": "id"}, "output": {"path": "o"}}
    steps = planned(shrink=SHRINK, find=find, other=other).steps
    assert [step.needs for step in steps] == [(), ("shrink",), ()]


def test_a_step_starts_from_a_file_and_set_goes_before_both(tmp_path):
    base = tmp_path / "search.yaml"
    base.write_text(
        "queries: {path: q, id: a, embedding: $v}\ncorpus: {path: c, id: a}\nk: 7\n"
        "output: {path: o, mode: overwrite}\n"
    )
    find = {**FIND, "config": "$data/search.yaml", "corpus": None, "within": ["b"]}
    overrides = [f"vars.data={tmp_path}", "steps.find.queries.id=x", "vars.out=away"]
    config = planned(overrides, shrink=SHRINK, find=find).steps[1].config
    given = config.queries.model_dump(exclude_unset=True)
    assert given == {"path": "away/shrunk", "id": "x", "embedding": "$v"}
    assert (config.corpus, config.k, config.within) == (None, 7, ["b"])
    assert (config.output.path, config.output.mode) == ("away/found", "overwrite")


def test_every_problem_of_every_step_is_told_and_what_follows_from_it_is_not():
    text = problem(
        shrink={**SHRINK, "dimensions": 3, "dimension": 0},
        find=FIND,  # refers to the broken one
        other={"job": "serach", "output": {"path": "o"}},
        nothing={"k": 3},
        last={**FIND, "queries": {"path": "$missing", "id": "id"}},
    )
    lines = text.splitlines()
    assert "steps.shrink.dimension: input should be greater" in text
    assert "unknown key steps.shrink.dimensions (did you mean dimension?)" in text
    assert "steps.other.job: there is no job serach (did you mean search?); jobs: classify" in text
    assert "steps.nothing.job is missing; give it in the file or with --set steps.nothing" in text
    assert "steps.last.queries.path: there is no variable or step missing" in text
    assert len(lines) == 5


def test_a_variable_is_of_the_type_of_the_key_that_it_stands_for():
    values = ["vars.n=010", "vars.data=in #1: a", "steps.shrink.input.where=a = 1e3 # x"]
    step = {**SHRINK, "dimension": "$n", "input": {"path": "$data/$n", "id": "$n"}}
    config = planned(values, shrink=step).steps[0].config
    assert (config.dimension, config.input.id) == (10, "010")
    assert (config.input.path, config.input.where) == ("in #1: a/010", "a = 1e3 # x")
    Path("file.yaml").write_text(
        "vars: {n: 010, x: .9}\noutput: {path: o}\nsteps: {a: {job: join, threshold: $x, "
        "left: {path: 2024-01-01, id: $n}, output: {path: p$x}}}"
    )
    config = plan(load(PipelineConfig, "file.yaml", []), KINDS).steps[0].config
    assert (config.threshold, config.left.path, config.left.id) == (0.9, "2024-01-01", "010")
    assert config.output.path == "p.9"


def test_names_and_variables_are_checked():
    text = problem("vars.find=3", "vars.a-b=1", "vars.none=null", shrink=SHRINK, find=FIND)
    assert "vars.find: a step has this name as well" in text
    assert "vars.a-b: a name has letters" in text
    assert "vars.none: give a text, a number or a boolean, not None" in text
    assert "steps.a b: a name has" in problem(**{"a b": SHRINK})


def test_a_step_given_twice_is_refused():
    Path("twice.yaml").write_text("steps:\n  a: {job: embed}\n  a: {job: embed}\n")
    with pytest.raises(InvalidConfig, match=r"a is given twice in one place, .*line 2"):
        load(PipelineConfig, "twice.yaml", [])


def test_no_steps_are_refused():
    with pytest.raises(InvalidConfig, match="steps: "):
        parse(PipelineConfig, {"steps": {}, "output": {"path": "o"}}, "x")


def test_the_demo_s_pipeline_holds_together(monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = plan(load(PipelineConfig, "conf/pipeline_demo.yaml", []), KINDS).steps
    needs = {step.name: step.needs for step in steps}
    assert needs["tune_digits"] == ()
    assert "tune_digits" in needs["embed_digits"]
    assert {step.job for step in steps} >= {"finetune", "embed", "train", "classify", "search"}
    assert {step.job for step in steps} >= {"join", "evaluate"}


def sections(annotation):
    """The sections of a configuration that a type leads to."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in sections(part)]


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_path_and_model_of_a_job_is_marked(job):
    """A key without a mark would not be looked at, and the step be skipped wrongly."""
    pending, seen = [KINDS[job]], []
    while pending:
        kind = pending.pop()
        for name, field in kind.model_fields.items():
            pending += sections(field.annotation)
            if name == "path" or (name == "name" and "precision" in kind.model_fields):
                seen.append(kind)
                assert use_of(field) is not None, f"{kind.__name__}.{name}"
    assert len(seen) >= 2


def test_inputs_and_outputs_are_found_by_their_marks(tmp_path):
    (tmp_path / "model").mkdir()
    classify = {
        "features": [{"path": "a", "id": "i"}, {"path": ["b", "c"], "id": "i"}],
        "head": "h",
        "labels": "~/names.txt",
        "model": {"name": "hf:model"},
        "output": {"path": "out"},
    }
    config = KINDS["classify"].model_validate(classify)
    assert sources(config) == {
        "features.0.path": ["a"],
        "features.1.path": ["b", "c"],
        "head": ["h"],
    }
    assert local_files(config) == {
        "labels": [f"file:{Path.home()}/names.txt"],
        "model.name": [f"file:{tmp_path}/model"],
    }
    keras = {**classify, "model": {"name": "keras:VGG16", "weights": "model"}, "labels": None}
    assert local_files(KINDS["classify"].model_validate(keras)) == {
        "model.weights": [f"file:{tmp_path}/model"]
    }
    hub = {**classify, "model": {"name": "hf:bert-base-uncased"}, "labels": None}
    assert local_files(KINDS["classify"].model_validate(hub)) == {}
    saved = {"input": {"path": "a", "id": "i"}, "save": "s", "output": {"path": "o"}}
    assert targets(KINDS["project"].model_validate(saved)) == {"save": "s", "output.path": "o"}
