"""Which documents are relevant to a query: those that a table grades, or those with its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import FractionalType, NumericType

from ember.errors import InvalidInput
from ember.evaluation.joining import check_ids
from ember.evaluation.result import Issue
from ember.evaluation.slices import check_slices, slice_columns, slice_names
from ember.spark.ids import check_can_be_equal
from ember.spark.tables import column

__all__ = ["Relevance", "by_grade", "by_label"]


@dataclass(frozen=True)
class Relevance:
    """What is relevant among the neighbors, and what there was to find.

    Attributes:
        neighbors: as given, with a `gain` double: the grade where the document is relevant; 0 where
            it is not, or null where it is not judged.
        queries: id; relevant long, how many documents are, null where the query has no label;
            ideal, the largest gains there are for it, best first; slice_0, …
    """

    neighbors: DataFrame
    queries: DataFrame
    notes: Sequence[Issue] = ()


def by_grade(
    neighbors: DataFrame, relevance: DataFrame, depth: int, slices: Sequence[str]
) -> Relevance:
    """Relevance by a table of judgments (query_id, neighbor_id and, if any, grade).

    neighbors: query_id, neighbor_id, and columns that are passed on. depth: the most gains that an
        ideal list keeps. slices: as for `judge_retrieval`.
    """
    for name in ("query_id", "neighbor_id"):
        kind = relevance.select(column(relevance, name)).schema[0].dataType
        given = neighbors.schema[name].dataType
        check_can_be_equal(given, kind, f"{name}s of neighbors and relevance")
    grades = _grades(relevance, slices)
    gains = F.filter(F.collect_list("gain"), lambda gain: gain > 0)
    queries = grades.groupBy(F.col("query_id").alias("id")).agg(
        F.sort_array(gains, asc=False).alias("gains"),
        *(F.min_by(name, f"{name}_value").alias(name) for name in slice_names(slices)),
    )
    queries = queries.select(
        "id",
        F.size("gains").cast("long").alias("relevant"),
        F.slice("gains", 1, depth).alias("ideal"),
        *slice_names(slices),
    )
    graded = neighbors.join(
        grades.select("query_id", "neighbor_id", "gain"), ["query_id", "neighbor_id"], "left"
    )
    return Relevance(graded, queries)


def _grades(relevance: DataFrame, slices: Sequence[str]) -> DataFrame:
    """The judgments as query_id, neighbor_id, gain, slice_0, slice_0_value …, checked."""
    named = dict(zip(slice_names(slices), slices, strict=True))
    divided = slice_columns(relevance, slices)
    grades = relevance.select(
        "query_id",
        "neighbor_id",
        _gain(relevance).alias("gain"),
        *divided.values(),
        *(column(relevance, named[alias]).alias(f"{alias}_value") for alias in divided),
    )
    endless = grades.filter(F.col("gain") == float("inf")).limit(1).collect()
    if endless:
        raise InvalidInput(
            f"the relevance table has an infinite grade, of document {endless[0]['neighbor_id']} "
            f"for query {endless[0]['query_id']}; give a finite one"
        )
    # It would count as a document that no search can find.
    unnamed = grades.filter("query_id IS NULL OR neighbor_id IS NULL").limit(1).collect()
    if unnamed:
        lacking = "query_id" if unnamed[0]["query_id"] is None else "neighbor_id"
        raise InvalidInput(f"the relevance table has a row whose {lacking} is null; leave it out")
    twice = grades.groupBy("query_id", "neighbor_id").count().filter("count > 1").limit(1).collect()
    if twice:
        raise InvalidInput(
            f"the relevance table has document {twice[0]['neighbor_id']} of query "
            f"{twice[0]['query_id']} {twice[0]['count']} times; keep one"
        )
    check_slices(grades, slices)
    return grades


def _gain(relevance: DataFrame) -> Column:
    """The grade; 0 where it is null, NaN or negative, and 1 in a table without grades."""
    if "grade" not in relevance.columns:
        return F.lit(1.0)
    kind = relevance.schema["grade"].dataType
    if not isinstance(kind, NumericType):
        raise InvalidInput(f"the grades are {kind.simpleString()}, not numbers")
    number = F.col("grade").cast("double")
    if isinstance(kind, FractionalType):
        number = F.nanvl(number, F.lit(0.0))
    return F.greatest(F.coalesce(number, F.lit(0.0)), F.lit(0.0))


def by_label(
    neighbors: DataFrame,
    truth: DataFrame,
    queries: DataFrame | None,
    depth: int,
    slices: Sequence[str],
    *,
    id: str,
    label: str,
    exclude_self: bool,
) -> Relevance:
    """Relevance by label: documents with the query's label are relevant.

    neighbors, depth: as for `by_grade`. truth, queries, slices, id, label: as for
        `judge_retrieval`.
    exclude_self: each query is one of the documents, and does not count as relevant to itself.
    """
    documents = _labeled(truth, "the truth", id, label, slices)
    asked = (
        neighbors.select(F.col("query_id").alias("id")).distinct().join(documents, "id", "left")
        if queries is None
        else _labeled(queries, "the queries", id, label, slices)
    )
    for name, there in (("neighbor_id", documents), ("query_id", asked)):
        check_can_be_equal(
            neighbors.schema[name].dataType,
            there.schema["id"].dataType,
            f"{name}s of neighbors and the ids of the truth",
        )
    check_can_be_equal(
        documents.schema["label"].dataType, asked.schema["label"].dataType, "the labels"
    )
    check_slices(asked, slices)
    of_documents = documents.select(F.col("id").alias("neighbor_id"), F.col("label").alias("is"))
    of_queries = asked.select(F.col("id").alias("query_id"), F.col("label").alias("wanted"))
    graded = neighbors.join(of_documents, "neighbor_id", "left").join(
        of_queries, "query_id", "left"
    )
    strangers = graded.filter("is IS NULL").count()
    reason = "neighbors without a label, counted as not relevant"
    notes = [Issue(reason, strangers)] if strangers else []
    same = F.coalesce(F.col("is") == F.col("wanted"), F.lit(False)).cast("double")
    counted = _counted(asked, documents, exclude_self, depth, slices)
    return Relevance(graded.withColumn("gain", same), counted, notes)


def _labeled(table: DataFrame, shown: str, id: str, label: str, slices: Sequence[str]) -> DataFrame:
    check_ids(table, id, shown)
    named = column(table, label)
    if isinstance(table.select(named).schema[0].dataType, FractionalType):
        named = F.nullif(named, F.lit(float("nan")))  # pandas has no other missing number
    return table.select(
        column(table, id).alias("id"),
        named.alias("label"),
        *slice_columns(table, slices).values(),
    )


def _counted(
    asked: DataFrame, documents: DataFrame, exclude_self: bool, depth: int, slices: Sequence[str]
) -> DataFrame:
    """The queries (id, label, slices) with `relevant` and `ideal` in place of the label."""
    counts = documents.filter("label IS NOT NULL").groupBy("label").count()
    itself = F.lit(1 if exclude_self else 0)
    relevant = F.when(F.col("label").isNotNull(), F.coalesce(F.col("count"), F.lit(0)) - itself)
    return asked.join(counts, "label", "left").select(
        "id",
        relevant.alias("relevant"),
        F.array_repeat(F.lit(1.0), F.least(relevant, F.lit(depth)).cast("int")).alias("ideal"),
        *slice_names(slices),
    )
