"""Events that OpenLineage's own client writes of jobs, read back from its file."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from corpora import manifest, picture, write

PARENT = "https://airflow/prod/nightly.embed/01890a5d-ac96-774b-bcce-b302099a8057"
ROWS = 4
# The client's own library of requests warns of versions.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    ids = [f"i{number}" for number in range(ROWS)]
    pictures = [picture(number // 2) for number in range(ROWS)]
    folder = tmp_path_factory.mktemp("corpus")
    return write(folder / "in.parquet", id=ids, content=pictures, label=["a", "a", "b", "b"])


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What was told since, as (kind, job's name, event)."""
    file = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(transport))
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "prod")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", PARENT)

    def read():
        events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        file.write_text("")
        return [(each["eventType"], each["job"]["name"], each) for each in events]

    return read


def embed(corpus, out, model, **more):
    given = {"input__path": corpus, "input__id": "id", "input__modality": "image"}
    return {**given, "model__name": model, "output__path": out, **more}


def test_a_run_tells_what_it_read_and_wrote_and_whose_part_it_is(
    embed_job, corpus, resnet, tmp_path, told
):
    out = tmp_path / "out"
    assert embed_job(**embed(corpus, out, resnet)) == (0, "")
    (begun, job, start), (ended, _, complete) = told()
    assert (begun, ended, job) == ("START", "COMPLETE", "ember.embed")
    assert start["run"]["runId"] == complete["run"]["runId"]
    UUID(start["run"]["runId"])
    assert start["job"]["namespace"] == "prod"
    parent = complete["run"]["facets"]["parent"]
    namespace, name, run_id = PARENT.rsplit("/", 2)
    assert parent["run"]["runId"] == run_id
    assert (parent["job"]["namespace"], parent["job"]["name"]) == (namespace, name)
    tags = {each["key"]: each["value"] for each in complete["run"]["facets"]["tags"]["tags"]}
    assert tags["ember_run_id"] == manifest(out)["run_id"]
    names = [(each["namespace"], each["name"]) for each in complete["inputs"]]
    assert names == [("file", corpus)]
    fields = complete["inputs"][0]["facets"]["schema"]["fields"]
    assert {each["name"]: each["type"] for each in fields} == {
        "id": "string",
        "content": "binary",
        "label": "string",
    }
    (output,) = complete["outputs"]
    assert (output["namespace"], output["name"]) == ("file", str(out))
    kinds = {each["name"]: each["type"] for each in output["facets"]["schema"]["fields"]}
    assert kinds["embedding"] == "array<float>"
    sizes = [size for name, size in manifest(out)["files"].items() if name.endswith(".parquet")]
    statistics = output["outputFacets"]["outputStatistics"]
    assert statistics["rowCount"] == ROWS
    assert (statistics["size"], statistics["fileCount"]) == (sum(sizes), len(sizes))
    assert manifest(out)["parent_run"] == {"namespace": namespace, "job": name, "run_id": run_id}


def test_steps_are_parts_of_their_pipeline_and_folders_of_several_tables_are_all_told(
    run_job, corpus, resnet, tmp_path, told
):
    images = {"path": corpus, "id": "id", "content": "content", "modality": "image"}
    steps = {
        "first": {"job": "dedup", "input": images, "tiers": ["exact"], "report": False},
        "second": {"job": "embed", "input": images, "model": {"name": resnet}},
    }
    for name, step in steps.items():
        step["output"] = {"path": str(tmp_path / name)}
    given = {"steps": steps, "report": False, "output": {"path": str(tmp_path / "pipeline")}}
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(given), "utf-8")
    assert run_job("pipeline", f"--config={file}")[0] == 0
    events = told()
    assert [event[:2] for event in events] == [
        ("START", "ember.pipeline"),
        ("START", "ember.pipeline.first"),
        ("COMPLETE", "ember.pipeline.first"),
        ("START", "ember.pipeline.second"),
        ("COMPLETE", "ember.pipeline.second"),
        ("COMPLETE", "ember.pipeline"),
    ]
    own = events[0][2]["run"]["runId"]
    for _, _, event in events[1:5]:
        assert event["run"]["facets"]["parent"]["run"]["runId"] == own
    rows = {
        each["name"].rpartition("/")[2]: each["outputFacets"]["outputStatistics"]["rowCount"]
        for each in events[2][2]["outputs"]
        if "outputStatistics" in each["outputFacets"]
    }
    assert rows == {"kept": 2, "removed": 2}
    parent = manifest(tmp_path / "first")["parent_run"]
    assert parent["run_id"] == PARENT.rpartition("/")[2]


def test_a_failure_is_told_without_secrets_and_no_telling_fails_a_run(
    embed_job, corpus, resnet, tmp_path, told, monkeypatch
):
    given = embed(tmp_path / "in;token=WORD", tmp_path / "out", resnet)
    assert embed_job(**given)[0] == 2
    (_, _, start), (kind, _, event) = told()
    assert kind == "FAIL"
    assert "there is nothing at" in event["run"]["facets"]["errorMessage"]["message"]
    names = [(each["namespace"], each["name"]) for each in start["inputs"]]
    assert names == [("file", str(tmp_path / "in;token=***"))]
    assert "WORD" not in json.dumps([start, event])
    transport = {"type": "file", "log_file_path": str(tmp_path / "no" / "folder"), "append": True}
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(transport))
    code, said = embed_job(**embed(corpus, tmp_path / "out", resnet))
    assert code == 0
    assert said.count("no lineage is told of this run") == 1
