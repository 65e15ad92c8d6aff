"""What an output goes by: hidden settings, parts of a row in one file, whose rows are bad."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from ember.errors import InvalidInput, OtherSettings
from ember.spark.publish import Output

CHUNKS = "id string, chunk int, embedding array<float>, status string, error string"


def published(spark, path, table, *, mode="fail", identity=None, **given):
    output = Output(spark, str(path), mode, identity or {}, job="embed", **given)
    output.check()
    with output.attempt():
        output.write(table)
        output.publish({"run_id": "one"})
    return output


def test_of_a_hidden_setting_another_value_is_another_identity(spark, tmp_path):
    """A secret may say whose rows they are; beside the rows stands only its hash."""
    out = tmp_path / "out"
    hushed = {name: {"root": f"s3a://me:{name}@bucket/"} for name in ("hUsH", "PsSt")}
    published(spark, out, spark.range(3), identity=hushed["hUsH"])
    Output(spark, str(out), "resume", hushed["hUsH"], job="embed").check()
    with pytest.raises(OtherSettings, match=r"hidden was [0-9a-f]{64}") as caught:
        Output(spark, str(out), "resume", hushed["PsSt"], job="embed").check()
    said = str(caught.value) + (out / "_manifest.json").read_text()
    assert not [name for name in hushed if name in said]
    assert "s3a://***@bucket/" in said


def chunks(spark, texts):
    """Three chunks for each text, all texts in one partition."""
    rows = [(text, number, [1.0], "ok", None) for text in texts for number in range(3)]
    return spark.createDataFrame(rows, CHUNKS).coalesce(1)


def files_of(folder):
    """In which files the chunks of each text are."""
    found = {}
    for file in folder.glob("part-*.parquet"):
        for key in pq.read_table(file)["id"].to_pylist():
            found.setdefault(key, set()).add(file.name)
    return found


def test_the_parts_of_a_text_are_in_one_file_also_when_they_are_kept(spark, tmp_path):
    """A part alone would pass for the whole text when the file with the last ones is gone."""
    texts, out = [f"t{number}" for number in range(6)], tmp_path / "out"
    spark.conf.set("spark.sql.files.maxRecordsPerFile", "2")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "64")  # Parquet files are read in pieces
    try:
        published(spark, tmp_path / "rows", chunks(spark, texts))
        assert max(map(len, files_of(tmp_path / "rows").values())) > 1  # as rows may be
        published(spark, out, chunks(spark, texts), part="chunk")
        assert {len(files) for files in files_of(out).values()} == {1}
        rows = spark.createDataFrame([(text, "…") for text in texts], "id string, content string")
        resumed = Output(spark, str(out), "resume", {}, job="embed", part="chunk")
        with resumed.attempt():
            todo, reused = resumed.resume(rows, "id")
            assert (todo.count(), reused) == (0, 6)
            resumed.publish({"run_id": "two"})
        assert {len(files) for files in files_of(out).values()} == {1}
        assert pq.read_table(out).num_rows == 18
    finally:
        spark.conf.unset("spark.sql.files.maxRecordsPerFile")
        spark.conf.unset("spark.sql.files.maxPartitionBytes")


def test_failed_rows_are_known_by_what_they_are_and_a_table_of_their_name_is_not(spark, tmp_path):
    """A table that somebody embedded into out.failures is an output, and no failed rows of out."""
    out = Output(spark, str(tmp_path / "out"), "fail", {}, job="embed")
    assert out.keep_failures(spark.range(2)) == f"file:{tmp_path}/out.failures"
    out.check()
    out.keep_failures(spark.range(5))
    assert pq.read_table(tmp_path / "out.failures").num_rows == 5
    published(spark, tmp_path / "out", spark.range(1))
    assert not (tmp_path / "out.failures").exists()
    published(spark, tmp_path / "out.failures", spark.range(4))
    published(spark, tmp_path / "out.rejected" / "left", spark.range(4))
    for mode in ("overwrite", "resume"):
        with pytest.raises(InvalidInput, match=r"out\.failures exists and was not written by"):
            Output(spark, str(tmp_path / "out"), mode, {}, job="embed").check()
    with pytest.raises(InvalidInput, match=r"out\.failures exists"):
        out.keep_failures(spark.range(9))
    assert pq.read_table(tmp_path / "out.failures").num_rows == 4
