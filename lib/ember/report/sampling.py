"""From the result of a search or a join on Spark to the plain rows of its page.

Everything is an aggregate or a sample that does not depend on partitioning: queries are drawn by
the hash of their id, pairs and groups by their scores and sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ember.report.content import Item, Report, Row, Table
from ember.report.fetching import as_text, fetch_items, rows_of
from ember.settings.report import JoinReportConfig, SearchReportConfig
from ember.settings.similarity import JoinConfig, SearchConfig
from ember.spark.persisted import kept

__all__ = ["collect_join", "collect_search"]

_BINS = 40
# What a line of a collage, and a heat map, can show.
_MOST_NEIGHBORS = 10
_MOST_MEMBERS = 12
_MOST_ROWS = 40
_Shown = tuple[str, str]


def collect_search(
    found: DataFrame, config: SearchConfig, queries: DataFrame, corpus: DataFrame | None
) -> Report:
    """The report of a search: about ten small Spark jobs.

    found: query_id, neighbor_id, rank, score. queries, corpus: (id, embedding), None for a search
    of the queries in themselves; the heat map is made of their vectors.

    Tables: scores (lower, upper, first, neighbors: how many of rank 1 and in all have such a
    score), neighbors (query_id, rank, neighbor_id, score of the sampled queries), similarities
    (side, id, values: of the shown rows among each other).
    """
    shown = config.report or SearchReportConfig()
    figures, scores = _scores(found, {"first": F.col("rank") == 1, "neighbors": F.lit(True)})
    hashed = F.xxhash64(_text(found, "query_id"))
    asked = found.filter("rank = 1").orderBy(hashed, "query_id").limit(shown.examples)
    asked = asked.select("query_id").distinct()
    lists = found.join(F.broadcast(asked), "query_id", "left_semi")
    lists = lists.filter(F.col("rank") <= _MOST_NEIGHBORS).select(
        _text(found, "query_id"), "rank", _text(found, "neighbor_id"), "score"
    )
    rows = sorted(lists.toArrow().to_pylist(), key=lambda r: (r["query_id"], r["rank"]))
    other = "queries" if corpus is None else "corpus"
    ids = {
        "queries": {row["query_id"] for row in rows},
        "corpus": {row["neighbor_id"] for row in rows},
    }
    pictured: list[_Shown] = []
    for row in rows:
        pictured += [("queries", row["query_id"])] * (row["rank"] == 1)
        pictured += [(other, row["neighbor_id"])] * (row["rank"] <= 3)
    vectors = _vectors({"queries": queries, "corpus": corpus}, pictured)
    tables = {
        "scores": scores,
        "neighbors": Table(["query_id", "rank", "neighbor_id", "score"], rows),
        "similarities": _similarities(pictured, vectors, config.metric),
    }
    items = _items(found, {"queries": shown.queries, "corpus": shown.corpus}, ids)
    return Report("search", figures, (), tables, items)


def collect_join(
    pairs: DataFrame,
    groups: DataFrame | None,
    config: JoinConfig,
    left: DataFrame,
    right: DataFrame | None,
) -> Report:
    """The report of a join: about ten small Spark jobs.

    pairs: left_id, right_id, score. groups: id, group_id, representative, where they were made.
    left, right: (id, embedding), None for a join of the left table with itself.

    Tables: scores (lower, upper, pairs), closest and nearest (left_id, right_id, score: the most
    similar pairs, and those closest to the threshold), similarities as for a search; with groups
    also sizes (size, groups) and groups (group_id, size, id, representative, score: the largest
    groups with a few of their members, and how similar these are to the representative).
    """
    shown = config.report or JoinReportConfig()
    figures, scores = _scores(pairs, {"pairs": F.lit(True)})
    tables = {"scores": scores}
    best = F.asc if config.metric == "euclidean" else F.desc
    worst = F.desc if config.metric == "euclidean" else F.asc
    for name, order in (("closest", best), ("nearest", worst)):
        first = pairs.orderBy(order("score"), "left_id", "right_id").limit(shown.examples)
        shown_ids = _text(pairs, "left_id"), _text(pairs, "right_id")
        found = first.select(*shown_ids, "score").toArrow().to_pylist()
        tables[name] = Table(["left_id", "right_id", "score"], found)
    members: list[Row] = []
    if groups is not None:
        with kept(groups.groupBy("group_id").agg(F.count("*").alias("size"))) as sizes:
            tables["sizes"] = _sizes(sizes)
            members = _largest(groups, sizes, shown.examples)
            sizes.unpersist()
    ends = [row for name in ("closest", "nearest") for row in tables[name].rows]
    ids = {
        "left": {row["left_id"] for row in ends} | {row["id"] for row in members},
        "right": {row["right_id"] for row in ends},
    }
    other = "left" if right is None else "right"
    pictured: list[_Shown] = [("left", row["id"]) for row in members]
    for row in ends:
        pictured += [("left", row["left_id"]), (other, row["right_id"])]
    vectors = _vectors({"left": left, "right": right}, pictured)
    tables["similarities"] = _similarities(pictured, vectors, config.metric)
    if groups is not None:
        tables["groups"] = _with_scores(members, vectors, config.metric)
    items = _items(pairs, {"left": shown.left, "right": shown.right}, ids)
    return Report("join", figures, (), tables, items)


def _text(frame: DataFrame, name: str) -> Column:
    return as_text(F.col(name), frame.schema[name].dataType).alias(name)


def _scores(found: DataFrame, counted: Mapping[str, Column]) -> tuple[list[Row], Table]:
    """Figures of the finite scores, and their histogram: a count for each of `counted`."""
    finite = found.filter(F.abs("score") < float("inf"))
    score = F.col("score").cast("double")
    facts = finite.agg(
        F.count("*"), F.avg(score), F.min(score), F.percentile_approx(score, 0.5), F.max(score)
    )
    count, *values = facts.collect()[0]
    names = ("mean score", "lowest score", "median score", "highest score")
    figures: list[Row] = [
        {"metric": name, "slice": "all", "value": value, "low": None, "high": None, "n": count}
        for name, value in zip(names, values, strict=True)
    ]
    columns = ["lower", "upper", *counted]
    if not count:
        return figures, Table(columns, [])
    low, high = values[1], values[3]
    width = max(high - low, 1e-6) / _BINS
    place = F.least(F.floor((score - low) / width), F.lit(_BINS - 1))
    sums = (F.sum(which.cast("long")).alias(name) for name, which in counted.items())
    filled = {row["bin"]: row for row in finite.groupBy(place.alias("bin")).agg(*sums).collect()}
    rows = [
        {
            "lower": low + number * width,
            "upper": low + (number + 1) * width,
            **{name: filled[number][name] if number in filled else 0 for name in counted},
        }
        for number in range(_BINS)
    ]
    return figures, Table(columns, rows)


def _sizes(sizes: DataFrame) -> Table:
    most = 1000
    counts = sizes.groupBy("size").agg(F.count("*").alias("groups")).orderBy(F.desc("size"))
    rows = counts.limit(most + 1).toArrow().to_pylist()
    return Table(["size", "groups"], rows[:most], len(rows) > most)


def _largest(groups: DataFrame, sizes: DataFrame, examples: int) -> list[Row]:
    """The largest groups, the representative of each first."""
    chosen = sizes.orderBy(F.desc("size"), "group_id").limit(examples)
    order = Window.partitionBy("group_id").orderBy(F.desc("representative"), "id")
    rows = groups.join(F.broadcast(chosen), "group_id").withColumn("_n", F.row_number().over(order))
    rows = rows.filter(F.col("_n") <= _MOST_MEMBERS).orderBy(F.desc("size"), "group_id", "_n")
    columns = (_text(groups, "group_id"), "size", _text(groups, "id"), "representative")
    found: list[Row] = rows.select(*columns).toArrow().to_pylist()
    return found


def _with_scores(
    members: Sequence[Row], vectors: Mapping[_Shown, np.ndarray], metric: str
) -> Table:
    """The members with their similarity to the representative of their group."""
    chief = {row["group_id"]: row["id"] for row in members if row["representative"]}
    rows = []
    for row in members:
        pair = [vectors.get(("left", each)) for each in (chief[row["group_id"]], row["id"])]
        there = [vector for vector in pair if vector is not None]
        known = len(there) == 2 and not row["representative"]
        score = float(_compare(np.stack(there), metric)[0, 1]) if known else None
        rows.append({**row, "score": score})
    return Table(["group_id", "size", "id", "representative", "score"], rows)


def _similarities(
    pictured: Sequence[_Shown], vectors: Mapping[_Shown, np.ndarray], metric: str
) -> Table:
    """Each of the first rows against all of them."""
    there = [each for each in dict.fromkeys(pictured) if each in vectors][:_MOST_ROWS]
    columns = ["side", "id", "values"]
    if not there:
        return Table(columns, [])
    matrix = _compare(np.stack([vectors[each] for each in there]), metric)
    rows: list[dict[str, Any]] = [
        {"side": side, "id": key, "values": values.tolist()}
        for (side, key), values in zip(there, matrix, strict=True)
    ]
    return Table(columns, rows)


def _vectors(
    frames: Mapping[str, DataFrame | None], wanted: Collection[_Shown]
) -> dict[_Shown, np.ndarray]:
    """The vectors (d,) float64 of rows, by side and id."""
    found = {}
    for side, frame in frames.items():
        ids = {key for place, key in wanted if place == side}
        if frame is None or not ids:
            continue
        rows = rows_of(frame, "id", ids).select(_text(frame, "id"), "embedding")
        for row in rows.filter("embedding IS NOT NULL").toArrow().to_pylist():
            found[side, row["id"]] = np.asarray(row["embedding"], np.float64)
    return found


def _compare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """The rows of (n, d) among each other: (n, n), in float64."""
    if metric == "euclidean":
        apart: np.ndarray = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
        return apart
    if metric == "cosine":
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(length > 0, length, 1)
    product: np.ndarray = vectors @ vectors.T
    return product


def _items(
    found: DataFrame, contents: Mapping[str, Any], ids: Mapping[str, set[str]]
) -> dict[str, Mapping[str, Item]]:
    """What can be seen of the rows of both sides; the second takes the first's content by default.

    Then all are under the name of the first side.
    """
    (first, second), spark = contents, found.sparkSession
    if contents[second] is None:
        return {first: fetch_items(spark, contents[first], ids[first] | ids[second])}
    return {side: fetch_items(spark, content, ids[side]) for side, content in contents.items()}
