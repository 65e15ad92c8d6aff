"""Rows that have to meet, behind a join that becomes a broadcast one while it runs."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pytest
from pyspark import TaskContext

import ember
from ember.spark.overrides import overridden
from ember.spark.together import together


@pytest.fixture
def late_broadcast(spark):
    """Joins are planned by sorting, as of large tables, and one of a small result is broadcast."""
    settings = {
        "spark.sql.autoBroadcastJoinThreshold": "-1",
        "spark.sql.adaptive.autoBroadcastJoinThreshold": "10MB",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    with overridden(spark, settings):
        yield


@pytest.mark.parametrize("partitions", [None, 4])
def test_rows_of_one_key_meet_in_one_partition(spark, late_broadcast, partitions):
    def places(batches):  # by value: workers have no module of this name
        number = TaskContext.get().partitionId()
        for batch in batches:
            place = pa.array([number] * len(batch), pa.int32())
            yield pa.RecordBatch.from_arrays([batch.column(0), place], ["key", "place"])

    rows = spark.range(4000, numPartitions=6).selectExpr("id % 500 AS key", "id")
    few = spark.range(0, 4000).groupBy("id").count().selectExpr("id AS key").filter("key < 200")
    met = together(rows.join(few, "key"), "key", partitions=partitions)
    found = met.select("key").mapInArrow(places, "key long, place int").collect()
    assert Counter(row.key for row in found) == dict.fromkeys(range(200), 8)
    assert len({tuple(row) for row in found}) == 200
    assert len({row.place for row in found}) > 1


def test_dedup_finds_the_same_copies(spark, late_broadcast):
    drawn = random.Random(0)
    words = [f"w{number}" for number in range(50_000)]
    texts = [" ".join(drawn.choices(words, k=30)) for _ in range(1000)]
    texts += [f"another {text}" for text in texts]
    rows = spark.createDataFrame(pa.table({"id": range(2000), "text": texts})).repartition(6)
    found = ember.dedup(rows, id="id", content="text", modality="text")
    removed = {(row.id, row.kept_id) for row in found.removed.collect()}
    assert removed == {(n, n + 1000) for n in range(1000)}
