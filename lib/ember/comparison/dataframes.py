"""Search, join and projection of DataFrames: the verbs of the public API.

Like the jobs, they count the rows that have no usable vector, keep them in the result with their
reasons, and refuse a table that has too many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

from pyspark.sql import DataFrame, SparkSession

from ember.comparison import comparison, packing
from ember.comparison import join as joining
from ember.comparison import projection as fitting
from ember.comparison import search as searching
from ember.comparison.comparison import Comparison
from ember.comparison.index import KeptIndex
from ember.comparison.rejects import count_reasons, refuse_many, refuse_rejected, rejected_rows
from ember.comparison.results import JoinResult, ProjectResult, SearchResult
from ember.errors import InvalidInput
from ember.settings.comparison import ComparisonLimits, Metric
from ember.settings.config import parse
from ember.settings.limits import MAX_FAILED_FRACTION, RejectsConfig
from ember.spark.checkpoints import stored
from ember.spark.classic import application_id, cores
from ember.spark.tables import select_embeddings
from ember.worker.vectors.projection import Projection

__all__ = ["join", "project", "search"]

_LIMITS = ComparisonLimits()


def search(
    queries: DataFrame,
    corpus: DataFrame | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    mode: Literal["exact", "approximate"] = "exact",
    recall: float = 0.95,
    exclude_self: bool = False,
    within: Sequence[str] = (),
    id: str = "id",
    embedding: str = "embedding",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    folder: str | None = None,
    index: str | None = None,
) -> SearchResult:
    """The k most similar rows of `corpus` for each row of `queries`.

    Given one table only, its rows are searched in itself: `ember.search(table, k=5)`.

    Scores are those of the numbers as they are stored, float or double. They, and the order of
    ties (the smaller id first), depend neither on partitions nor on retries. The tables are read
    and packed at once; the neighbors are found when the result's table is computed.

    Args:
        queries: an id column of any atomic type and a column array<float> or array<double>.
        corpus: the same, under the same names; None: the queries themselves.
        k: how many neighbors each query gets; fewer where the corpus is smaller.
        metric: cosine, inner_product, or euclidean, whose score is the distance, smallest first.
        mode: exact, or approximate: at least the share `recall` of the exact answer, in whatever
            way takes the least time. So far that is the exact search.
        recall: for mode approximate.
        exclude_self: leave out the corpus row that has the query's own id.
        within: columns of both tables; only rows that agree on all of them are compared. As in
            SQL, null agrees with nothing.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        max_failed_fraction: share of each table's rows that may have no usable vector: null, of
            another length than most, not finite, (for cosine) zero, or so long that a score could
            exceed float32.
        folder: where the packed tables go, in a new folder of their own, reachable by all
            executors; None: a temporary folder of this machine, which serves local mode, until
            Spark stops.
        index: a folder in which the packed corpus is kept for later searches, which bring it up to
            date by the files that it is read from; not with `within`. The neighbors are then found
            at once.

    Returns:
        `table`: `query_id`, `neighbor_id`, `rank` int 1..k, `score` float. `rejected`: `side`,
        `id`, `reason`. `recall`: of mode approximate. `facts`: for a manifest.

    Raises:
        InvalidInput: tables that hold no embeddings, lengths or types of keys that differ; a k
            below 1, or one of which the neighbors of a single query fill a worker's memory; a
            recall that is not between 0 and 1; an index of rows that are not those of one table's
            files, or in a folder of something else.
        InvalidConfig: a fraction that is none.
        TooManyFailures: more rows than `max_failed_fraction` of a table have no usable vector.

    Example:
        >>> rows = [("a", [1.0, 0.0]), ("b", [0.8, 0.6]), ("c", [0.0, 1.0])]
        >>> table = spark.createDataFrame(rows, "id string, embedding array<float>")
        >>> found = ember.search(table, k=1, exclude_self=True)
        >>> found.table.orderBy("query_id").show()
        +--------+-----------+----+-----+
        |query_id|neighbor_id|rank|score|
        +--------+-----------+----+-----+
        |       a|          b|   1|  0.8|
        |       b|          a|   1|  0.8|
        |       c|          b|   1|  0.6|
        +--------+-----------+----+-----+
        >>> found.facts["counts"]
        {'rejected': {'left': 0}}
    """
    if mode not in ("exact", "approximate"):
        raise InvalidInput(f"unknown mode {mode!r}; choose exact or approximate")
    wanted = recall if mode == "approximate" else None
    limits = parse(ComparisonLimits, {"max_failed_fraction": max_failed_fraction}, "search")
    check_search(k, wanted)
    left, right = comparison.sides(
        queries, corpus, metric, id=id, embedding=embedding, within=within
    )
    kept = None
    if index is not None:
        if right is None:
            raise InvalidInput("index keeps a corpus, and there is none: give the corpus as well")
        if within:
            raise InvalidInput("index keeps a corpus whose rows are all compared: leave out within")
        kept = KeptIndex.of_table(index, right, metric)
    # What is kept may change when this returns, so that neighbors are found before.
    with kept.lent() if kept else nullcontext():
        compared = pack_for_search(
            left,
            right,
            k=k,
            metric=metric,
            exclude_self=exclude_self,
            folder=folder,
            index=kept,
            limits=limits,
        )
        refuse_rejected(compared, queries.sparkSession, max_failed_fraction)
        found = neighbors_of(compared, queries.sparkSession, k, wanted, exclude_self)
        if kept is None:
            return found
        scratch = comparison.scratch_folder(folder)
        bad = stored(found.rejected, f"{scratch}/rejected")
        return replace(found, table=stored(found.table, f"{scratch}/found"), rejected=bad)


def join(
    left: DataFrame,
    right: DataFrame | None = None,
    *,
    threshold: float,
    metric: Metric = "cosine",
    within: Sequence[str] = (),
    id: str = "id",
    embedding: str = "embedding",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    folder: str | None = None,
) -> JoinResult:
    """All pairs of rows that are similar enough, exactly.

    Given one table only, it is joined with itself: each pair once, the smaller id on the left,
    without the diagonal.

    Args:
        left: an id column of any atomic type and a column array<float> or array<double>.
        right: the same, under the same names; None: the left table itself.
        threshold: the score that a pair must reach; for euclidean, the distance it may not exceed.
        metric: cosine, inner_product or euclidean.
        within: columns of both tables; only rows that agree on all of them are compared.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        max_failed_fraction: as for `ember.search`.
        folder: as for `ember.search`.

    Returns:
        `table`: `left_id`, `right_id`, `score` float, computed when it is written or counted.
        `rejected`: `side`, `id`, `reason`. `facts`: for a manifest.

    Raises:
        InvalidInput: as `ember.search` does; a threshold that is no number or a negative distance.
        InvalidConfig: a fraction that is none.
        TooManyFailures: more rows than `max_failed_fraction` of a table have no usable vector.

    Example:
        >>> rows = [(1, [1.0, 0.0]), (2, [0.8, 0.6]), (3, [0.0, 1.0]), (4, None)]
        >>> table = spark.createDataFrame(rows, "id int, embedding array<float>")
        >>> pairs = ember.join(table, threshold=0.7, max_failed_fraction=0.5)
        >>> pairs.table.collect()
        [Row(left_id=1, right_id=2, score=0.800000011920929)]
        >>> pairs.rejected.collect()
        [Row(side='left', id=4, reason='null embedding')]
    """
    limits = parse(ComparisonLimits, {"max_failed_fraction": max_failed_fraction}, "join")
    joining.check_threshold(threshold, metric)
    tables = comparison.sides(left, right, metric, id=id, embedding=embedding, within=within)
    compared = pack_for_join(
        *tables, threshold=threshold, metric=metric, folder=folder, limits=limits
    )
    refuse_rejected(compared, left.sparkSession, max_failed_fraction)
    return pairs_of(compared, left.sparkSession, threshold)


def project(
    table: DataFrame,
    projection: Projection | str | None = None,
    *,
    dimension: int | None = None,
    explained: float | None = None,
    like: DataFrame | None = None,
    center: bool = True,
    whiten: bool = False,
    id: str = "id",
    embedding: str = "embedding",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> ProjectResult:
    """The vectors of one column of `table` in fewer dimensions, or by a map that was learned.

    One of `projection`, `dimension`, `explained` and `like` says what to project to. The map is
    fitted, and the rows that it cannot take are counted, at once; the rest is lazy.

    Args:
        table: an id column, a column array<float> or array<double> of vectors of d numbers, and
            any others.
        projection: fitted by `fit_projection` or `fit_alignment`, or the folder of a saved one, or
            of a head that `train` wrote with `head="similarity"`.
        dimension: how many principal components to keep, 1 to d.
        explained: keep the fewest that explain this share of the variance, above 0 up to 1.
        like: keep as many as this table has dimensions; its vectors are in a column of the same
            name.
        center: where components are fitted, subtract the mean; without it, inner products are
            kept best.
        whiten: where components are fitted, scale each to variance 1.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        max_failed_fraction: share of the rows that may have no vector that can be projected: null,
            of another length, not finite, before or after.

    Returns:
        `table`: all columns in their order, the vectors array<float>, less the rows that cannot be
        projected. `rejected`: those, as `id`, `reason`. `projection`: the map. `facts`: for a
        manifest.

    Raises:
        InvalidInput: a table or a projection that cannot be used.
        InvalidConfig: not one way to come by a map is given, but none or several.
        TooManyFailures: more rows than `max_failed_fraction` cannot be projected.

    Example:
        >>> rows = [(1, [3.0, 4.0]), (2, [6.0, 8.0]), (3, [-3.0, -4.0])]
        >>> table = spark.createDataFrame(rows, "id int, embedding array<float>")
        >>> projected = ember.project(table, dimension=1)
        >>> [round(abs(row.embedding[0]), 3) for row in projected.table.orderBy("id").collect()]
        [1.667, 6.667, 8.333]
        >>> projected.facts["counts"]
        {'rows': 3, 'rejected': 0}
        >>> again = ember.project(table, projected.projection)
    """
    fitting.check_choice(projection=projection, dimension=dimension, explained=explained, like=like)
    limits = parse(RejectsConfig, {"max_failed_fraction": max_failed_fraction}, "project")
    ceiling = limits.max_failed_fraction
    select_embeddings(table, id, embedding, "the table")
    if isinstance(projection, str):
        projection = fitting.load_projection(table.sparkSession, projection)
    if projection is None:
        if like is not None:
            dimension = fitting.output_dimension(like, embedding, "like")
        projection = fitting.fit_projection(
            table,
            dimension=dimension,
            explained=explained,
            center=center,
            whiten=whiten,
            embedding=embedding,
            max_failed_fraction=ceiling,
        )
    fitting.check_length(table, embedding, projection, ceiling)
    bad = fitting.rejected_rows(table, projection, id, embedding)
    reasons = count_reasons(bad)
    rejected, total = sum(reasons.values()), table.count()
    refuse_many(reasons, total, ceiling, "")
    facts = {
        "dimension": projection.output_dimension,
        "projection": projection.summary(),
        "tolerance": fitting.TOLERANCE,
        "counts": {"rows": total - rejected, "rejected": rejected},
    }
    return ProjectResult(fitting.projected(table, projection, embedding), bad, projection, facts)


def check_search(k: int, recall: float | None) -> None:
    """Raise InvalidInput for a search that cannot be; recall None is exact."""
    comparison.check_k(k)
    if recall is not None and not 0 < recall < 1:
        raise InvalidInput(f"recall is {recall}; give a share between 0 and 1, or search exactly")


def pack_for_search(
    queries: DataFrame,
    corpus: DataFrame | None,
    *,
    k: int,
    metric: str,
    exclude_self: bool,
    folder: str | None,
    index: KeptIndex | None = None,
    limits: ComparisonLimits = _LIMITS,
) -> Comparison:
    """Tables as `comparison.sides` gives them, packed for a search; index: of the corpus."""
    if exclude_self:
        comparison.check_own(queries, corpus)
    spark, scratch = queries.sparkSession, comparison.scratch_folder(folder)
    ready = None
    if index:
        ready = index.bring_up(application_id(spark), scratch, limits.max_failed_fraction)
    return packing.prepare(
        queries,
        None if ready else corpus,
        metric,
        scratch,
        left_blocks=cores(spark),
        k=k,
        index=ready,
        limits=limits,
    )


def neighbors_of(
    compared: Comparison, spark: SparkSession, k: int, recall: float | None, exclude_self: bool
) -> SearchResult:
    """What a search of packed tables gives; recall None is exact."""
    facts = {**compared.describe(), "counts": {"rejected": compared.rejected}}
    if recall is not None:
        facts |= searching.recall_facts(compared.left.rows, recall)
    found = searching.neighbors(spark, compared, k, exclude_self)
    known = None if recall is None else searching.recall_of(compared.left.rows)
    return SearchResult(found, rejected_rows(compared, spark), lambda: facts, known)


def pack_for_join(
    left: DataFrame,
    right: DataFrame | None,
    *,
    threshold: float,
    metric: str,
    folder: str | None,
    limits: ComparisonLimits = _LIMITS,
) -> Comparison:
    """Tables as `comparison.sides` gives them, packed for a join."""
    return packing.prepare(
        left,
        right,
        metric,
        comparison.scratch_folder(folder),
        fitter=joining.basis_fitter(metric, threshold),
        limits=limits,
    )


def pairs_of(compared: Comparison, spark: SparkSession, threshold: float) -> JoinResult:
    """What a join of packed tables gives."""
    facts = {**compared.describe(), "counts": {"rejected": compared.rejected}}
    found = joining.pairs(spark, compared, threshold)
    return JoinResult(found, rejected_rows(compared, spark), lambda: facts)
