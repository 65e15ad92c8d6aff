from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from corpora import write
from ember.spark import footers
from ember.spark.storage import Storage

SPLIT = "spark.sql.files.maxPartitionBytes"
OPENING = "spark.sql.files.openCostInBytes"


def counted(table) -> list[int]:
    """The rows of each partition, as a Spark job counts them."""
    counts = table.groupBy(F.spark_partition_id()).count().collect()
    return sorted(row["count"] for row in counts)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of several row groups, of one, of none, and with names that a URI would not have."""
    table = pa.table(
        {"id": range(50_000), "text": [f"{n * 7919 % 50_000:06}" for n in range(50_000)]}
    )
    place = tmp_path / "in"
    place.mkdir()
    pq.write_table(table, place / "a b%20ü.parquet", row_group_size=3500)
    pq.write_table(table.slice(0, 10), place / "few.parquet")
    pq.write_table(table.slice(0, 0), place / "none.parquet")
    return place


@pytest.fixture
def split(spark):
    """Have Spark divide files into parts of so many bytes."""
    spark.conf.set(OPENING, "1000")
    yield lambda size: spark.conf.set(SPLIT, str(size))
    spark.conf.unset(SPLIT)
    spark.conf.unset(OPENING)


@pytest.mark.parametrize("size", [10_000, 30_000, 300_000, 2**27])
def test_partitions_hold_the_rows_that_a_spark_job_counts_in_them(spark, folder, split, size):
    split(size)
    table = spark.read.parquet(str(folder))
    expected = counted(table)
    assert sum(expected) == 50_010
    assert len(expected) > 1 or size > 1_000_000
    assert sorted(footers.partition_rows(table)) == expected
    assert sorted(footers.partition_rows(table.select(F.upper("text"), "id"))) == expected


def test_files_in_folders_of_partitions_and_of_a_list_count(spark, tmp_path):
    for day in "ab":
        write(tmp_path / "days" / f"day={day}" / "one.parquet", id=[1, 2], c=["x", "y"])
    write(tmp_path / "other.parquet", id=[3], c=["z"])
    assert sum(footers.partition_rows(spark.read.parquet(str(tmp_path / "days")))) == 4
    several = spark.read.parquet(str(tmp_path / "other.parquet"), str(tmp_path / "days/day=a"))
    assert sum(footers.partition_rows(several)) == 3
    assert (
        footers.partition_rows(spark.read.parquet(str(tmp_path / "days")).filter("day='a'")) is None
    )


def test_what_is_not_a_table_as_it_lies_there_is_not_told(spark, folder, tmp_path):
    table = spark.read.parquet(str(folder))
    for other in (
        table.filter("id > 5"),
        table.distinct(),
        table.limit(5),
        table.union(table),
        table.join(spark.range(3), "id", "left_anti"),
        table.select(F.explode(F.array("id", "id"))),
        spark.range(5),
    ):
        assert footers.partition_rows(other) is None
    table.write.json(str(tmp_path / "json"))
    assert footers.partition_rows(spark.read.json(str(tmp_path / "json"))) is None


def test_many_parts_and_other_stores_are_left_to_a_spark_job(spark, folder, split, monkeypatch):
    split(10_000)
    assert len(footers.partition_rows(spark.read.parquet(str(folder)))) > 5
    monkeypatch.setattr(footers, "_PARTS", 5)
    assert footers.partition_rows(spark.read.parquet(str(folder))) is None
    split(2**27)
    assert footers.partition_rows(spark.read.parquet(str(folder))) is not None
    monkeypatch.setattr(Storage, "local", lambda self, path: None)
    assert footers.partition_rows(spark.read.parquet(str(folder))) is None


def test_a_file_with_a_damaged_footer_is_left_to_spark_to_refuse(spark, tmp_path):
    path = write(tmp_path / "in" / "a.parquet", id=[1], c=["x"])
    whole = Path(path).read_bytes()
    (tmp_path / "in" / "b.parquet").write_bytes(whole)
    table = spark.read.parquet(str(tmp_path / "in"))
    assert sum(footers.partition_rows(table)) == 2
    for damaged in (whole[:-8] + b"\xff\xff\xff\x7fPAR1", whole[:-4] + b"PARX", b"PAR1", b""):
        (tmp_path / "in" / "b.parquet").write_bytes(damaged)
        assert footers.partition_rows(table) is None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_footer_is_the_same_read_here_or_through_hadoop(spark, folder, monkeypatch, elsewhere):
    if elsewhere:
        monkeypatch.setattr(Storage, "local", lambda self, path: None)
    storage = Storage(spark)
    path = folder / "a b%20ü.parquet"
    footer = footers.read(storage, f"file:{path}", path.stat().st_size)
    assert footer.num_rows == 50_000
    assert footer.num_row_groups == 15
    (folder / "text").write_text("PAR1")
    assert footers.read(storage, f"file:{folder}/text", 4) is None
