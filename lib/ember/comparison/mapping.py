"""What the `project` job applies: a map that is fitted, aligned with another table, or loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from ember.comparison import alignment, projection
from ember.comparison.alignment import Pairs
from ember.settings.comparison import ProjectConfig
from ember.spark import tables
from ember.worker.vectors.projection import Projection

__all__ = ["Work", "plan"]


@dataclass(frozen=True)
class Work:
    """The table that is projected, and how its map is come by.

    read: all tables that are read. fit: the map, and with cca that of the other table.
    pairs: of an alignment.
    """

    table: DataFrame
    read: tuple[DataFrame, ...]
    fit: Callable[[], tuple[Projection, Projection | None]]
    pairs: Pairs | None = None

    def counts(self) -> dict[str, int]:
        """For the manifest: the pairs that an alignment was learned from."""
        return self.pairs.counts() if self.pairs else {}


def plan(spark: SparkSession, config: ProjectConfig) -> Work:
    """Check the settings and the tables' columns and lengths; nothing is fitted yet.

    Raises InvalidConfig unless one way to come by a map is chosen, and InvalidInput for tables
    and folders that do not fit it.
    """
    projection.check_choice(
        dimension=config.dimension,
        explained=config.explained,
        like=config.like,
        align=config.align,
        projection=config.projection,
    )
    rows = tables.read_embeddings(spark, config.input)
    table = tables.read_table(spark, config.input)
    if config.projection is not None:
        return _loaded(spark, config, table, config.projection)
    if config.align is not None:
        others = tables.read_embeddings(spark, config.align.to)
        given = config.align
        pairs = alignment.pair(rows, others, config.limits.max_failed_fraction)
        return Work(
            table,
            (table, others),
            lambda: pairs.fit(given.method, dimension=given.dimension, penalty=given.penalty),
            pairs,
        )
    return _fitted(spark, config, table)


def _loaded(spark: SparkSession, config: ProjectConfig, table: DataFrame, folder: str) -> Work:
    loaded = projection.load_projection(spark, folder)
    ceiling = config.limits.max_failed_fraction
    projection.check_length(table, config.input.embedding, loaded, ceiling)
    return Work(table, (table,), lambda: (loaded, None))


def _fitted(spark: SparkSession, config: ProjectConfig, table: DataFrame) -> Work:
    dimension = config.dimension
    if config.like is not None:
        other = tables.read_table(spark, config.like)
        dimension = projection.output_dimension(other, config.like.embedding, "like")

    def fit() -> tuple[Projection, None]:
        fitted = projection.fit_projection(
            table,
            dimension=dimension,
            explained=config.explained,
            center=config.center,
            whiten=config.whiten,
            embedding=config.input.embedding,
            max_failed_fraction=config.limits.max_failed_fraction,
        )
        return fitted, None

    return Work(table, (table,), fit)
