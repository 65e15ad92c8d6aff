"""Judging ranked lists of neighbors: figures for each query, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, NumericType, StructField, StructType

from ember.errors import InvalidInput
from ember.evaluation.joining import issues_of, key_of
from ember.evaluation.relevance import by_grade, by_label
from ember.evaluation.result import Evaluation, Figure
from ember.evaluation.slices import few_slices, filled_slices, slice_names
from ember.evaluation.spark_sums import Chunk, Totals, sum_rows
from ember.spark.ids import check_can_be_equal
from ember.spark.persisted import kept
from ember.spark.tables import column
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.ranking import retrieval_figures, retrieval_names
from ember.worker.metrics.sums import CHUNK_ROWS, Sums, flat, from_limbs, to_limbs

__all__ = ["judge_retrieval"]

_PAIR = ("query_id", "neighbor_id")
_NO_TRUTH = "queries without a truth, left out"
_NONE_RELEVANT = "queries without a relevant document, left out"
_NO_RESULT = "queries without a result, counted as 0"


def judge_retrieval(
    neighbors: DataFrame,
    *,
    relevance: DataFrame | None = None,
    truth: DataFrame | None = None,
    queries: DataFrame | None = None,
    id: str = "id",
    label: str = "label",
    at: Sequence[int] = (1, 5, 10),
    exclude_self: bool = False,
    slices: Sequence[str] = (),
    bootstrap: int = 1000,
    worst: int = 100,
) -> Evaluation:
    """Judge a ranked list of documents for each query.

    neighbors: query_id, neighbor_id, and rank (a number, smallest first) or, without it, score
        (largest first); ties go to the smaller neighbor_id. As `search` writes it.
    relevance: query_id, neighbor_id, and grade where documents are more or less relevant: above 0
        is relevant. Its queries are those that are judged.
    truth: in place of relevance, `id` and `label` of every document: those with the query's label
        are relevant. queries: `id` and `label` of the queries that are judged; by default they
        are those of `neighbors`, and have their labels from `truth`.
    exclude_self: the queries are documents themselves, and a document is no neighbor of itself.
    slices: columns of the queries, else of the truth, or of the relevance table (whose smallest
        value in a query's rows is taken).
    bootstrap: as for `judge_classification`; queries are what is drawn.

    A query without a relevant document is left out and counted; one without a result counts as 0
    (trec_eval's option -c). Every figure is the mean over the other queries of that of
    ember.worker.metrics.ranking.retrieval_figures: mrr, map, and recall@k, precision@k, hit_rate@k
    and ndcg@k for each k of `at`.

    Tables: per_query (id, relevant, results, and each figure), worst (lowest average precision).

    Raises InvalidInput for tables that do not fit each other, ids that occur twice, or a document
    that is listed twice for a query.
    """
    if (relevance is None) == (truth is None):
        raise InvalidInput("give either relevance or truth")
    if exclude_self and queries is not None:
        raise InvalidInput("exclude_self is for queries that are documents; leave queries out")
    if exclude_self:
        neighbors = _without_self(neighbors)
        relevance = _without_self(relevance) if relevance is not None else None
    at = tuple(dict.fromkeys(at))
    depth = max(at)
    found = _plain(neighbors)
    if relevance is not None:
        known = by_grade(found, relevance, depth, slices)
    elif truth is not None:
        known = by_label(
            found, truth, queries, depth, slices, id=id, label=label, exclude_self=exclude_self
        )
    lists = _lists(known.neighbors)
    with kept(_units(known.queries, lists, slices)) as rows:
        _refuse_repeated(rows)
        names = retrieval_names(at)
        with kept(_scored(rows.filter("judged"), names, at)) as scored:
            few_slices(scored, slices)
            totals = sum_rows(
                scored.select(
                    "key", *slice_names(slices), F.array(*map(_quoted, names)).alias("values")
                ),
                _Rule(len(names)).add,
                bootstrap,
            )
            figures = _figures(totals, names, bootstrap)
            unusable = rows.filter(F.col("reason").isNotNull()).select("id", "reason")
            issues = [*issues_of(unusable), *known.notes]
            failed = sum(issue.rows for issue in issues if issue.reason == _NO_RESULT)
            order = (F.col("map"), F.col("id"))
            per_query = scored.drop("key", *slice_names(slices))
            tables = {
                "per_query": per_query,
                "worst": per_query.orderBy(*order).limit(worst).coalesce(1),
            }
            missing = F.lit(None).cast("string")
            outcome = scored.select(
                "id",
                missing.alias("truth"),
                missing.alias("answer"),
                F.col("map").alias("outcome"),
                F.array(*slice_names(slices)).alias("slices"),
            )
            held = (rows, scored)
            total = figures[0].n
            return Evaluation(
                *("retrieval", figures, tables, issues, outcome, unusable, total, failed, held),
                lists=lists.select("id", "documents", "gains"),
            )


def _without_self(rows: DataFrame) -> DataFrame:
    query, document = (field.dataType for field in rows.select(*_PAIR).schema)
    check_can_be_equal(query, document, "the ids that exclude_self compares")
    return rows.filter(~column(rows, "query_id").eqNullSafe(column(rows, "neighbor_id")))


def _plain(rows: DataFrame) -> DataFrame:
    """Neighbors as query_id, neighbor_id, and `place`, which sorts them."""
    if "rank" in rows.columns:
        place, name = column(rows, "rank").cast("double"), "rank"
    else:
        place, name = -column(rows, "score").cast("double"), "score"
    kind = rows.schema[name].dataType
    if not isinstance(kind, NumericType):
        raise InvalidInput(f"the column {name} of neighbors is {kind.simpleString()}, not a number")
    ids = (column(rows, each).alias(each) for each in ("query_id", "neighbor_id"))
    return rows.select(*ids, place.alias("place"))


def _lists(graded: DataFrame) -> DataFrame:
    """For each query the gains in order of rank, and the documents."""
    entry = F.struct("place", "neighbor_id", F.coalesce("gain", F.lit(0.0)).alias("gain"))
    lists = graded.groupBy(F.col("query_id").alias("id")).agg(
        F.sort_array(F.collect_list(entry)).alias("list")
    )
    return lists.select(
        "id",
        F.transform("list", lambda each: each["gain"]).alias("gains"),
        F.transform("list", lambda each: each["neighbor_id"]).alias("documents"),
        F.exists("list", lambda e: e["place"].isNull() | F.isnan(e["place"])).alias("unplaced"),
        F.lit(True).alias("listed"),
    )


def _units(asked: DataFrame, lists: DataFrame, slices: Sequence[str]) -> DataFrame:
    """One row a query: id, key, gains, ideal, relevant, reason, judged, slices."""
    rows = asked.withColumn("known", F.lit(True)).join(lists, "id", "full_outer")
    reason = (
        F.when(F.col("known").isNull() | F.col("relevant").isNull(), _NO_TRUTH)
        .when(F.col("relevant") <= 0, _NONE_RELEVANT)
        .when(F.col("listed").isNull(), _NO_RESULT)
    )
    rows = rows.withColumn("reason", reason)
    return rows.select(
        "id",
        key_of(rows).alias("key"),
        F.coalesce("gains", F.array().cast("array<double>")).alias("gains"),
        "ideal",
        "relevant",
        "reason",
        (F.size("documents") != F.size(F.array_distinct("documents"))).alias("repeated"),
        "unplaced",
        (F.col("reason").isNull() | (F.col("reason") == _NO_RESULT)).alias("judged"),
        *filled_slices(slices),
    )


def _refuse_repeated(rows: DataFrame) -> None:
    amiss = rows.filter("repeated OR unplaced").orderBy("id").limit(5).collect()
    if amiss:
        named = ", ".join(str(row["id"]) for row in amiss)
        what = (
            "a document more than once"
            if amiss[0]["repeated"]
            else "a rank or score that is no number"
        )
        raise InvalidInput(f"the neighbors of some queries have {what}: {named}")


def _quoted(name: str) -> Column:
    return F.col(f"`{name}`")


def _scored(rows: DataFrame, names: Sequence[str], at: Sequence[int]) -> DataFrame:
    """The judged queries with their figures: id, key, relevant, results, slices, each figure."""
    slices = [name for name in rows.columns if name.startswith("slice_")]
    given = rows.select("id", "key", "relevant", *slices, "gains", "ideal")
    kept_fields = [given.schema[name] for name in ("id", "key", "relevant", *slices)]
    plain = [f"figure_{position}" for position in range(len(names))]
    figures = [StructField(name, DoubleType()) for name in ("results", *plain)]
    schema = StructType([*kept_fields, *figures])
    scored = given.mapInArrow(_scorer(len(kept_fields), plain, at), schema)
    results = F.col("results").cast("long").alias("results")
    named = (F.col(one).alias(name) for one, name in zip(plain, names, strict=True))
    return scored.select("id", "key", "relevant", *slices, results, *named)


def _scorer(
    passed: int, plain: Sequence[str], at: Sequence[int]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                rows = batch.slice(start, CHUNK_ROWS)
                gains, results = _padded(rows.column("gains"))
                ideal, _ = _padded(rows.column("ideal"))
                relevant = rows.column("relevant").to_numpy(zero_copy_only=False)
                figures = retrieval_figures(gains, ideal, relevant, at)
                columns = [pa.array(values) for values in (results, *figures.T)]
                yield pa.RecordBatch.from_arrays(
                    [*rows.columns[:passed], *columns],
                    names=[*rows.schema.names[:passed], "results", *plain],
                )

    return run


def _padded(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Lists of numbers as the rows of a matrix, filled up with 0, and how long each is."""
    values, rows, places = flat(lists)
    matrix = np.zeros((len(lists), int(places.max(initial=-1)) + 1))
    matrix[rows, places] = values.to_numpy(zero_copy_only=False)
    return matrix, np.bincount(rows, minlength=len(lists)).astype(np.float64)


@dataclass(frozen=True)
class _Rule:
    """What each query adds to the sums: one, and its figures."""

    figures: int

    def add(self, chunk: Chunk, sums: Sums) -> None:
        values, _, _ = flat(chunk.rows.column("values"))
        matrix = values.to_numpy(zero_copy_only=False).reshape(-1, self.figures)
        ones = np.ones((len(matrix), 1), np.int64)
        zeros = np.zeros(len(matrix), np.int64)
        for slicing in chunk.slicings:
            added = np.hstack([ones, to_limbs(matrix)])
            sums.add("total", slicing, zeros, added, chunk.weights)


def _figures(totals: Totals, names: Sequence[str], replicates: int) -> list[Figure]:
    figures = []
    for name in totals.slices():
        n, *limbs = totals.of("total", name, 1 + 2 * len(names), replicates)
        means = from_limbs(np.array(limbs))
        figures += [
            Figure(metric, name, ratio(mean, n), int(n[0]))
            for metric, mean in zip(names, means, strict=True)
        ]
    return figures
