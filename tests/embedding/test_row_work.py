"""How rows are spread over tasks."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from corpora import write
from ember.embedding.row_work import spread


def sizes(rows) -> list[int]:
    counted = rows.groupBy(F.spark_partition_id()).count().collect()
    return [row["count"] for row in counted]


def jobs_of(spark, work):
    """What `work` gives, and how many Spark jobs it took."""
    spark.sparkContext.setJobGroup("counted", "")
    try:
        given = work()
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    return given, len(spark.sparkContext.statusTracker().getJobIdsForGroup("counted"))


def corpus(spark, count, partitions):
    return spark.range(0, count, 1, partitions).select("id", F.col("id").cast("string").alias("c"))


def test_one_large_partition_is_split_into_tasks_of_the_asked_size(spark):
    rows, total = spread(corpus(spark, 3000, 1), "text", 100)
    assert total == sum(sizes(rows)) == 3000
    assert rows.rdd.getNumPartitions() == 30
    assert max(sizes(rows)) < 200


def test_a_skewed_input_is_evened_out(spark):
    skewed = corpus(spark, 5000, 1).union(corpus(spark, 10, 10))
    rows, _ = spread(skewed, "text", 500)
    assert max(sizes(rows)) < 1000


def test_small_even_partitions_are_left_as_they_are(spark):
    rows = corpus(spark, 1000, 10)
    assert spread(rows, "image", "auto") == (rows, 1000)


def test_a_few_rows_still_use_every_core(spark):
    rows, total = spread(corpus(spark, 8, 1), "image", "auto")
    assert total == 8
    assert len(sizes(rows)) > 1


def test_rows_of_one_id_are_spread_by_their_content(spark):
    same = spark.range(2000).select(
        F.lit(1).alias("id"), F.repeat(F.lit("x"), F.col("id").cast("int")).alias("content")
    )
    rows, _ = spread(same, "text", 100)
    assert max(sizes(rows)) < 400


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_are_counted(spark, count):
    rows, total = spread(corpus(spark, count, 1), "image", "auto")
    assert total == count == rows.count()


def test_rows_of_files_are_counted_and_spread_without_a_spark_job(spark, tmp_path):
    ids = [*range(300)]
    table = spark.read.parquet(write(tmp_path / "in.parquet", id=ids, c=[str(n) for n in ids]))
    assert jobs_of(spark, lambda: spread(table, "text", 100)[1]) == (300, 0)
    total, jobs = jobs_of(spark, lambda: spread(table.filter("id >= 0"), "text", 100)[1])
    assert total == 300
    assert jobs > 0
    assert spread(table, "text", 100)[0].rdd.getNumPartitions() == 8
