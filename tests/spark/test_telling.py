"""What runs tell of themselves; with the libraries of lineage and tracking: tests/tracking."""

from __future__ import annotations

import logging
import sys

import pytest

from corpora import manifest, write
from ember.settings import config
from ember.settings.comparison import SearchConfig
from ember.spark import datasets
from ember.spark.parent_run import parent_run


def test_a_run_names_the_run_that_it_is_part_of_and_lacks_libraries_with_a_warning(
    run_job, tmp_path, monkeypatch
):
    run_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"s3://of/airflow/nightly.project/{run_id}")
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ember")
    for library in ("openlineage.client", "mlflow"):
        monkeypatch.setitem(sys.modules, library, None)
    vectors = [[float(n == m) for m in range(4)] for n in range(4)]
    table = write(tmp_path / "in.parquet", id=["a", "b", "c", "d"], embedding=vectors)
    given = {"input__path": table, "input__id": "id", "dimension": 2}
    code, said = run_job("project", "--run-id=own", **given, output__path=tmp_path / "out")
    assert code == 0
    told = manifest(tmp_path / "out")
    parent = {"namespace": "s3://of/airflow", "job": "nightly.project", "run_id": run_id}
    assert (told["run_id"], told["parent_run"]) == ("own", parent)
    lines = said.splitlines()
    assert len(lines) == 2
    assert "pip install 'ember-spark[lineage]'" in lines[0]
    assert "pip install 'ember-spark[mlflow]'" in lines[1]


def test_what_is_no_run_is_no_parent_with_a_warning(spark, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("ember"), "propagate", True)
    for wrong in ("airflow/nightly", "airflow/nightly/7"):
        monkeypatch.setenv("OPENLINEAGE_PARENT_ID", wrong)
        assert parent_run(spark) is None
    (said,) = {each.getMessage() for each in caplog.records}
    assert said.startswith("OPENLINEAGE_PARENT_ID names no run")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("s3a://KEY:SECRET@bucket/a/b", ("s3://bucket", "a/b")),
        ("gs://bucket/a/day=*/b", ("gs://bucket", "a")),
        ("hdfs://127.0.0.1:9/a/b", ("hdfs://127.0.0.1:9", "/a/b")),
        (
            "abfss://box@account.dfs.core.windows.net/a",
            ("abfss://box@account.dfs.core.windows.net", "/a"),
        ),
        ("/data/[ab]*/c.parquet", ("file", "/data")),
    ],
)
def test_what_is_read_is_named_as_openlineage_names_it(spark, path, named):
    keys = {"queries.path": path, "queries.id": "id", "output.path": "out"}
    given = config.load(SearchConfig, None, [f"{key}={value}" for key, value in keys.items()])
    (found,) = datasets.read(spark, given, looked_at=False)
    assert (found.namespace, found.name) == named


def test_a_named_table_is_where_it_lies_and_has_its_name_beside(spark, tmp_path):
    spark.range(3).write.saveAsTable("told", path=str(tmp_path / "told"))
    try:
        keys = ["queries.table=told", "queries.id=id", "output.path=out"]
        given = config.load(SearchConfig, None, keys)
        (found,) = datasets.read(spark, given, looked_at=True)
    finally:
        spark.sql("DROP TABLE told")
    assert (found.namespace, found.name) == ("file", str(tmp_path / "told"))
    assert found.table == ("spark_catalog", "default.told")
    assert found.schema == (("id", "bigint"),)
