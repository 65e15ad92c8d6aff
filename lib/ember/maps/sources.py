"""The tables of a map: embeddings, and the columns by which its points are colored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    AtomicType,
    BinaryType,
    DataType,
    FractionalType,
    StructType,
)

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.maps import ColorConfig, MapConfig
from ember.settings.tables import CorpusConfig, TableConfig
from ember.spark import read_batches, tables
from ember.spark.ids import check_can_be_equal
from ember.worker.spec import Modality

__all__ = ["AGREEMENT", "Content", "Plan", "Values", "plan"]

AGREEMENT = "agreement"
"""The color that says whether two others agree."""
_OWN = ("x", "y")  # columns of the result


@dataclass(frozen=True)
class Values:
    """Columns of one table, by ids. rows: id, and a column for each of `names`."""

    rows: DataFrame
    names: Sequence[str]


@dataclass(frozen=True)
class Content:
    """The rows behind the points. corpus: id and content. modality: image or text."""

    corpus: tables.Corpus
    modality: Modality


@dataclass(frozen=True)
class Plan:
    """What a run is to do. rows: id, embedding. id: the name of that column in the input."""

    rows: DataFrame
    id: str
    values: Sequence[Values]
    agree: Sequence[str] | None
    content: Content | None
    read: Sequence[DataFrame]

    @property
    def colors(self) -> list[str]:
        """The names of all colors, in the order in which a page offers them."""
        named = [name for each in self.values for name in each.names]
        return [*named, *([AGREEMENT] if self.agree else [])]


def plan(spark: SparkSession, config: MapConfig) -> Plan:
    """Check the settings and the tables' columns; nothing is read yet.

    Raises InvalidConfig or InvalidInput.
    """
    given = config.input
    table = tables.read_table(spark, given)
    rows = tables.select_embeddings(table, given.id, given.embedding, given.shown)
    read_batches.fit(rows)
    colors = [config.color] if isinstance(config.color, str) else config.color
    own = [each for each in colors if isinstance(each, str)]
    values = [_own_values(table, given.id, own)] if own else []
    values += [_values(spark, each, given.id) for each in colors if isinstance(each, ColorConfig)]
    content = _content(spark, config)
    kind = rows.schema["id"].dataType
    for each in values:
        check_can_be_equal(
            kind, each.rows.schema["id"].dataType, f"the ids of input and of {each.names[0]}"
        )
    if content:
        check_can_be_equal(kind, content.corpus.id_type, "the ids of input and content")
    work = Plan(
        rows,
        table.select(tables.column(table, given.id)).columns[0],
        values,
        config.agree,
        content,
        [table, *(each.rows for each in values), *([content.corpus.rows] if content else [])],
    )
    _check_names(spark, work)
    return work


def _own_values(table: DataFrame, id: str, names: Sequence[str]) -> Values:
    """Colors of the input itself, read at once."""
    columns = [_single(table, name, "color").alias(name) for name in names]
    return Values(table.select(tables.column(table, id).alias("id"), *columns), names)


def _values(spark: SparkSession, given: ColorConfig, id: str) -> Values:
    table = tables.read_table(spark, given)
    name = given.name or given.column
    value = _single(table, given.column, f"color: {given.shown}").alias(name)
    return Values(table.select(tables.column(table, given.id or id).alias("id"), value), [name])


def _single(table: DataFrame, name: str, shown: str) -> Column:
    """A column as one value a row: of labels their list as text, of predictions the best label."""
    value = tables.column(table, name)
    kind = table.select(value).schema[0].dataType
    if isinstance(kind, AtomicType) and not isinstance(kind, BinaryType):
        return value
    if isinstance(kind, ArrayType):
        inner = kind.elementType
        if isinstance(inner, StructType) and {"index", "label"} <= set(inner.names):
            best = F.get(value, F.lit(0))
            return F.coalesce(best["label"], best["index"].cast("string"))
        if isinstance(inner, AtomicType) and not isinstance(inner, BinaryType | FractionalType):
            return F.array_join(value.cast("array<string>"), ", ")
    raise InvalidInput(
        f"{shown}: the column {name} is {kind.simpleString()}; color by single values, lists of "
        "labels, or predictions"
    )


def _content(spark: SparkSession, config: MapConfig) -> Content | None:
    """The corpus, its keys as in the input where they are not given."""
    given = config.content
    if given is None:
        return None
    table = tables.read_table(spark, given)
    kind: DataType = table.select(tables.column(table, given.content)).schema[0].dataType
    modality = given.modality or ("image" if isinstance(kind, BinaryType) else "text")
    corpus = CorpusConfig(
        **given.model_dump(include=set(TableConfig.model_fields)),
        id=given.id or config.input.id,
        content=given.content,
        modality=modality,
        content_is=given.content_is,
        root=given.root,
    )
    select = tables.corpus_selector(spark, corpus)
    found = select(table, corpus.id, corpus.content, modality)
    read_batches.fit(found.rows)
    return Content(found, modality)


def _check_names(spark: SparkSession, work: Plan) -> None:
    """Raise InvalidConfig where two columns of the result would have one name."""
    taken = [work.id, *_OWN]
    for name in work.colors:
        if same := tables.same_column(spark, name, taken):
            raise InvalidConfig(
                f"color: {name} would be a second column {same} of the result; give it another "
                "name, as in {path: …, column: …, name: …}"
            )
        taken.append(name)
    for name in work.agree or ():
        if name not in taken[len(_OWN) + 1 :]:
            known = ", ".join(each for each in work.colors if each != AGREEMENT) or "none"
            raise InvalidConfig(f"agree: there is no color {name}; colors: {known}")
