"""Many staged files become few: the same rows, of the size asked for, sorted where it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from ember.errors import EmberError, InvalidConfig
from ember.settings import config
from ember.settings.outputs import TableOutputConfig
from ember.spark.publish import Output

FILES, ROWS = 12, 720


def given(**keys: Any) -> TableOutputConfig:
    return TableOutputConfig(path="out", **keys)


def table(spark):
    """Rows of random vectors in many partitions, their ids in no order."""
    vector = F.transform(F.sequence(F.lit(1), F.lit(64)), lambda each: F.rand(7).cast("float"))
    rows = spark.range(0, ROWS, 1, FILES)
    return rows.select((F.col("id") * 7 % ROWS).alias("key"), vector.alias("embedding"))


def staged(spark, folder: Path) -> tuple[Output, dict[int, list[float]], int]:
    """An output with its rows staged, those rows, and their bytes."""
    output = Output(spark, str(folder / "out"), "overwrite", {}, job="embed")
    output.check()
    with output.attempt():
        output.write(table(spark))
    files = list(Path(output.staging.new.removeprefix("file:")).glob("part-*"))
    assert len(files) == FILES
    rows = {row["key"]: row["embedding"] for file in files for row in read(file)}
    return output, rows, sum(file.stat().st_size for file in files)


def read(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


def published(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("part-*.parquet"))


@pytest.mark.parametrize("sort", [False, True])
def test_the_rows_are_the_same_in_files_of_the_size_asked_for(spark, tmp_path, sort):
    output, rows, size = staged(spark, tmp_path)
    output.merge(given(file_size=size // 3, sorted=sort), ["key"], ROWS)
    output.publish({"run_id": "one"})
    files = published(tmp_path)
    assert len(files) == 3
    assert all(0.1 * size < file.stat().st_size < 0.6 * size for file in files)
    found = [read(file) for file in files]
    told = [row for each in found for row in each]
    assert len(told) == ROWS
    assert {row["key"]: row["embedding"] for row in told} == rows
    keys = [row["key"] for row in told]
    assert (keys == sorted(keys)) is sort
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_few_small_files_and_large_ones_are_published_as_they_are(spark, tmp_path):
    output, _, size = staged(spark, tmp_path)
    output.merge(given(), ["key"], ROWS)
    output.merge(given(file_size=size // FILES), ["key"], ROWS)
    output.publish({"run_id": "one"})
    assert len(published(tmp_path)) == FILES


def test_where_rows_are_lost_nothing_is_published_and_the_staged_rows_are_resumed(spark, tmp_path):
    output = Output(spark, str(tmp_path / "out"), "fail", {}, job="embed")
    told = f"{ROWS + 1} rows were staged and {ROWS} are in"
    with pytest.raises(EmberError, match=told), output.attempt():  # noqa: PT012
        output.write(table(spark))
        output.merge(given(sorted=True), ["key"], ROWS + 1)
    assert not (tmp_path / "out").exists()
    resumed = Output(spark, str(tmp_path / "out"), "resume", {}, job="embed")
    with resumed.attempt():
        assert resumed.rows.read(resumed.staging.sources()).count() == ROWS


def test_the_parts_of_a_text_stay_in_one_file_and_in_order(spark, tmp_path):
    spark.conf.set("spark.sql.files.maxPartitionBytes", "400")  # files are read in pieces
    spark.conf.set("spark.sql.files.maxRecordsPerFile", "2")
    chunks = spark.range(0, 60, 1, 20).select(
        (F.col("id") % 20).alias("key"),
        F.floor(F.col("id") / 20).cast("int").alias("chunk"),
    )
    try:
        for sort in (False, True):
            output = Output(spark, str(tmp_path / "out"), "overwrite", {}, part="chunk")
            with output.attempt():
                output.write(chunks.repartition(20, "key").sortWithinPartitions("chunk"))
                size = output.storage.size(output.staging.new)[1]
                output.merge(given(file_size=size // 3, sorted=sort), ["key"], 60)
                output.publish({"run_id": "one", "job": "embed"})
            found = [read(file) for file in published(tmp_path)]
            assert 1 < len(found) <= 3
            held = [{row["key"] for row in each} for each in found]
            assert sum(map(len, held)) == 20
            for each in found:
                told = [(row["key"], row["chunk"]) for row in each]
                assert told == sorted(told)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
        spark.conf.unset("spark.sql.files.maxRecordsPerFile")


def test_files_have_the_codec_of_the_session_where_it_has_one_and_else_zstd(spark, tmp_path):
    def codec() -> str:
        output = Output(spark, str(tmp_path / "out"), "overwrite", {}, job="embed")
        with output.attempt():
            output.write(spark.range(5).coalesce(1))
            output.publish({"run_id": "one"})
        (file,) = published(tmp_path)
        return pq.read_metadata(file).row_group(0).column(0).compression

    assert codec() == "ZSTD"
    spark.conf.set("spark.sql.parquet.compression.codec", "gzip")
    try:
        assert codec() == "GZIP"
    finally:
        spark.conf.unset("spark.sql.parquet.compression.codec")


@pytest.mark.parametrize(
    ("size", "size_in_bytes"),
    [("256 MB", 2**28), ("1.5GiB", 3 * 2**29), ("64m", 2**26), ("1000", 1000), (1000, 1000)],
)
def test_a_size_is_given_in_bytes_or_with_a_unit(size, size_in_bytes):
    assert given(file_size=size).file_bytes == size_in_bytes


@pytest.mark.parametrize("size", ["large", "-1", "0", "3 lb", ""])
def test_what_is_no_size_is_refused_by_its_key(size):
    with pytest.raises(InvalidConfig, match=r"file_size.*(256 MB|is empty)"):
        config.parse(TableOutputConfig, {"path": "out", "file_size": size}, "--set")
