"""Whether the vectors of two tables are of one distribution, and have the same neighbors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from ember.evaluation.drift_rows import Pair, side_name
from ember.evaluation.drift_tests import DriftTest, Found
from ember.evaluation.joining import issues_of
from ember.evaluation.judgment import Totals, add_up, sum_rows
from ember.evaluation.result import Figure
from ember.settings.evaluation import OverlapConfig
from ember.spark.older_versions import as_arrow
from ember.worker.drift.features import fit_features
from ember.worker.drift.kernel import kernel_test
from ember.worker.drift.neighbors import Queries, overlap_test
from ember.worker.drift.tasks import (
    KERNEL,
    NEIGHBORS,
    OverlapSums,
    Sides,
    find_neighbors,
    joined,
    kernel_sums,
)
from ember.worker.metrics.classes import ratio
from ember.worker.metrics.sums import ALL

__all__ = ["embeddings", "overlap"]

_ALONE = "with an id that the other table has no vector of, left out of the neighbors"
_FITTED = 500  # vectors of each table that say how wide the kernel is


def embeddings(pair: Pair, sides: Sides, replicates: int) -> Found:
    """The kernel test, see `ember.worker.drift.kernel`."""
    rows = pair.rows.select("key", "side", "embedding")
    n = {row["side"]: row["count"] for row in rows.groupBy("side").count().collect()}
    share = n.get(0, 0) / max(sum(n.values()), 1)
    drawn = (_first(rows.filter(F.col("side") == side), _FITTED) for side in (0, 1))
    sample = [matrix for batch in drawn for _, _, matrix in sides.read(batch) if len(matrix)]
    features = fit_features(np.concatenate(sample or [np.zeros((1, 1))]))
    totals = add_up(rows, kernel_sums(sides, features, share), Totals(0))
    pieces = [totals.sums[key] for key in sorted(totals.sums) if key[0] == KERNEL]
    sums = joined(pieces, features, share)
    test = kernel_test(sums, replicates)
    counts = (int(sums.counts[0]), int(sums.counts[1]))
    return Found(
        [Figure("embedding_mmd2", ALL, test.mmd2, min(counts), within=(0.0, 2.0))],
        [DriftTest("embeddings", "kernel, by permutations", test.statistic, test.p_value, counts)],
    )


def overlap(
    pair: Pair, sides: Sides, unusable: DataFrame, given: OverlapConfig, replicates: int
) -> Found:
    """Of how many of their k nearest neighbors both tables agree, on average over a sample of rows.

    The neighbors are the nearest by cosine among all rows that both tables have. The test asks
    whether the mean over all rows can be as large as `given.least`.

    unusable: (id, side) of rows without a usable vector.
    """
    usable = pair.rows.join(unusable, ["id", "side"], "left_anti")
    both = (
        usable.groupBy("key").agg(F.count("*").alias("tables")).filter("tables = 2").select("key")
    )
    shared = usable.select("key", "side", "embedding").join(both, "key", "left_semi")
    alone = usable.join(both, "key", "left_anti")
    reason = F.concat(side_name(), F.lit(f": {_ALONE}")).alias("reason")
    keys = [row[0] for row in both.orderBy("key").limit(given.sample).collect()]
    totals = Totals(replicates)
    if len(keys) > 1:
        queries = _queries(shared, sides, keys)
        found = shared.mapInArrow(find_neighbors(sides, queries, given.k), NEIGHBORS)
        totals = sum_rows(_agreeing(found, given.k), OverlapSums().add, replicates)
    n, agreed, squares = totals.of("overlap", ALL, 3)
    # Fewer rows than k have fewer neighbors.
    k = min(given.k, max(both.count() - 1, 1))
    values = ratio(agreed, n * k)
    count = int(n[0])
    p_value = overlap_test(count, int(agreed[0]), int(squares[0]), k, given.least)
    method = f"k = {k}, at least {given.least:g}"
    return Found(
        [Figure("neighbor_overlap", ALL, values, count, totals.groups)],
        [DriftTest("neighbors", method, float(values[0]), p_value, (count, count))],
        issues=issues_of(alone.select("id", reason)),
    )


def _queries(shared: DataFrame, sides: Sides, keys: list[int]) -> list[Queries]:
    """The vectors of the rows with these keys, in their order, of both tables."""
    last = F.col("key") <= F.lit(keys[-1])
    found = []
    for side in (0, 1):
        batch = _first(shared.filter((F.col("side") == side) & last), len(keys))
        found += [Queries.of(each, matrix) for _, each, matrix in sides.read(batch)]
    return found


def _agreeing(found: DataFrame, k: int) -> DataFrame:
    """Of each query, how many of its k nearest are those of both tables: (key, shared)."""
    nearest = Window.partitionBy("side", "query").orderBy(F.desc("score"), "neighbor")
    best = found.withColumn("place", F.row_number().over(nearest)).filter(F.col("place") <= k)
    pairs = best.groupBy("query", "neighbor").agg(F.count("*").alias("tables"))
    agreed = F.sum((F.col("tables") == 2).cast("bigint")).alias("shared")
    return pairs.groupBy(F.col("query").alias("key")).agg(agreed)


def _first(rows: DataFrame, most: int) -> pa.RecordBatch:
    """The rows of the smallest hashes, in their order."""
    found = as_arrow(rows.orderBy("key").limit(most)).combine_chunks()
    return pa.RecordBatch.from_arrays(
        [
            each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each
            for each in found.columns
        ],
        names=found.column_names,
    )
