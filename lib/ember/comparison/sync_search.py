"""A search brought up to date: which neighbors are still known, and which must be looked for.

Of each query some more than k neighbors are kept, so that one that changes or goes does not cost a
search over the whole corpus. Of a list of at least k this holds: every corpus row that is better
than its last one is in it. A shorter one holds all rows there are. So what lies before the last one
stays known when rows go, and rows that are new enter where they belong; see `merged`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ember.comparison import packing, search
from ember.comparison.comparison import Comparison
from ember.comparison.sync import Sync
from ember.settings.comparison import ComparisonLimits, SearchConfig
from ember.spark.checkpoints import counted, stored
from ember.spark.classic import cores
from ember.spark.publish import Output

__all__ = ["write_changed", "write_whole"]

_MORE = 4
_LIST = ("query_id", "neighbor_id", "rank", "score")


def write_whole(
    sync: Sync, output: Output, compared: Comparison, config: SearchConfig
) -> dict[str, int]:
    """Stage the neighbors of all queries, and what is kept; counts for the manifest."""
    spark, kept = output.spark, places(config.k)
    found = search.neighbors(spark, compared, kept, config.exclude_self)
    lists = stored(found, f"{sync.kept.scratch}/lists")
    _write(sync, output, config, lists, None)
    return {"searched_queries": sync.left.usable}


def places(k: int) -> int:
    """How many neighbors are kept of each query.

    Example:
        >>> places(1), places(10), places(100)
        (5, 14, 125)
    """
    return k + max(_MORE, k // 4)


def write_changed(sync: Sync, output: Output, config: SearchConfig) -> dict[str, int]:
    """Stage the neighbors of all queries where some rows have changed; counts for the manifest."""
    scratch = sync.kept.scratch
    queries, corpus = sync.left_changes, sync.right_changes
    known = _Known(
        sync.kept.rows().select(*_LIST).unionByName(sync.kept.table("more")),
        sync.kept.table("bounds"),
    )
    known = known.without(queries.ids.select(F.col("id").alias("query_id")))
    closer = None
    if corpus.now:
        rows = sync.right.fitting(corpus.ids.filter("now"))
        found = _searched(sync, config, sync.left.fitting(queries.ids, "left_anti"), rows, "closer")
        better = _better(known.bounds, found, config)
        closer = stored(better, f"{scratch}/closer")
    gone = corpus.ids.filter("was").select(F.col("id").alias("neighbor_id")) if corpus.was else None
    touched, merging = counted(_touched(known, closer, gone), f"{scratch}/touched")
    lists = stored(merged(known, touched, closer, gone, config), f"{scratch}/merged")
    lost, again = counted(_lost(known, touched, lists, config.k), f"{scratch}/lost")
    anew = queries.ids.filter("now").select("id").union(lost.select("query_id"))
    if queries.now or again:
        all_rows = sync.right.fitting()
        found = _searched(sync, config, sync.left.fitting(anew), all_rows, "anew")
        # By itself: a task knows its part of the search by the number of its partition.
        found = stored(found, f"{scratch}/anew")
        lists = lists.join(lost, "query_id", "left_anti").select(*_LIST)
        lists = stored(lists.unionByName(found), f"{scratch}/lists")
    _write(sync, output, config, lists, known.without(touched))
    return {"merged_queries": merging - again, "searched_queries": queries.now + again}


@dataclass(frozen=True)
class _Known:
    """Of queries that are as they were: their lists, and of each that has any neighbor the number
    of places, and the last one (query_id, n, last_score, last_id).
    """

    lists: DataFrame
    bounds: DataFrame

    def without(self, queries: DataFrame) -> _Known:
        tables = (self.lists, self.bounds)
        lists, bounds = (each.join(queries, "query_id", "left_anti") for each in tables)
        return _Known(lists.select(*_LIST), bounds)


def merged(
    known: _Known,
    touched: DataFrame,
    closer: DataFrame | None,
    gone: DataFrame | None,
    config: SearchConfig,
) -> DataFrame:
    """The lists of touched queries: without the rows that are gone, with those that are closer.

    Those of a query whose list had k places or more and has fewer now are not known; see `_lost`.
    """
    lists = known.lists.join(touched, "query_id", "left_semi").select(*_LIST)
    if gone is not None:
        lists = lists.join(gone, "neighbor_id", "left_anti").select(*_LIST)
    if closer is not None:
        lists = lists.unionByName(closer)
    best = F.asc("score") if config.metric == "euclidean" else F.desc("score")
    rank = F.row_number().over(Window.partitionBy("query_id").orderBy(best, "neighbor_id"))
    return lists.withColumn("rank", rank).filter(F.col("rank") <= places(config.k))


def _better(bounds: DataFrame, found: DataFrame, config: SearchConfig) -> DataFrame:
    """Of neighbors among new rows those that are better than the last one of a query's list."""
    both = found.join(bounds, "query_id", "left")
    score, last = F.col("score"), F.col("last_score")
    ahead = score < last if config.metric == "euclidean" else score > last
    tie = (score == last) & (F.col("neighbor_id") < F.col("last_id"))
    short = F.col("n").isNull() | (F.col("n") < config.k)
    return both.filter(short | ahead | tie).select(*_LIST)


def _touched(known: _Known, closer: DataFrame | None, gone: DataFrame | None) -> DataFrame:
    """The queries whose lists change, or may."""
    ids = known.bounds.select("query_id").limit(0)
    if gone is not None:
        ids = ids.union(known.lists.join(gone, "neighbor_id", "left_semi").select("query_id"))
    if closer is not None:
        ids = ids.union(closer.select("query_id"))
    return ids.distinct()


def _lost(known: _Known, touched: DataFrame, lists: DataFrame, k: int) -> DataFrame:
    """The touched queries of which fewer than k neighbors are known now, and more may be there."""
    full = known.bounds.filter(F.col("n") >= k).join(touched, "query_id", "left_semi")
    enough = lists.filter(F.col("rank") == k)
    return full.join(enough, "query_id", "left_anti").select("query_id")


def _searched(
    sync: Sync, config: SearchConfig, queries: DataFrame, corpus: DataFrame, name: str
) -> DataFrame:
    spark, kept = queries.sparkSession, places(config.k)
    compared = packing.prepare(
        queries,
        corpus,
        config.metric,
        f"{sync.kept.scratch}/packed/{name}",
        left_blocks=cores(spark),
        k=kept,
        # Those that cannot be compared are counted already.
        limits=ComparisonLimits(
            max_failed_fraction=1.0, rows_per_block=config.limits.rows_per_block
        ),
    )
    return search.neighbors(spark, compared, kept, config.exclude_self)


def _write(
    sync: Sync, output: Output, config: SearchConfig, lists: DataFrame, known: _Known | None
) -> None:
    """Stage the k best of each list, and what is kept.

    known: lists that are as they were.
    """
    worst = F.max("score") if config.metric == "euclidean" else F.min("score")
    last = F.max_by("neighbor_id", "rank").alias("last_id")
    facts = [F.max("rank").alias("n"), worst.alias("last_score"), last]
    bounds = lists.groupBy("query_id").agg(*facts)
    if known is not None:
        lists = known.lists.unionByName(lists)
        bounds = known.bounds.unionByName(bounds)
    output.write(lists.filter(F.col("rank") <= config.k))
    sync.kept.made(lists.filter(F.col("rank") > config.k), "more")
    sync.kept.made(bounds, "bounds")
