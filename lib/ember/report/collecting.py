"""From an evaluation on Spark to the plain rows of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.evaluation.result import Evaluation
from ember.report.content import MOST_CELLS, MOST_CLASSES, Item, Report, Row, Table
from ember.report.fetching import as_text, cut, fetch_items, plain
from ember.settings.report import ContentConfig
from ember.worker.metrics.sums import ALL

__all__ = ["collect"]

# How many rows of a table a page takes; a browser sorts and filters these at once.
_ROWS = {"per_class": 1000, "per_label": 1000, "reliability": 1000, "most_confused": 100}
_ROWS |= {"worst": 200}
_MOST_CURVES = 8
# Of the worst rows, and of each kind of query.
_MOST_SEEN = 24
_MOST_QUERIES = 6
_MOST_DOCUMENTS = 10


def collect(
    evaluation: Evaluation,
    content: ContentConfig | None = None,
    query_content: ContentConfig | None = None,
) -> Report:
    """The rows that the page of `evaluation` shows: a few small Spark jobs.

    content: the corpus behind the ids that are judged, of a retrieval the documents, of pairs the
    second id. query_content: behind the queries, or the first id; by default the same.

    Tables: those of the evaluation, `confusion` only for up to MOST_CLASSES classes, `reliability`
    of the slice "all", `precision_recall` of the labels with the most rows; and for a retrieval
    with content ranked (which: worst or sampled, id, map, documents, gains).
    """
    found: dict[str, Table] = {}
    for name, most in _ROWS.items():
        if name in evaluation.tables:
            frame = evaluation.tables[name]
            if name == "reliability":
                frame = frame.filter(F.col("slice") == ALL).drop("slice")
            found[name] = _rows(frame, most)
    classes = found.get("per_class")
    if classes and len(classes.rows) <= MOST_CLASSES and "confusion" in evaluation.tables:
        found["confusion"] = _rows(evaluation.tables["confusion"], MOST_CELLS)
    if "precision_recall" in evaluation.tables:
        frame = evaluation.tables["precision_recall"]
        found["precision_recall"] = _curves(frame, found.get("per_label"))
    items: dict[str, Mapping[str, Item]] = {}
    if content is not None:
        if evaluation.lists is not None:
            found["ranked"] = _ranked(evaluation.tables["per_query"], evaluation.lists)
        rows, queries = _shown(found)
        items = _items(evaluation.rows, content, query_content, rows, queries)
    return Report(
        evaluation.kind,
        [{**figure.as_row(), "slice": cut(figure.slice)} for figure in evaluation.figures],
        [
            {"reason": i.reason, "rows": i.rows, "ids": [cut(each) for each in i.ids]}
            for i in evaluation.issues
        ],
        found,
        items,
    )


def _rows(frame: DataFrame, most: int) -> Table:
    shown = frame.select(*(plain(frame, name) for name in frame.columns)).limit(most + 1)
    rows = shown.toArrow().to_pylist()
    return Table(frame.columns, rows[:most], len(rows) > most)


def _curves(frame: DataFrame, labels: Table | None) -> Table:
    """The curves of the labels with the most rows; the only curve where there are no labels."""
    if labels is None:
        return _rows(frame, 1000)
    order = sorted(labels.rows, key=lambda row: (-row["support"], row["label"]))
    names = [row["label"] for row in order[:_MOST_CURVES]]
    label = as_text(F.col("label"), frame.schema["label"].dataType)  # as `names` has it
    table = _rows(frame.filter(label.isin(names)), 1000)
    rows = sorted(table.rows, key=lambda row: (names.index(row["label"]), row["recall"]))
    return Table(table.columns, rows, len(order) > len(names))


def _ranked(per_query: DataFrame, lists: DataFrame) -> Table:
    """The queries of the lowest average precision, and some drawn by the hash of their id."""
    key = as_text(F.col("id"), per_query.schema["id"].dataType)
    orders = {"worst": F.col("map"), "sampled": F.xxhash64(key)}
    chosen: list[dict[str, Any]] = []
    for which, order in orders.items():
        first = per_query.orderBy(order, "id").limit(_MOST_QUERIES)
        columns = F.lit(which).alias("which"), key.alias("id"), "map"
        chosen += first.select(*columns).toArrow().to_pylist()
    named = [row["id"] for row in chosen]
    kind = lists.schema["documents"].dataType.elementType  # type: ignore[attr-defined]
    parts = F.slice("documents", 1, _MOST_DOCUMENTS), F.slice("gains", 1, _MOST_DOCUMENTS)
    documents = F.transform(parts[0], lambda each: as_text(each, kind))
    found = lists.filter(key.isin(named)).select(
        key.alias("id"), documents.alias("documents"), parts[1].alias("gains")
    )
    known = {row["id"]: row for row in found.toArrow().to_pylist()}
    none: Row = {"documents": [], "gains": []}
    rows = [{**row, **{k: known.get(row["id"], none)[k] for k in none}} for row in chosen]
    return Table(["which", "id", "map", "documents", "gains"], rows)


def _shown(tables: Mapping[str, Table]) -> tuple[set[str], set[str]]:
    """The ids that collages show: of rows (or documents), and of queries (or first ids)."""
    if "ranked" in tables:
        ranked = tables["ranked"].rows
        return {d for row in ranked for d in row["documents"]}, {row["id"] for row in ranked}
    worst = tables["worst"].rows[:_MOST_SEEN] if "worst" in tables else ()
    ids: list[Sequence[str]] = [r["id"] if isinstance(r["id"], list) else [r["id"]] for r in worst]
    rows = {str(each[-1]) for each in ids}
    return rows, {str(part) for each in ids for part in each[:-1]}


def _items(
    frame: DataFrame,
    content: ContentConfig,
    query_content: ContentConfig | None,
    rows: set[str],
    queries: set[str],
) -> dict[str, Mapping[str, Item]]:
    spark = frame.sparkSession
    if query_content is None:
        return {"rows": fetch_items(spark, content, rows | queries)}
    return {
        "rows": fetch_items(spark, content, rows),
        "queries": fetch_items(spark, query_content, queries),
    }
