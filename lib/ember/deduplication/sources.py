"""The tables of a run: a corpus with what decides which row stays, and its embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    DataType,
    DateType,
    IntegralType,
    NumericType,
    TimestampNTZType,
    TimestampType,
)

from ember.deduplication.labeled_pairs import select_pairs
from ember.deduplication.tiers import Keep, Tier, chosen_keep, chosen_tiers
from ember.errors import InvalidConfig, InvalidInput
from ember.settings.deduplication import AgainstConfig, DedupConfig, DedupLimits
from ember.settings.tables import CorpusConfig, EmbeddingsConfig, TableConfig
from ember.spark import conditions, read_batches, tables
from ember.spark.ids import check_can_be_equal
from ember.spark.older_versions import since_epoch
from ember.worker.row_paths import PathRules
from ember.worker.spec import Modality

__all__ = ["Columns", "Plan", "Source", "checked", "other_corpus", "plan", "source"]


@dataclass(frozen=True)
class Source:
    """A table to find copies in.

    table: as it is, with its id column. rows: id, content, preferred; those of a smaller
    `preferred` (null: of none) are kept rather. paths: see `tables.Corpus`. vectors: id, embedding.
    """

    table: DataFrame
    id: str
    rows: DataFrame
    paths: PathRules | None
    vectors: DataFrame | None

    @property
    def id_type(self) -> DataType:
        return self.rows.schema["id"].dataType

    def read(self) -> list[DataFrame]:
        """All tables that are read."""
        return [self.table, *([] if self.vectors is None else [self.vectors])]

    def without(self, removed: DataFrame) -> DataFrame:
        """The table without the rows of which `removed` has the id."""
        gone = removed.select(F.col("id").alias("_ember_removed"))
        same = tables.column(self.table, self.id) == F.col("_ember_removed")
        return self.table.join(gone, same, "left_anti")


@dataclass(frozen=True)
class Columns:
    """Names in a table. time: where the rows have times that decide which of them stays."""

    id: str
    content: str
    time: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a run is to do. pairs: as `labeled_pairs.select_pairs` gives them."""

    input: Source
    against: Source | None
    modality: Modality
    tiers: list[Tier]
    keep: Keep
    limits: DedupLimits
    pairs: DataFrame | None = None

    def read(self) -> list[DataFrame]:
        """All tables that are read."""
        others = [*(self.against.read() if self.against else []), self.pairs]
        return [*self.input.read(), *(each for each in others if each is not None)]


def plan(spark: SparkSession, config: DedupConfig) -> Plan:
    """The work of the job, checked: settings, columns, and that no id of the input occurs twice.

    Raises InvalidConfig or InvalidInput.
    """
    given = config.input
    tiers = chosen_tiers(config.tiers, given.modality, vectors=given.embedding is not None)
    keep = chosen_keep(
        config.keep, given.modality, time=given.time, against=config.against is not None
    )
    other = config.against
    if other and (other.embedding is None) != (given.embedding is None):
        raise InvalidConfig(
            "input.embedding and against.embedding go together: give the embeddings of both "
            "tables, of one model"
        )
    first = _read(spark, given, keep, given.time, given.embedding)
    # Of the other table nothing is kept or removed, and no row is preferred.
    second = (
        _read(spark, other_corpus(other, given), None, None, other.embedding) if other else None
    )
    pairs = None
    if config.pairs:
        table = tables.read_table(spark, config.pairs)
        names = (config.pairs.left_id, config.pairs.right_id, config.pairs.label)
        pairs = select_pairs(table, first.id_type, *names)
    return checked(Plan(first, second, given.modality, tiers, keep, config.limits, pairs))


def checked(work: Plan) -> Plan:
    """The plan.

    Raises InvalidInput where an id occurs twice, or ids of tables cannot be equal; InvalidConfig
    where there are labeled pairs and another table.
    """
    for name, each in (("input", work.input), ("against", work.against)):
        if each and each.vectors is not None:
            kind = each.vectors.schema["id"].dataType
            check_can_be_equal(each.id_type, kind, f"the ids of {name} and its embeddings")
    if work.pairs is not None and work.against is not None:
        raise InvalidConfig(
            "pairs does not go with against: labeled pairs are of rows of one table; leave one out"
        )
    # Nobody could tell which row of an id is removed.
    ids = work.input.rows.filter("id IS NOT NULL").select(F.col("id").alias(work.input.id))
    tables.check_unique(ids, work.input.id)
    return work


def source(
    table: DataFrame,
    columns: Columns,
    paths: PathRules | None,
    keep: Keep | None,
    vectors: DataFrame | None,
) -> Source:
    """A table whose columns were checked, with what decides which row stays.

    keep: None where no row is preferred.

    Raises InvalidInput for a time that is none, and an expression that is no value of a row.
    """
    preferred = F.lit(None).cast("int")
    if keep and keep.expression:
        preferred = conditions.value(table, keep.expression, "keep.first_by")
    elif keep and columns.time is not None:
        preferred = _instant(table, columns.time)
        preferred = -preferred if keep.name == "newest" else preferred
    rows = table.select(
        tables.column(table, columns.id).alias("id"),
        tables.column(table, columns.content).alias("content"),
        preferred.alias("preferred"),
    )
    return Source(table, columns.id, rows, paths, vectors)


def _read(
    spark: SparkSession,
    given: CorpusConfig,
    keep: Keep | None,
    time: str | None,
    embedding: EmbeddingsConfig | None,
) -> Source:
    table = tables.read_table(spark, given)
    select = tables.corpus_selector(spark, given)
    corpus = select(table, given.id, given.content, given.modality)
    read_batches.fit(corpus.rows)
    vectors = tables.read_embeddings(spark, embedding) if embedding else None
    columns = Columns(given.id, given.content, time)
    return source(table, columns, corpus.paths, keep, vectors)


def other_corpus(other: AgainstConfig, given: CorpusConfig) -> CorpusConfig:
    """The other corpus, its columns named as in the input where it does not name them itself."""
    return CorpusConfig(
        **other.model_dump(include=set(TableConfig.model_fields)),
        id=other.id or given.id,
        content=other.content or given.content,
        modality=given.modality,
        content_is=other.content_is,
        root=other.root,
    )


def _instant(table: DataFrame, time: str) -> Column:
    """A time as a number, so that it has an order and an opposite. Raises InvalidInput."""
    column = tables.column(table, time)
    kind = table.select(column).schema[0].dataType
    if isinstance(kind, TimestampType):
        return F.unix_micros(column)
    if isinstance(kind, TimestampNTZType):
        return since_epoch(column)
    if isinstance(kind, DateType):
        return F.unix_date(column)
    if isinstance(kind, NumericType):
        # The smallest integer has no opposite of its own type.
        return column.cast("decimal(20,0)") if isinstance(kind, IntegralType) else column
    raise InvalidInput(
        f"input.time: the column {time} is {kind.simpleString()}; give a timestamp, a date or a "
        "number"
    )
