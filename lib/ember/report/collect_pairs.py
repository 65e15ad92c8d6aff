"""From the result of a search or a join on Spark to the plain rows of its page.

Everything is an aggregate, or a sample that does not depend on partitioning: queries are drawn by
the hash of their id, pairs by their score, groups by their size.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ember.report.collect import fetch_items, id_text, rows_of
from ember.report.report import Report, Row, Table
from ember.settings.comparison import JoinConfig, SearchConfig
from ember.settings.report import JoinReportConfig, SearchReportConfig
from ember.spark.older_versions import as_dicts
from ember.spark.persisted import kept

__all__ = ["collect_join", "collect_search"]

_BINS = 40
_MOST_SIZES = 1000
# What a line of a collage, and a heat map, have room for.
_MOST_NEIGHBORS = 10
_MOST_MEMBERS = 12
_MOST_ROWS = 40
_PAIR = ["left_id", "right_id", "score"]
_Key = tuple[str, str]  # a side and an id


def collect_search(
    found: DataFrame, config: SearchConfig, queries: DataFrame, corpus: DataFrame | None
) -> Report:
    """The report of a search: about ten small Spark jobs.

    Its tables: scores (lower, upper, first, neighbors: how many scores of rank 1, and in all, are
    in the bin), neighbors (query_id, rank, neighbor_id, score: of the sampled queries), and
    similarities (side, id, values: of the rows shown among each other).

    `found` has query_id, neighbor_id, rank, score; `queries` and `corpus` have id and embedding.
    `corpus` is None if the queries were searched in themselves.
    """
    shown = config.report or SearchReportConfig()
    figures, scores = _scores(found, {"first": F.col("rank") == 1, "neighbors": F.lit(True)})
    hashed = F.xxhash64(id_text(found, "query_id"))
    sample = found.filter("rank = 1").orderBy(hashed, "query_id").limit(shown.examples)
    lists = found.join(F.broadcast(sample.select("query_id").distinct()), "query_id", "left_semi")
    lists = lists.filter(F.col("rank") <= _MOST_NEIGHBORS).select(
        id_text(found, "query_id"), "rank", id_text(found, "neighbor_id"), "score"
    )
    rows = sorted(as_dicts(lists), key=lambda r: (r["query_id"], r["rank"]))
    ids = {
        "queries": {row["query_id"] for row in rows},
        "corpus": {row["neighbor_id"] for row in rows},
    }
    other = "queries" if corpus is None else "corpus"
    compared: list[_Key] = []
    for row in rows:
        compared += [("queries", row["query_id"])] * (row["rank"] == 1)
        compared += [(other, row["neighbor_id"])] * (row["rank"] <= 3)
    vectors = _vectors({"queries": queries, "corpus": corpus}, compared)
    tables = {
        "scores": scores,
        "neighbors": Table(["query_id", "rank", "neighbor_id", "score"], rows),
        "similarities": _similarities(compared, vectors, config.metric),
    }
    contents = {"queries": shown.queries, "corpus": shown.corpus}
    return Report("search", figures, (), tables, fetch_items(found.sparkSession, contents, ids))


def collect_join(
    pairs: DataFrame,
    groups: DataFrame | None,
    config: JoinConfig,
    left: DataFrame,
    right: DataFrame | None,
) -> Report:
    """The report of a join: about ten small Spark jobs.

    Its tables: scores (lower, upper, pairs), closest and nearest (left_id, right_id, score: the
    most similar pairs, and those closest to the threshold), and similarities as for a search; with
    groups also sizes (size, groups) and groups (group_id, size, id, representative, score: some
    members of the largest groups, and how similar they are to the representative).

    `pairs` has left_id, right_id, score; `groups`, if any were made, id, group_id, representative;
    `left` and `right` id and embedding. `right` is None if the left table was joined with itself.
    """
    shown = config.report or JoinReportConfig()
    figures, scores = _scores(pairs, {"pairs": F.lit(True)})
    tables = {"scores": scores}
    best, worst = (F.asc, F.desc) if config.metric == "euclidean" else (F.desc, F.asc)
    for name, order in (("closest", best), ("nearest", worst)):
        first = pairs.orderBy(order("score"), "left_id", "right_id").limit(shown.examples)
        columns = id_text(pairs, "left_id"), id_text(pairs, "right_id"), "score"
        tables[name] = Table(_PAIR, as_dicts(first.select(*columns)))
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
    compared: list[_Key] = [("left", row["id"]) for row in members]
    for row in ends:
        compared += [("left", row["left_id"]), (other, row["right_id"])]
    vectors = _vectors({"left": left, "right": right}, compared)
    tables["similarities"] = _similarities(compared, vectors, config.metric)
    if groups is not None:
        tables["groups"] = _with_scores(members, vectors, config.metric)
    contents = {"left": shown.left, "right": shown.right}
    return Report("join", figures, (), tables, fetch_items(pairs.sparkSession, contents, ids))


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
    counts = sizes.groupBy("size").agg(F.count("*").alias("groups")).orderBy(F.desc("size"))
    rows = as_dicts(counts.limit(_MOST_SIZES + 1))
    return Table(["size", "groups"], rows[:_MOST_SIZES], len(rows) > _MOST_SIZES)


def _largest(groups: DataFrame, sizes: DataFrame, examples: int) -> list[Row]:
    """Members of the largest groups, the representative of each first."""
    chosen = sizes.orderBy(F.desc("size"), "group_id").limit(examples)
    order = Window.partitionBy("group_id").orderBy(F.desc("representative"), "id")
    rows = groups.join(F.broadcast(chosen), "group_id").withColumn("_n", F.row_number().over(order))
    rows = rows.filter(F.col("_n") <= _MOST_MEMBERS).orderBy(F.desc("size"), "group_id", "_n")
    columns = (id_text(groups, "group_id"), "size", id_text(groups, "id"), "representative")
    found: list[Row] = as_dicts(rows.select(*columns))
    return found


def _with_scores(members: Sequence[Row], vectors: Mapping[_Key, np.ndarray], metric: str) -> Table:
    """The members with their similarity to the representative of their group."""
    lead = {row["group_id"]: row["id"] for row in members if row["representative"]}
    rows = []
    for row in members:
        pair = [vectors.get(("left", each)) for each in (lead[row["group_id"]], row["id"])]
        there = [vector for vector in pair if vector is not None]
        known = len(there) == 2 and not row["representative"]
        score = float(_compare(np.stack(there), metric)[0, 1]) if known else None
        rows.append({**row, "score": score})
    return Table(["group_id", "size", "id", "representative", "score"], rows)


def _similarities(
    compared: Sequence[_Key], vectors: Mapping[_Key, np.ndarray], metric: str
) -> Table:
    """The first rows that have a vector, each against all of them."""
    there = [each for each in dict.fromkeys(compared) if each in vectors][:_MOST_ROWS]
    matrix = _compare(np.stack([vectors[key] for key in there]), metric) if there else ()
    rows = [
        {"side": side, "id": key, "values": values.tolist()}
        for (side, key), values in zip(there, matrix, strict=True)
    ]
    return Table(["side", "id", "values"], rows)


def _vectors(
    frames: Mapping[str, DataFrame | None], wanted: Collection[_Key]
) -> dict[_Key, np.ndarray]:
    """The vectors (d,) float64 of rows, by side and id."""
    found = {}
    for side, frame in frames.items():
        ids = {key for place, key in wanted if place == side}
        if frame is None or not ids:
            continue
        rows = rows_of(frame, "id", ids).select(id_text(frame, "id"), "embedding")
        for row in as_dicts(rows.filter("embedding IS NOT NULL")):
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
