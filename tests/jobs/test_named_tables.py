"""Tables by their names in Spark's session catalog: read, written, retried, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import manifest, vectors, write
from ember.spark import catalog
from ember.spark.file_table import FileTable

TEXTS = ["the cat", "a dog", "the big house", "a mat", "cat and dog", "small dog"]


@pytest.fixture
def schema(spark, tmp_path):
    spark.sql(f"CREATE SCHEMA shop LOCATION '{tmp_path}/shop'")
    yield "shop"
    spark.sql("DROP SCHEMA shop CASCADE")


@pytest.fixture
def corpus(spark, schema, tmp_path) -> Path:
    """A table of texts that somebody has made, and the same rows as a file."""
    write(tmp_path / "in.parquet", id=list(range(len(TEXTS))), content=TEXTS)
    spark.read.parquet(str(tmp_path / "in.parquet")).write.saveAsTable("shop.texts")
    return tmp_path / "in.parquet"


@pytest.fixture
def embed(embed_job, bert):
    def run(*flags, **settings):
        given = {"input__table": "shop.texts", "input__id": "id", "input__modality": "text"}
        return embed_job(*flags, **given, model__name=bert, **settings)

    return run


def refused(result) -> str:
    code, said = result
    assert code == 2, said
    return str(said)


def test_a_table_is_read_and_written_by_its_name(spark, embed, embed_job, bert, corpus, tmp_path):
    assert embed(output__table="shop.vectors", input__where="id < 5")[0] == 0
    location = tmp_path / "shop" / "vectors"
    told = manifest(location)
    assert told["input_tables"] == [
        {"table": "spark_catalog.shop.texts", "format": "parquet", "version": None}
    ]
    assert told["counts"]["status"] == {"ok": 5}
    assert spark.table("shop.vectors").count() == 5
    plain = {"input__path": corpus, "input__id": "id", "input__modality": "text"}
    assert embed_job(**plain, model__name=bert, output__path=tmp_path / "plain") == (0, "")
    known = vectors(tmp_path / "plain", "id")
    found = {row.id: row.embedding for row in spark.table("spark_catalog.shop.vectors").collect()}
    assert found == {key: pytest.approx(known[key], rel=1e-4, abs=1e-5) for key in range(5)}
    # External: dropping the name leaves the rows, which a run can take up again.
    spark.sql("DROP TABLE shop.vectors")
    again = {"output__table": "shop.vectors", "output__mode": "resume", "input__where": "id < 5"}
    assert embed(**again)[0] == 0
    assert manifest(location)["counts"]["reused"] == spark.table("shop.vectors").count() == 5


def test_modes_hold_for_tables_and_a_retry_of_a_committed_run_does_nothing(
    spark, embed, corpus, tmp_path
):
    out = {"output__table": "shop.vectors"}
    assert embed("--run-id=first", **out)[0] == 0
    before = manifest(tmp_path / "shop" / "vectors")
    for mode in ("fail", "overwrite", "resume"):
        assert embed("--run-id=first", **out, output__mode=mode)[0] == 0
    assert manifest(tmp_path / "shop" / "vectors") == before
    assert "exists; set output.mode" in refused(embed("--run-id=other", **out))

    spark.sql("INSERT INTO shop.texts VALUES (100, 'a new cat'), (101, null)")
    lenient = {"limits__max_failed_fraction": 0.5}
    assert embed("--run-id=grown", **out, **lenient, output__mode="resume")[0] == 0
    told = manifest(tmp_path / "shop" / "vectors")
    assert (told["counts"]["rows"], told["counts"]["reused"]) == (8, 6)
    # The session that had read the table sees the new files, without being told.
    statuses = spark.table("shop.vectors").groupBy("status").count().collect()
    assert {row.status: row["count"] for row in statuses} == {"ok": 7, "error": 1}
    assert embed("--run-id=anew", **out, **lenient, output__mode="overwrite")[0] == 0
    assert manifest(tmp_path / "shop" / "vectors")["run_id"] == "anew"


def test_a_run_killed_before_its_table_is_registered_is_completed_by_its_retry(
    spark, embed, corpus, tmp_path, monkeypatch
):
    out = {"output__table": "shop.vectors"}
    with monkeypatch.context() as patch:
        patch.setattr(FileTable, "register", lambda self, path: 1 / 0)
        assert embed("--run-id=killed", **out)[0] == 1
    assert not catalog.exists(spark, "shop.vectors")
    before = manifest(tmp_path / "shop" / "vectors")
    assert embed("--run-id=killed", **out)[0] == 0
    assert spark.table("shop.vectors").count() == len(TEXTS)
    assert manifest(tmp_path / "shop" / "vectors") == before


def test_columns_that_change_are_those_of_the_catalog(spark, run_job, schema, tmp_path):
    floats = pa.list_(pa.float32())
    matrix = pa.array([[float(n), 1.0, 2.0 * n] for n in range(9)], floats)
    for name, more in (("one", {}), ("two", {"word": ["x"] * 9})):
        write(tmp_path / f"{name}.parquet", id=list(range(9)), embedding=matrix, **more)
    given = {"input__id": "id", "dimension": 1, "output__table": "shop.short"}
    assert run_job("project", **given, input__path=tmp_path / "one.parquet")[0] == 0
    given |= {"input__path": tmp_path / "two.parquet", "output__mode": "overwrite"}
    assert run_job("project", **given)[0] == 0
    assert spark.table("shop.short").columns == ["id", "embedding", "word"]
    assert (tmp_path / "shop" / "short.projection" / "_manifest.json").is_file()


def test_search_join_and_evaluate_read_names(spark, run_job, schema, tmp_path):
    floats = pa.list_(pa.float32())
    matrix = pa.array([[float(n % 3), 1.0, float(n)] for n in range(9)], floats)
    source = write(tmp_path / "in.parquet", id=list(range(9)), embedding=matrix, label=["a"] * 9)
    spark.read.parquet(source).write.saveAsTable("shop.vectors")
    # A view is read as a table is.
    spark.sql("CREATE VIEW shop.some AS SELECT * FROM shop.vectors WHERE id < 6")
    given = {"queries__table": "shop.some", "queries__id": "id", "k": 2, "exclude_self": "true"}
    assert run_job("search", **given, output__table="shop.neighbors")[0] == 0
    assert spark.table("shop.neighbors").count() == 12
    done = {**given, "output__table": "shop.neighbors", "output__mode": "resume"}
    assert run_job("search", **done)[0] == 0
    spark.sql("INSERT INTO shop.vectors VALUES (4, array(1.0f, 2.0f, 3.0f), 'b')")
    assert "were made with other settings (input was" in refused(run_job("search", **done))

    join = {"left__table": "shop.some", "left__id": "id", "threshold": 0.5}
    assert run_job("join", **join, output__table="shop.pairs")[0] == 0
    assert spark.table("shop.pairs").columns == ["left_id", "right_id", "score"]
    judge = {"kind": "retrieval", "neighbors__table": "shop.neighbors", "truth__path": source}
    judge |= {"report": "false", "bootstrap": 0, "truth__id": "id"}
    assert run_job("evaluate", **judge, output__path=tmp_path / "judged") == (0, "")
    told = manifest(tmp_path / "judged")["input_tables"]
    assert [each["table"] for each in told] == ["spark_catalog.shop.neighbors"]


def test_no_table_that_is_read_or_that_ember_did_not_write_is_harmed(
    spark, embed, run_job, corpus, tmp_path
):
    texts = tmp_path / "shop" / "texts"
    before = sorted(texts.iterdir())
    spark.sql("CREATE VIEW shop.view AS SELECT * FROM shop.texts")
    for settings, words in (
        ({"output__table": "shop.texts"}, "is what input.table reads"),
        ({"output__table": "shop.texts", "input__table": "shop.view"}, "is what input.table reads"),
        ({"output__path": texts}, "input.table shop.texts, which lies in"),
        ({"output__path": texts / "deep"}, "lies in input.table"),
        ({"output__path": tmp_path / "shop"}, "holds input.table"),
        ({"output__table": "shop.new", "output__staging": texts}, "lies in input.table"),
        ({"output__table": "shop.view"}, "is a view"),
        ({"output__table": "nowhere.new"}, "there is no schema spark_catalog.nowhere"),
        ({"output__table": "shop.new", "output__path": "x"}, "output.path and output.table are"),
        ({"output__path": "x", "output__format": "iceberg"}, "needs output.table"),
        ({"output__path": "x", "output__format": "delta"}, "start Spark with the jars of delta"),
        ({"output__table": "shop.new", "output__format": "iceberg"}, "keeps no such tables"),
        ({"output__table": "shop.new", "input__table": "shop.nope"}, "no table shop.nope"),
    ):
        given = {"input__table": "shop.texts", **settings}
        assert words in refused(run_job("embed", **_embedding(given))), settings
    spark.sql("CREATE TABLE shop.mine USING parquet AS SELECT 1 AS id")
    for mode in ("fail", "overwrite", "resume"):
        said = refused(embed(output__table="shop.mine", output__mode=mode))
        assert "was not written by Ember" in said
    assert sorted(texts.iterdir()) == before
    assert pq.read_table(tmp_path / "shop" / "mine").num_rows == 1


def _embedding(given):
    return {"input__id": "id", "input__modality": "text", "model__name": "hf:none", **given}


def test_paths_in_a_named_table_need_a_root(spark, embed_job, resnet, schema, tmp_path):
    write(tmp_path / "in.parquet", id=[1], content=["a.png"])
    spark.read.parquet(str(tmp_path / "in.parquet")).write.saveAsTable("shop.pictures")
    given = {"input__table": "shop.pictures", "input__id": "id", "input__modality": "image"}
    given |= {"input__content_is": "paths", "model__name": resnet, "output__table": "shop.out"}
    assert "root is missing" in refused(embed_job(**given))
