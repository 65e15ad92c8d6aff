"""Names of columns that Spark does not tell apart: refused before any work, or told apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import write
from ember.errors import InvalidInput
from ember.spark import tables

JOBS = {
    "embed": {"input__modality": "text", "model__name": "hf:nowhere"},
    "classify": {"input__modality": "text", "model__name": "hf:nowhere"},
    "describe": {"input__modality": "text", "model__name": "hf:nowhere"},
}


@pytest.mark.parametrize(
    ("job", "name"),
    [
        *((job, name) for job in JOBS for name in ("Status", "ERROR", "error")),
        ("embed", "EMBEDDING"),
        ("classify", "Predictions"),
        ("describe", "Description"),
        ("describe", "_Prompt"),
    ],
)
def test_an_id_named_like_a_column_of_the_result_is_refused_at_once(run_job, tmp_path, job, name):
    source = write(tmp_path / "in.parquet", **{name: [1], "content": ["x"]})
    out = tmp_path / "out" / "table"
    code, message = run_job(
        job, **JOBS[job], input__path=source, input__id=name, output__path=str(out)
    )
    assert code == 2
    assert f"the id column is named {name}" in message
    assert not out.parent.exists()


def test_names_that_differ_by_case_are_told_apart_where_the_session_does(spark, tmp_path):
    source = write(tmp_path / "in.parquet", Status=[1], content=["x"], Content=["y"])
    with pytest.raises(InvalidInput, match="already exists"):
        tables.read(spark, source)
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        table = tables.read(spark, source)
        corpus = tables.select_corpus(table, "Status", "content", "text")
        assert corpus.rows.collect() == [(1, "x")]
        with pytest.raises(InvalidInput, match="like the column status of the result"):
            tables.select_corpus(table.toDF("status", "a", "b"), "status", "a", "text")
    finally:
        spark.conf.unset("spark.sql.caseSensitive")
    with pytest.raises(InvalidInput, match="columns content and Content cannot be told"):
        tables.column(table, "content")


def test_doubles_of_a_column_are_named_and_other_columns_are_free(spark):
    table = spark.createDataFrame(
        [(1, "a", "b", (1, 2))], "i int, x string, x string, s struct<f:int,F:int>"
    )
    for name, words in (("x", "columns x and x"), ("s.f", "columns f and F")):
        with pytest.raises(InvalidInput, match=f"{words} cannot be told from one another"):
            tables.column(table, name)
    assert table.select(tables.column(table, "i")).collect() == [(1,)]


def test_an_id_and_a_content_of_one_name_are_two_columns(spark):
    table = spark.createDataFrame(
        [(("k", 1), ("t", 2))], "a struct<x:string,n:int>, b struct<x:string,n:int>"
    )
    for key, content, values in (("a.x", "b.x", ("k", "t")), ("a.x", "a.x", ("k", "k"))):
        corpus = tables.select_corpus(table, key, content, "text")
        assert corpus.id == "x"
        assert corpus.rows.collect() == [values]
        assert corpus.rows.select(tables.column(corpus.rows, "x")).collect() == [values[:1]]


def test_training_and_evaluating_ids_of_any_name(run_job, tmp_path):
    count = 60
    matrix = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    labels = ["one" if row[0] > 0 else "two" for row in matrix]
    vectors = pa.array(list(matrix), pa.list_(pa.float32()))
    source = write(
        tmp_path / "in.parquet", Status=list(range(count)), embedding=vectors, kind=labels
    )
    given = f"[{{path: {source}, id: Status}}]"
    code, message = run_job(
        "train",
        features=given,
        labels__path=source,
        labels__id="Status",
        labels__label="kind",
        output__path=str(tmp_path / "model"),
    )
    assert (code, message) == (0, "")
    assert pq.read_schema(next((tmp_path / "model/predictions").glob("*.parquet"))).names[0] == "id"
    asked = {"features": given, "head": str(tmp_path / "model"), "top_k": 1}
    code, message = run_job("classify", **asked, output__path=str(tmp_path / "out"))
    assert (code, "the id column is named Status" in message) == (2, True)


def test_a_slice_with_the_name_of_what_another_column_becomes_is_refused(run_job, tmp_path):
    neighbors = write(tmp_path / "n.parquet", query_id=[1], neighbor_id=[2], rank=[1])
    truth = write(tmp_path / "t.parquet", key=[1, 2], kind=["a", "a"], Label=["x", "y"])
    code, message = run_job(
        "evaluate",
        kind="retrieval",
        neighbors__path=neighbors,
        truth__path=truth,
        truth__id="key",
        truth__label="kind",
        slices="[Label]",
        report="false",
        output__path=str(tmp_path / "out"),
    )
    assert (code, "slices: the column Label has the name of what label" in message) == (2, True)
    assert not (tmp_path / "out").exists()
