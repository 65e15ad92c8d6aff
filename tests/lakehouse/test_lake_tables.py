"""Delta and Iceberg tables: read at one version, committed with the run's mark, merged, retried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from lake_session import settings

from corpora import manifest, vectors, write
from ember.spark.lake_table import LakeTable
from ember.spark.staging import Staging

TEXTS = ["the cat", "a dog", "the big house", "a mat", "cat and dog", "small dog"]
FORMATS = ("delta", "iceberg")
# Sockets that pyspark 4.1 leaves to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
CATALOGS = {"delta": "spark_catalog", "iceberg": "ice"}


class Killed(BaseException):
    """What a test ends a run with: nothing of Ember's may catch it."""


@pytest.fixture(params=FORMATS)
def lake(request):
    return request.param


@pytest.fixture
def schema(spark, lake, tmp_path):
    """A schema of the catalog for the format, and the folder that it keeps tables in."""
    name = f"{CATALOGS[lake]}.shop{len(list(tmp_path.parent.iterdir()))}"
    location = f" LOCATION '{tmp_path}/shop'" if lake == "delta" else ""
    spark.sql(f"CREATE SCHEMA {name}{location}")
    told = dict(row[:2] for row in spark.sql(f"DESCRIBE NAMESPACE {name}").collect())
    yield name, Path(told["Location"].removeprefix("file:"))
    if lake == "delta":  # the folders of the other catalog go with the session
        spark.sql(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def texts(spark, lake, schema, tmp_path):
    """The name of a table of texts that somebody has made."""
    source = write(tmp_path / "in.parquet", id=list(range(len(TEXTS))), content=TEXTS)
    name = f"{schema[0]}.texts"
    spark.read.parquet(source).writeTo(name).using(lake).create()
    return name


@pytest.fixture
def embed(embed_job, bert, lake, texts):
    def run(run_id, **settings):
        given = {"input__table": texts, "input__id": "id", "input__modality": "text"}
        given |= {"model__name": bert, "output__format": lake, **settings}
        return embed_job(f"--run-id={run_id}", **given)

    return run


@pytest.fixture
def out(schema):
    return {"output__table": f"{schema[0]}.vectors"}


def commits(spark, lake, name):
    return list(LakeTable(spark, name, name, lake).commits())


def record(schema, name="vectors"):
    return manifest(schema[1] / f"{name}.ember")


def refused(result):
    code, said = result
    assert code == 2, said
    return said


def test_a_run_is_one_commit_that_names_it(spark, lake, schema, texts, embed, out, tmp_path):
    name = out["output__table"]
    assert embed("first", **out) == (0, "")
    (commit,) = commits(spark, lake, name)
    told = record(schema)
    assert commit.mark["run_id"] == told["run_id"] == "first"
    assert commit.mark["attempt"] == told["attempt"]
    assert Path(commit.mark["manifest"].removeprefix("file:")).is_file()
    (source,) = told["input_tables"]
    assert source["format"] == lake
    assert source["version"] == commits(spark, lake, texts)[0].version
    assert source["table"].endswith(texts.partition(".")[2])
    left = sorted(each.name for each in schema[1].iterdir())
    assert left == ["texts", "vectors", "vectors.ember"]

    assert embed("first", **out) == (0, "")  # a retry
    assert len(commits(spark, lake, name)) == 1
    assert "exists; set output.mode" in refused(embed("second", **out))
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('mine' = 'kept')")
    assert embed("second", **out, output__mode="overwrite", input__where="id < 4") == (0, "")
    assert spark.table(name).count() == 4
    assert LakeTable(spark, name, name, lake).properties()["mine"] == "kept"
    assert record(schema)["run_id"] == "second"
    # Of the first run again, nothing: it was committed, and the second one came after it.
    assert embed("first", **out, output__mode="overwrite") == (0, "")
    assert spark.table(name).count() == 4


def test_a_table_is_read_at_the_version_that_it_had(spark, lake, texts):
    from ember.spark import catalog

    table = catalog.read(spark, texts)
    spark.sql(f"INSERT INTO {texts} VALUES (100, 'later')")
    assert table.count() == len(TEXTS)
    assert catalog.read(spark, texts).count() == len(TEXTS) + 1


def test_resume_takes_the_rows_of_the_table(spark, schema, texts, embed, out, tmp_path):
    lenient = {**out, "limits__max_failed_fraction": 0.5}
    assert embed("first", **lenient) == (0, "")
    spark.sql(f"INSERT INTO {texts} VALUES (100, 'a new cat'), (101, null)")
    assert embed("grown", **lenient, output__mode="resume") == (0, "")
    counts = record(schema)["counts"]
    assert (counts["rows"], counts["reused"], counts["embedded"]) == (8, 6, 2)
    assert counts["status"] == {"error": 1, "ok": 7}
    assert spark.table(out["output__table"]).select("id").distinct().count() == 8
    said = refused(embed("other", **lenient, output__mode="resume", model__normalize="true"))
    assert "made with other settings" in said
    # Without the manifest nobody knows how the rows were made.
    moved = {**lenient, "output__mode": "resume", "output__staging": tmp_path / "elsewhere"}
    assert "the manifest of table" in refused(embed("lost", **moved))
    failed = {**out, "limits__max_failed_fraction": 0}
    assert embed("strict", **failed, output__mode="overwrite")[0] == 3
    assert record(schema)["run_id"] == "grown"
    kept = spark.read.parquet(str(schema[1] / "vectors.ember.failures"))
    assert [row.id for row in kept.collect()] == [101]


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
@pytest.mark.parametrize("mode", ["fail", "resume"])
def test_a_killed_run_is_retried(spark, lake, schema, embed, out, moment, mode, monkeypatch):
    name = out["output__table"]
    commit = LakeTable.commit

    def killed(self, rows, mark):
        if moment == "after the commit":
            commit(self, rows, mark)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LakeTable, "commit", killed)
        # A process that is killed does not clean up, and is not there afterwards.
        patch.setattr(Staging, "_give_up", lambda self, worth: None)
        with pytest.raises(Killed):
            embed("killed", **out, output__mode=mode)
    assert LakeTable(spark, name, name, lake).exists() == (moment == "after the commit")
    monkeypatch.setattr(Staging.__init__, "__kwdefaults__", _nobody_runs(Staging.__init__))
    assert embed("killed", **out, output__mode=mode)[0] == 0
    assert len(commits(spark, lake, name)) == 1
    assert spark.table(name).count() == len(TEXTS)
    told = record(schema)
    assert told["run_id"] == "killed"
    if moment == "before the commit":
        assert told["counts"]["reused"] == (len(TEXTS) if mode == "resume" else 0)
    assert not (schema[1] / ".vectors.ember.staging").exists()


def _nobody_runs(function):
    return {**function.__kwdefaults__, "running": lambda facts: False}


def test_another_run_after_a_kill_behind_the_commit_finds_its_manifest(
    spark, lake, schema, texts, embed, out, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "_put", lambda self, made, attempt: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            embed("killed", **out)
    assert not (schema[1] / "vectors.ember").exists()
    monkeypatch.setattr(Staging.__init__, "__kwdefaults__", _nobody_runs(Staging.__init__))
    spark.sql(f"INSERT INTO {texts} VALUES (100, 'a new cat')")
    assert embed("next", **out, output__mode="resume") == (0, "")
    assert record(schema)["counts"]["reused"] == len(TEXTS)
    assert spark.table(out["output__table"]).count() == len(TEXTS) + 1


def test_what_others_did_is_not_overwritten(spark, lake, schema, texts, embed, out):
    name = out["output__table"]
    assert "is what input.table reads" in refused(embed("a", output__table=texts))
    spark.sql(f"CREATE TABLE {schema[0]}.mine USING {lake} AS SELECT 1 AS id")
    for mode in ("fail", "overwrite", "resume"):
        said = refused(embed("a", output__table=f"{schema[0]}.mine", output__mode=mode))
        assert "was not written by Ember" in said
    assert embed("first", **out) == (0, "")
    other = "iceberg" if lake == "delta" else "delta"
    said = refused(embed("b", **out, output__mode="overwrite", output__format=other))
    assert f"is {lake}, not {other}" in said
    if lake == "delta":  # compaction changes no row
        spark.sql(f"OPTIMIZE {name}")
    else:
        spark.sql(
            f"CALL ice.system.rewrite_data_files('{name}', 'binpack', null, "
            "map('rewrite-all', 'true'))"
        )
    assert embed("again", **out, output__mode="overwrite") == (0, "")
    spark.sql(f"DELETE FROM {name} WHERE id = 3")
    said = refused(embed("c", **out, output__mode="overwrite"))
    assert "by something other than Ember" in said
    assert spark.table(name).count() == len(TEXTS) - 1


def test_results_are_merged_into_the_table_of_the_texts(
    spark, lake, schema, texts, embed, embed_job, bert, tmp_path
):
    lenient = {"output__merge_into": texts, "limits__max_failed_fraction": 0.5}
    spark.sql(f"INSERT INTO {texts} VALUES (50, null)")
    assert embed("first", **lenient) == (0, "")
    plain = {"input__path": tmp_path / "in.parquet", "input__id": "id", "input__modality": "text"}
    assert embed_job(**plain, model__name=bert, output__path=tmp_path / "plain") == (0, "")
    known = vectors(tmp_path / "plain", "id")
    found = {row.id: row for row in spark.table(texts).collect()}
    assert found[50].embedding is None
    assert found[50].embedding_status == "error"
    assert {found[key].content: found[key].embedding_status for key in known} == dict.fromkeys(
        TEXTS, "ok"
    )
    for key, vector in known.items():
        assert found[key].embedding == pytest.approx(vector, rel=1e-4, abs=1e-5)

    before = len(commits(spark, lake, texts))
    assert embed("first", **lenient) == (0, "")
    assert len(commits(spark, lake, texts)) == before
    assert "has results of embed" in refused(embed("second", **lenient))
    # New rows have no result yet; those alone are done.
    columns = "(id, content)"
    spark.sql(f"INSERT INTO {texts} {columns} VALUES (100, 'a new cat')")
    assert embed("grown", **lenient, output__mode="resume") == (0, "")
    counts = record(schema, "texts.embed")["counts"]
    assert (counts["reused"], counts["embedded"], counts["status"]) == (6, 2, {"ok": 7, "error": 1})
    assert spark.table(texts).filter("embedding_status = 'ok'").count() == 7

    spark.sql(f"INSERT INTO {texts} {columns} VALUES (100, 'twice')")
    said = refused(embed("twice", **lenient, output__mode="overwrite"))
    assert "are not unique: 100 (2 times)" in said


def test_a_merge_touches_nobody_elses_columns_and_loses_no_row(
    spark, lake, schema, texts, embed, embed_job, bert, tmp_path
):
    spark.sql(
        f"CREATE TABLE {schema[0]}.own USING {lake} AS SELECT id, 'x' AS embedding_status "
        f"FROM {texts}"
    )
    said = refused(embed("a", output__merge_into=f"{schema[0]}.own"))
    assert "has a column embedding_status that Ember did not add" in said
    spark.sql(f"CREATE TABLE {schema[0]}.few USING {lake} AS SELECT id FROM {texts} WHERE id > 0")
    said = refused(embed("b", output__merge_into=f"{schema[0]}.few"))
    assert "lacks ids of the input, such as 0" in said
    assert spark.table(f"{schema[0]}.few").columns == ["id"]
    assert "there is no table" in refused(embed("c", output__merge_into=f"{schema[0]}.none"))
    said = refused(embed("d", output__merge_into=texts, output__format="parquet"))
    assert "needs output.format delta or iceberg" in said


def test_search_and_project_commit_too(spark, lake, schema, run_job, tmp_path):
    floats = pa.list_(pa.float32())
    matrix = pa.array([[float(n % 3), 1.0, float(n)] for n in range(9)], floats)
    source = write(tmp_path / "in.parquet", id=list(range(9)), embedding=matrix)
    name = f"{schema[0]}.vectors"
    spark.read.parquet(source).writeTo(name).using(lake).create()
    given = {"queries__table": name, "queries__id": "id", "k": 2, "output__format": lake}
    given |= {"output__table": f"{schema[0]}.neighbors"}
    assert run_job("search", **given) == (0, "")
    assert spark.table(f"{schema[0]}.neighbors").count() == 18
    assert run_job("search", **given, output__mode="resume") == (0, "")
    assert len(commits(spark, lake, f"{schema[0]}.neighbors")) == 1
    spark.sql(f"INSERT INTO {name} VALUES (100, array(1.0f, 2.0f, 3.0f))")
    said = refused(run_job("search", **given, output__mode="resume"))
    assert "made with other settings (input was" in said
    short = {"input__table": name, "input__id": "id", "dimension": 1, "output__format": lake}
    assert run_job("project", **short, output__table=f"{schema[0]}.short") == (0, "")
    assert (schema[1] / "short.ember.projection" / "_manifest.json").is_file()


def test_a_kept_index_follows_the_version(spark, lake, schema, run_job, tmp_path):
    floats = pa.list_(pa.float32())
    matrix = pa.array([[1.0, float(n)] for n in range(9)], floats)
    source = write(tmp_path / "in.parquet", id=list(range(9)), embedding=matrix)
    name = f"{schema[0]}.vectors"
    spark.read.parquet(source).coalesce(1).writeTo(name).using(lake).create()
    if lake == "delta":  # a DELETE leaves the file as it is
        properties = "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
        spark.sql(f"ALTER TABLE {name} {properties}")
    out = tmp_path / "out" / "neighbors"
    given = {"queries__path": source, "queries__id": "id", "corpus__table": name}
    given |= {"corpus__id": "id", "k": 1, "index__path": tmp_path / "out" / "index"}
    given |= {"output__path": out, "output__mode": "overwrite"}
    seen = []
    for change in ("", "", f"DELETE FROM {name} WHERE id = 4"):
        if change:
            spark.sql(change)
        assert run_job("search", **given) == (0, "")
        rows = spark.read.parquet(str(out)).collect()
        seen.append(({row.neighbor_id for row in rows}, manifest(out)["index"]["was"][:9]))
    every = set(range(9))
    assert seen == [(every, "made, bec"), (every, "as it was"), (every - {4}, "made, bec")]


def test_a_delta_table_by_path(spark, embed_job, run_job, bert, tmp_path):
    source = write(tmp_path / "in.parquet", id=list(range(len(TEXTS))), content=TEXTS)
    given = {"input__path": source, "input__id": "id", "input__modality": "text"}
    given |= {
        "model__name": bert,
        "output__path": tmp_path / "out" / "v",
        "output__format": "delta",
    }
    assert embed_job("--run-id=first", **given) == (0, "")
    assert embed_job("--run-id=first", **given) == (0, "")
    assert embed_job("--run-id=other", **given)[0] == 2
    assert embed_job("--run-id=other", **given, output__mode="overwrite") == (0, "")
    assert manifest(tmp_path / "out" / "v.ember")["run_id"] == "other"
    # Read by its path, it has the rows of its last version alone.
    search = {"queries__path": tmp_path / "out" / "v", "queries__id": "id", "k": 1}
    assert run_job("search", **search, output__path=tmp_path / "found") == (0, "")
    assert manifest(tmp_path / "found")["counts"]["rows"] == len(TEXTS)
    assert manifest(tmp_path / "found")["input_tables"][0]["version"] == "1"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("mine")
    said = refused(embed_job(**{**given, "output__path": tmp_path / "taken"}))
    assert "is no Delta table" in said


@pytest.mark.parametrize("when", ["before its commit", "after its commit"])
def test_a_process_that_is_killed(spark, bert, when, tmp_path):
    """A process of its own, ended by SIGKILL; another one goes on."""
    source = write(tmp_path / "in.parquet", id=list(range(len(TEXTS))), content=TEXTS)
    target = tmp_path / "killed" / "v"
    pairs = {"input.path": source, "input.id": "id", "input.modality": "text", "model.name": bert}
    pairs |= {"output.path": target, "output.format": "delta", "output.mode": "resume"}
    given = [f"--set={key}={value}" for key, value in pairs.items()]
    moment = {
        "before its commit": "ember.spark.publish.Output.counts",
        "after its commit": "ember.spark.staging.Staging._put",
    }[when]
    program = tmp_path / "run.py"
    program.write_text(_PROGRAM)
    told = json.dumps(settings(tmp_path / "own"))
    codes = []
    for kill in (moment, ""):
        command = [sys.executable, str(program), told, kill, "--run-id=one", *given]
        codes.append(subprocess.run(command, check=False, env=os.environ).returncode)
    assert codes == [-signal.SIGKILL, 0]
    table = LakeTable(spark, f"delta.`{target}`", "v", "delta")
    assert [each.mark["run_id"] for each in table.commits()] == ["one"]
    assert table.rows().count() == len(TEXTS)
    counts = manifest(tmp_path / "killed" / "v.ember")["counts"]
    assert counts["reused"] == (len(TEXTS) if when == "before its commit" else 0)
    assert sorted(each.name for each in target.parent.iterdir()) == ["v", "v.ember"]


_PROGRAM = """
import json, os, pydoc, signal, sys
from pyspark.sql import SparkSession
SparkSession.builder.config(map=json.loads(sys.argv[1])).getOrCreate()
from ember.jobs import embed
if sys.argv[2]:
    owner, _, name = sys.argv[2].rpartition(".")
    setattr(pydoc.locate(owner), name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
sys.exit(embed.main(sys.argv[3:]))
"""


def test_a_table_follows_its_input_and_is_not_committed_where_nothing_changed(
    spark, lake, schema, embed, out
):
    name, sync = out["output__table"], {**out, "output__mode": "sync"}
    assert embed("first", **sync, input__where="id < 4") == (0, "")
    assert embed("second", **sync, input__where="id > 0") == (0, "")
    told = record(schema)["counts"]
    assert (told["embedded"], told["reused"], told["gone"]) == (2, 3, 1)
    assert embed("third", **sync, input__where="id > 0") == (0, "")
    assert len(commits(spark, lake, name)) == 2
    told = record(schema)
    assert (told["run_id"], told["counts"]["unchanged"], told["counts"]["embedded"]) == (
        "third",
        5,
        0,
    )
    assert sorted(row.id for row in spark.table(name).select("id").collect()) == [1, 2, 3, 4, 5]
