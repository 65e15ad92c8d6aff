"""From the removed rows of a deduplication on Spark to the plain rows of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from ember.report.collect import fetch_items, id_text
from ember.report.report import Report, Row, Table
from ember.settings.report import ContentConfig
from ember.settings.tables import CorpusConfig
from ember.spark.older_versions import as_dicts

__all__ = ["collect_copies"]

_GROUPS = 12
# What a line of a collage has room for.
_MEMBERS = 12
_DOUBTFUL = 24


def collect_copies(
    spark: SparkSession,
    removed: DataFrame,
    counts: Mapping[str, Any],
    corpus: CorpusConfig,
    other: CorpusConfig | None,
) -> Report:
    """The report of a deduplication: some small Spark jobs.

    removed: id, kept_id, tier, score, neighbor_id. counts: as the manifest has them. other: the
    corpus that kept_id and neighbor_id are of; None: the same one.

    Its tables: tiers (tier, removed), sizes (size, groups), groups (kept_id, size, id, tier, score,
    neighbor_id: some rows of the largest groups), doubtful (id, neighbor_id, tier, score: of each
    tier but exact the lowest scores).
    """
    by_tier = sorted(counts["by_tier"].items())
    sizes = sorted(((int(size), n) for size, n in counts["groups_by_size"].items()), reverse=True)
    tables = {
        "tiers": _counts(("tier", "removed"), [(tier, n) for tier, n in by_tier if n]),
        "sizes": _counts(("size", "groups"), sizes),
        "groups": _largest(removed, 1 if other is None else 0),
        "doubtful": _doubtful(removed),
    }
    groups, doubtful = tables["groups"].rows, tables["doubtful"].rows
    ids = {
        "left": {row["id"] for row in [*groups, *doubtful]},
        "right": {row["kept_id"] for row in groups} | {row["neighbor_id"] for row in doubtful},
    }
    contents = {"left": _content(corpus), "right": _content(other) if other else None}
    return Report("dedup", [], (), tables, fetch_items(spark, contents, ids))


def _counts(columns: tuple[str, str], counts: Sequence[tuple[Any, int]]) -> Table:
    return Table(list(columns), [dict(zip(columns, each, strict=True)) for each in counts])


def _largest(removed: DataFrame, more: int) -> Table:
    """Rows of the largest groups, the least similar first. more: rows of each that are kept."""
    sizes = removed.groupBy("kept_id").agg((F.count("*") + more).alias("size"))
    chosen = sizes.orderBy(F.desc("size"), "kept_id").limit(_GROUPS)
    order = Window.partitionBy("kept_id").orderBy("score", "id")
    rows = removed.join(F.broadcast(chosen), "kept_id").withColumn("_n", F.row_number().over(order))
    rows = rows.filter(F.col("_n") < _MEMBERS).orderBy(F.desc("size"), "kept_id", "_n")
    named = [id_text(removed, name) for name in ("kept_id", "id", "neighbor_id")]
    columns = ["kept_id", "size", "id", "tier", "score", "neighbor_id"]
    found: list[Row] = as_dicts(rows.select(*named, "size", "tier", "score"))
    return Table(columns, found)


def _doubtful(removed: DataFrame) -> Table:
    """Of each tier but exact the witnesses with the lowest scores."""
    order = Window.partitionBy("tier").orderBy("score", "id")
    rows = removed.filter("tier != 'exact'").withColumn("_n", F.row_number().over(order))
    rows = rows.filter(F.col("_n") <= _DOUBTFUL).orderBy("tier", "_n")
    named = [id_text(removed, name) for name in ("id", "neighbor_id")]
    found: list[Row] = as_dicts(rows.select(*named, "tier", "score"))
    return Table(["id", "neighbor_id", "tier", "score"], found)


def _content(corpus: CorpusConfig) -> ContentConfig:
    return ContentConfig(**corpus.model_dump(include=set(CorpusConfig.model_fields)))
