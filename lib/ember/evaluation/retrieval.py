"""Judging ranked lists of neighbors: figures for each query, and their means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, NumericType, StructField, StructType

from ember.errors import InvalidInput
from ember.evaluation.joining import key_of
from ember.evaluation.judgment import (
    Findings,
    Totals,
    answers_of,
    judge_rows,
    sum_rows,
    worst_rows,
)
from ember.evaluation.relevance import by_grade, by_label
from ember.evaluation.result import Evaluation, Figure
from ember.evaluation.slices import filled_slices, slices_of
from ember.spark.ids import check_can_be_equal
from ember.spark.persisted import kept
from ember.spark.tables import column
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.query_sums import FigureSums, score_queries
from ember.worker.metrics.ranking import retrieval_names
from ember.worker.metrics.sums import from_limbs

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

    A query without a relevant document is left out and counted; one without a result counts as 0
    (trec_eval's option -c). Every figure is the mean over the other queries of that of
    ember.worker.metrics.ranking.retrieval_figures: mrr, map, and recall@k, precision@k, hit_rate@k
    and ndcg@k for each k of `at`.

    Tables: per_query (id, relevant, results, and each figure), worst (lowest average precision).

    Args:
        neighbors: query_id, neighbor_id, and rank (a number, smallest first) or, without it, score
            (largest first); ties go to the smaller neighbor_id. As `search` writes it.
        relevance: query_id, neighbor_id, and grade where documents are more or less relevant: above
            0 is relevant. Its queries are those that are judged.
        truth: in place of relevance, `id` and `label` of every document: those with the query's
            label are relevant.
        queries: `id` and `label` of the queries that are judged; by default they are those of
            `neighbors`, and have their labels from `truth`.
        id: column that names a row of truth and queries.
        label: column of their labels.
        at: the ranks at which recall, precision, hit rate and ndcg are taken.
        exclude_self: the queries are documents themselves, and a document is no neighbor of itself.
        slices: columns of the queries, else of the truth, or of the relevance table (whose smallest
            value in a query's rows is taken).
        bootstrap: as for `judge_classification`; queries are what is drawn.
        worst: rows of the table of that name.

    Raises:
        InvalidInput: tables that do not fit each other, ids that occur twice, or a document that is
            listed twice for a query.
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
    names = retrieval_names(at)

    def find(judged: DataFrame) -> Findings:
        with kept(_scored(judged, names, at)) as scored:
            values = F.array(*(F.col(f"`{name}`") for name in names)).alias("values")
            rows = scored.select("key", *slices_of(scored), values)
            totals = sum_rows(rows, FigureSums(len(names)).add, bootstrap)
            per_query = scored.drop("key", *slices_of(scored))
            nothing = F.lit(None)
            return Findings(
                _figures(totals, names),
                {"per_query": per_query, "worst": worst_rows(per_query, F.col("map"), worst)},
                answers_of(scored, nothing, nothing, F.col("map")),
                known.notes,
                held=(scored,),
                lists=lists.select("id", "documents", "gains"),
            )

    rows = _units(known.queries, lists, slices)
    check = _refuse_repeated
    return judge_rows("retrieval", rows, slices, find, wrong=(_NO_RESULT,), check=check)


def _without_self(rows: DataFrame) -> DataFrame:
    query, document = (field.dataType for field in rows.select(*_PAIR).schema)
    check_can_be_equal(query, document, "the ids that exclude_self compares")
    return rows.filter(~column(rows, "query_id").eqNullSafe(column(rows, "neighbor_id")))


def _plain(rows: DataFrame) -> DataFrame:
    """The neighbors as query_id, neighbor_id, and `place`, by which they are sorted."""
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
    """One row a query: id, key, gains, ideal, relevant, reason, repeated, unplaced, slices."""
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


def _scored(rows: DataFrame, names: Sequence[str], at: Sequence[int]) -> DataFrame:
    """The judged queries with their figures: id, key, relevant, results, slices, each figure."""
    slices = slices_of(rows)
    given = rows.select("id", "key", "relevant", *slices, "gains", "ideal")
    passed = [given.schema[name] for name in ("id", "key", "relevant", *slices)]
    plain = [f"figure_{position}" for position in range(len(names))]
    figures = [StructField(name, DoubleType()) for name in ("results", *plain)]
    schema = StructType([*passed, *figures])
    scored = given.mapInArrow(score_queries(len(passed), plain, at), schema)
    results = F.col("results").cast("long").alias("results")
    named = (F.col(one).alias(name) for one, name in zip(plain, names, strict=True))
    return scored.select("id", "key", "relevant", *slices, results, *named)


def _figures(totals: Totals, names: Sequence[str]) -> list[Figure]:
    figures = []
    for name in totals.slices():
        n, *limbs = totals.of("total", name, 1 + 2 * len(names))
        means = from_limbs(np.array(limbs))
        figures += [
            Figure(metric, name, ratio(mean, n), int(n[0]), totals.groups)
            for metric, mean in zip(names, means, strict=True)
        ]
    return figures
