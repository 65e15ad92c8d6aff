"""What is staged, counted in its files here and by Spark: the same, and as by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ember.errors import EmberError
from ember.spark import staged_rows
from ember.spark.publish import Output
from ember.spark.storage import Storage

ROWS = "id string, embedding array<float>, status string, error string"
CHUNKS = "id string, chunk int, embedding array<float>, status string, error string"


@pytest.fixture(params=["here", "by Spark", "by Spark, unreadable here"])
def counted(request, monkeypatch):
    """Where the files are read that are counted."""
    if request.param == "by Spark":
        monkeypatch.setattr(Storage, "local", lambda self, path: None)
    if request.param == "by Spark, unreadable here":

        def refuse(*_: object, **__: object) -> None:
            raise OSError("encrypted")

        monkeypatch.setattr(pq, "ParquetFile", refuse)
        monkeypatch.setattr(pq, "read_metadata", refuse)
    return request.param


@pytest.fixture
def staged(spark, tmp_path):
    """An output with these rows staged, as many files as partitions; its counts and its length."""

    def stage(rows, schema=ROWS, *, expected, partitions=3, kept=(), **given):
        output = Output(spark, str(tmp_path / "out"), "fail", {}, job="embed", **given)
        with output.attempt():
            if kept:
                spark.createDataFrame(kept, schema).write.mode("overwrite").parquet(
                    output.staging.kept
                )
            output.write(spark.createDataFrame(rows, schema).repartition(partitions))
            told = output.counts(expected), output.count(), output.vector_length()
            output.discard()
        return told

    return stage


def test_rows_are_counted_by_status_and_by_what_stands_before_the_colon(staged, counted):
    rows = [(f"r{n}", [1.0, 2.0, 3.0], "ok", None) for n in range(40)]
    rows += [(f"t{n}", None, "error", f"truncated image: {n} bytes: none") for n in range(7)]
    rows += [(None, None, "error", "null content")] * 2
    counts, count, length = staged(rows, expected=49)
    assert counts == {
        "rows": 49,
        "status": {"error": 9, "ok": 40},
        "reasons": {"truncated image": 7, "null content": 2},
    }
    assert [*counts["reasons"]] == ["truncated image", "null content"]
    assert (count, length) == (49, 3)


def test_rows_kept_of_an_earlier_attempt_count_with_those_of_this_one(staged, counted):
    kept = [(f"k{n}", [1.0, 2.0], "ok", None) for n in range(5)]
    rows = [(f"r{n}", None, "error", "empty content") for n in range(3)]
    counts, count, length = staged(rows, expected=8, kept=kept)
    assert counts["status"] == {"error": 3, "ok": 5}
    assert (count, length) == (8, 2)


def test_parts_stand_for_one_row_of_the_input(staged, counted):
    rows = [(f"t{n}", part, [1.0], "ok", None) for n in range(6) for part in range(3)]
    rows += [("bad", 0, None, "error", "null content")]
    counts, count, _ = staged(rows, CHUNKS, expected=7, part="chunk")
    assert counts["rows"] == count == 19
    assert counts["input_rows"] == 7
    assert counts["status"] == {"error": 1, "ok": 18}


def test_no_row_and_no_vector(staged, counted):
    counts, count, length = staged([], expected=0)
    assert counts == {"rows": 0, "status": {}, "reasons": {}}
    assert (count, length) == (0, None)
    failed = [("a", None, "error", "null content")] * 200
    assert staged(failed, expected=200)[2] is None
    assert staged([*failed, ("z", [], "ok", None)], expected=201)[2] is None
    assert staged([*failed, ("z", [0.0] * 4, "ok", None)], expected=201, partitions=1)[2] == 4


def test_rows_that_lack_or_are_there_twice_are_refused(staged, counted):
    rows = [("a", [1.0], "ok", None), ("b", [1.0], "ok", None)]
    for expected in (1, 3):
        with pytest.raises(EmberError, match=f"{expected} rows were to be written and 2 are there"):
            staged(rows, expected=expected)


def test_rows_are_counted_here_without_a_spark_job_and_whatever_is_not_committed(
    spark, tmp_path, monkeypatch
):
    output = Output(spark, str(tmp_path / "out"), "fail", {}, job="embed")
    monkeypatch.setattr(staged_rows, "_ROWS", 2)  # several batches
    with output.attempt():
        rows = [(str(n), [1.0], "ok" if n % 3 else "error", f"{n % 2}: x") for n in range(20)]
        output.write(spark.createDataFrame(rows, ROWS).coalesce(1))
        new = Path(output.staging.new.removeprefix("file:"))
        whole = next(new.glob("part-*.parquet")).read_bytes()
        (new / "_temporary" / "0").mkdir(parents=True)
        (new / "_temporary" / "0" / "part-00001.parquet").write_bytes(whole)
        (new / ".part-00002.parquet").write_bytes(whole)
        monkeypatch.setattr(type(output.rows), "frame", None)  # which Spark would read
        assert output.counts(20)["status"] == {"error": 7, "ok": 13}
        assert output.counts(20)["reasons"] == {"0": 4, "1": 3}
        assert output.count() == 20
        output.discard()
