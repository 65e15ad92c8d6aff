"""When a step is up to date, and what is said when it is not; no Spark."""

from __future__ import annotations

import copy

import pytest

from ember.pipeline.freshness import judge, note
from ember.pipeline.planning import Step
from ember.settings.comparison import SearchConfig

VERSIONS = {"python": "3.11", "numpy": "2.4"}
HOME, BERLIN = "file:/out/all", {"time_zone": "Europe/Berlin"}
INPUTS = {"queries.path": {"files": 2, "bytes": 10, "sha256": "a"}}


def step(**values):
    given = {"queries": {"path": "q", "id": "i"}, "output": {"path": "out"}, **values}
    return Step("find", "search", SearchConfig.model_validate(given), ())


def noted(by: Step, inputs=INPUTS, home=HOME, session=BERLIN) -> dict:
    return note(by, home, inputs=inputs, session=session)


def written(by: Step) -> dict:
    """The manifest that a run of the step leaves."""
    told = {"job": by.job, "config": by.config.model_dump(mode="json"), "versions": VERSIONS}
    return copy.deepcopy({**told, **noted(by)})


def verdict(now=None, manifest=None, gone=None, versions=VERSIONS, **told):
    now = now or step()
    current = noted(now, **told)
    return judge(now, manifest or written(step()), gone or {}, current, versions=versions)


def test_the_same_step_is_fresh_whatever_its_mode():
    assert verdict().state == "fresh"
    assert verdict(step(output={"path": "out", "mode": "resume"})).state == "fresh"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"now": step(k=5)}, "k is 5 and was 10"),
        ({"now": step(within=["a"])}, "within.0 is a and was null"),
        ({"now": step(corpus={"path": "c", "id": "i"})}, "corpus.id is i and was null"),
        ({"inputs": {"queries.path": {"files": 5}}}, "queries.path changed: 3 files more"),
        ({"inputs": {"queries.path": {"files": 1}}}, "queries.path changed: 1 file fewer"),
        (
            {"inputs": {"queries.path": {"files": 2, "bytes": 10, "sha256": "b"}}},
            "queries.path changed: written anew",
        ),
        ({"versions": {**VERSIONS, "numpy": "2.5"}}, "numpy is 2.5 and was 2.4"),
        ({"versions": {"python": "3.11"}}, "numpy is not there and was 2.4"),
        ({"gone": {"groups.path": None}}, "what groups.path names is gone"),
        ({"gone": {"output.path": "part-1"}}, "part-1 of output.path is gone"),
        ({"session": {"time_zone": "UTC"}}, "time_zone is UTC and was Europe/Berlin"),
        ({"session": {}}, "time_zone is not there and was Europe/Berlin"),
    ],
)
def test_what_changed_is_said(change, why):
    found = verdict(**change)
    assert found.state == "outdated"
    assert why in found.why


def test_a_figure_that_was_not_reached_has_the_step_run_again():
    found = verdict(manifest={**written(step()), "unmet": ["accuracy is 0.5"]})
    assert (found.state, found.why) == ("outdated", "what it requires was not reached")


def test_of_many_changes_the_first_are_named_and_the_rest_counted():
    versions = {"python": "3.12", "numpy": "3", "a": "1", "b": "1", "c": "1"}
    assert verdict(versions=versions).why.endswith("; c is 1 and was not there; and 2 more")


@pytest.mark.parametrize(
    "change", [{"name": "look"}, {"pipeline": "file:/out/other"}, {"inputs": {}}, None]
)
def test_what_another_has_written_is_not_the_step_s(change):
    manifest = written(step())
    if change is None:
        del manifest["step"]
    elif "inputs" not in change:
        manifest["step"].update(change)
    else:
        manifest["job"] = "join"
    assert verdict(manifest=manifest).state == "foreign"
    assert judge(step(), None, {}, noted(step()), versions={}).state == "foreign"


def test_without_an_output_the_step_is_to_run():
    found = judge(step(), None, {"output.path": None}, noted(step()), versions=VERSIONS)
    assert (found.state, found.why) == ("absent", "its output is not there yet")
