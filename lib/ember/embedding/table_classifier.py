"""Classifying rows by a head on their embeddings, out of one table or several joined by id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.embedding.row_work import Body, map_rows
from ember.errors import InvalidInput
from ember.settings.tables import EmbeddingsConfig
from ember.spark import footers, origins, tables
from ember.spark.accounting import Reports
from ember.spark.ids import check_can_be_equal
from ember.spark.publish import Output
from ember.worker.heads.head import Head
from ember.worker.heads.scoring import predict_features
from ember.worker.results import Predictions
from ember.worker.stats import TaskStats

__all__ = ["TableClassifier", "described", "digest"]


@dataclass(frozen=True)
class TableClassifier:
    """Rows of embeddings, and the head that labels them. See `row_work.RowWork`.

    rows: (id, an embedding or null for each table), a row for every id of any table. With one table
        its rows are taken as they are; with several an id occurs at most once in each.
    parts: dimension of each table's embeddings.
    """

    rows: DataFrame
    id: str
    parts: tuple[int, ...]
    predictions: Predictions

    @classmethod
    def read(
        cls,
        spark: SparkSession,
        features: Sequence[EmbeddingsConfig],
        head: Head,
        predictions: Predictions,
    ) -> TableClassifier:
        """The tables that the configuration names, checked against the head and joined.

        Raises InvalidInput for another number of tables than the head was trained on, ids of
        different types, and ids that occur twice where there are several tables.
        """
        if len(features) != len(head.parts):
            raise InvalidInput(
                f"features names {len(features)} tables and the head was trained on "
                f"{len(head.parts)}; give the same ones in the same order"
            )
        read = [tables.read_embeddings(spark, each) for each in features]
        for each in read[1:]:
            kinds = (read[0].schema["id"].dataType, each.schema["id"].dataType)
            check_can_be_equal(*kinds, "the ids of two feature tables")
        first = tables.read_table(spark, features[0])
        name = first.select(tables.column(first, features[0].id)).columns[0]
        tables.check_result_name(first, name, "predictions", "status", "error")
        rows = _joined(read) if len(read) > 1 else read[0]
        named = rows.toDF(name, *(f"_features_{number}" for number in range(len(read))))
        return cls(named, name, head.parts, predictions)

    @property
    def part(self) -> None:
        return None

    @property
    def identity(self) -> dict[str, str | None]:
        key = f"{self.id} {self.rows.schema[0].dataType.simpleString()}"
        facts: dict[str, str | None] = {"job": "classify", "id": key}
        facts["predictions"] = digest(self.predictions)
        if len(self.parts) > 1:  # a row is made of rows of all tables
            state = origins.state(self.rows)
            facts["input"] = origins.fingerprint(self.rows.sparkSession, state)
        return facts

    def try_out(self) -> str:
        return f"configuration, {len(self.parts)} feature tables and the head are fine"

    def spread(self, rows: DataFrame, total: int | None = None) -> tuple[DataFrame, int]:
        counts = footers.partition_rows(rows)
        return rows, rows.count() if counts is None else sum(counts)

    def run(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        columns = (self.predictions.name, "status", "error")
        return map_rows(rows, _body(self.parts, self.predictions), columns, reports)

    def describe(self, output: Output) -> dict[str, Any]:
        facts = {"dimension": sum(self.parts), **described(self.predictions)}
        return facts if len(self.parts) == 1 else {**facts, "lacking_table": self._lacking()}

    def _lacking(self) -> list[int]:
        """How many rows have no vector in each table, and are classified by the others."""
        vectors = self.rows.columns[1:]
        counts = (F.count_if(F.col(name).isNull()).alias(name) for name in vectors)
        return [int(count) for count in self.rows.agg(*counts).collect()[0]]


def _joined(read: Sequence[DataFrame]) -> DataFrame:
    """One row for each id of any table: its embedding in each, null where it is not."""
    marked = [table.withColumn("table", F.lit(number)) for number, table in enumerate(read)]
    union = reduce(DataFrame.unionByName, marked)
    twice = union.groupBy("table", "id").count().filter("count > 1").limit(5).collect()
    if twice:
        named = ", ".join(f"{row['id']} in table {row['table']}" for row in twice)
        raise InvalidInput(
            f"ids occur more than once in a feature table ({named}), so that rows cannot be "
            "joined; make them unique"
        )
    chosen = (
        F.first(F.when(F.col("table") == number, F.col("embedding")), ignorenulls=True)
        for number in range(len(read))
    )
    return union.groupBy("id").agg(*(each.alias(f"e{n}") for n, each in enumerate(chosen)))


def _body(parts: tuple[int, ...], predictions: Predictions) -> Body:
    def run(
        batches: Iterable[pa.RecordBatch], stats: TaskStats
    ) -> Generator[pa.RecordBatch, None, None]:
        yield from predict_features(batches, parts, predictions, stats)

    return run


def described(predictions: Predictions) -> dict[str, Any]:
    """What the manifest says of labels and head."""
    head = predictions.head
    return {
        "labels": len(predictions.labels),
        "head": head.fingerprint() if isinstance(head, Head) else None,
    }


def digest(predictions: Predictions) -> str:
    """Names all that decides the predictions of a given output of the model."""
    facts = [
        predictions.labels,
        predictions.top_k,
        predictions.thresholds,
        predictions.normalize,
        described(predictions)["head"],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
