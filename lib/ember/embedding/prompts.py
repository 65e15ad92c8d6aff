"""Prompts: a template filled from columns of the input and from tables joined by id."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    AtomicType,
    BinaryType,
    DataType,
    StructType,
)

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.description import PromptConfig, PromptTable
from ember.spark import tables
from ember.spark.ids import check_can_be_equal, text_of
from ember.spark.tables import column

__all__ = ["Template", "fill"]

_NEIGHBORS = ("query_id", "rank", "neighbor_id")


@dataclass(frozen=True)
class Template:
    """A prompt in parts: literal text, and the name of the value after it (None at the end)."""

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """`{name}` stands for a value, `{{` and `}}` for braces.

        Raises InvalidConfig for anything else in braces.
        """
        try:
            found = list(string.Formatter().parse(text))
        except ValueError as error:
            raise InvalidConfig(
                f"prompt.template {text!r}: {error}; write {{{{ and }}}} for braces"
            ) from None
        for _, name, form, conversion in found:
            if name is not None and (not name.strip() or form or conversion):
                raise InvalidConfig(
                    f"prompt.template {text!r}: write {{name}} with the name of a column, and "
                    "nothing else in the braces"
                )
        return cls(tuple((literal, name) for literal, name, _, _ in found))

    @property
    def names(self) -> list[str]:
        """The names, each once, in the order of the text."""
        return list(dict.fromkeys(name for _, name in self.parts if name is not None))

    def filled(self, values: Mapping[str, Column]) -> Column:
        """The text with a column of strings for each name; null where one of them is."""
        pieces = [F.lit("")]
        for literal, name in self.parts:
            pieces.append(F.lit(literal))
            if name is not None:
                pieces.append(values[name])
        return F.concat(*pieces)


def fill(table: DataFrame, id: str, config: PromptConfig, content: str | None = None) -> DataFrame:
    """(id, content, prompt, problem) for each row of `table`.

    content: column to keep under that name; None for a column of nulls.

    All four but the id are strings (content may be binary). `prompt` is null where `problem` says
    which value is missing: null, blank, or without a row in its table.

    Raises InvalidConfig for a malformed template and for columns or tables that it does not use,
    InvalidInput for columns that are not text and tables that cannot be joined.
    """
    template = Template.parse(config.template)
    _check_names(template, config)
    spark, values = table.sparkSession, {}
    picked = [column(table, id).alias("id")]
    picked.append(
        (column(table, content) if content else F.lit(None).cast("string")).alias("content")
    )
    for number, name in enumerate(template.names):
        if name not in config.tables:
            named = config.columns.get(name, name)
            text = _as_text(table, named, config.top, config.separator, "the input")
            picked.append(text.alias(f"v{number}"))
        values[name] = F.col(f"v{number}")
    rows = table.select(*picked)
    for number, name in enumerate(template.names):
        if name in config.tables:
            given = config.tables[name]
            other = tables.read_table(spark, given)
            found = _values(other, given, config.separator, name)
            if given.neighbors:
                nearest = tables.read(spark, given.neighbors)
                found = _of_neighbors(nearest, found, given, config.separator, name)
            rows = _joined(rows, found.toDF("key", f"v{number}"), name)
    missing = [
        F.when(~_is_said(value), F.lit(f"missing value: {{{name}}}"))
        for name, value in values.items()
    ]
    problem = F.coalesce(*missing) if missing else F.lit(None).cast("string")
    prompt = F.when(problem.isNull(), template.filled(values))
    return rows.select("id", "content", prompt.alias("prompt"), problem.alias("problem"))


def _check_names(template: Template, config: PromptConfig) -> None:
    for section, given in (("columns", config.columns), ("tables", config.tables)):
        if unused := [name for name in given if name not in template.names]:
            raise InvalidConfig(
                f"prompt.{section}.{unused[0]} is not in the template; write {{{unused[0]}}} where "
                "it belongs, or leave it out"
            )
    if twice := sorted(config.columns.keys() & config.tables.keys()):
        raise InvalidConfig(f"prompt gives {twice[0]} as a column and as a table; leave out one")


def _as_text(table: DataFrame, name: str, top: int, separator: str, shown: str) -> Column:
    """A column as strings: a value as `ids.text_of` writes it, a list as its first `top` values.

    A list of structs with a `label`, as classify writes it, stands for the labels.
    """
    value = column(table, name)
    kind = table.select(value.alias("value")).schema[0].dataType
    if _is_text(kind):
        return text_of(value, kind)
    if isinstance(kind, ArrayType):
        item = kind.elementType
        if (
            isinstance(item, StructType)
            and "label" in item.names
            and _is_text(item["label"].dataType)
        ):
            value, item = F.transform(value, lambda each: each["label"]), item["label"].dataType
        elif not _is_text(item):
            raise _no_text(shown, name, kind)
        strings = F.transform(value, lambda each: text_of(each, item))
        return F.array_join(F.slice(F.filter(strings, lambda x: x.isNotNull()), 1, top), separator)
    raise _no_text(shown, name, kind)


def _is_said(value: Column) -> Column:
    """Is a string neither null nor blank?"""
    return F.coalesce(value.rlike(r"\S"), F.lit(False))


def _is_text(kind: DataType) -> bool:
    return isinstance(kind, AtomicType) and not isinstance(kind, BinaryType)


def _no_text(shown: str, name: str, kind: DataType) -> InvalidInput:
    return InvalidInput(
        f"the column {name} of {shown} is {kind.simpleString()[:200]}, which is no text for a "
        "prompt; give a string, a number, a list of them, or predictions as classify writes them"
    )


def _values(table: DataFrame, given: PromptTable, separator: str, name: str) -> DataFrame:
    """(key, value) of a table, each key once."""
    # With neighbors, `top` counts these, and each gives one value.
    top = 1 if given.neighbors else given.top
    text = _as_text(table, given.column, top, separator, given.shown)
    found = table.select(column(table, given.id).alias("key"), text.alias("value"))
    found = found.filter(F.col("key").isNotNull())
    _check_once(found, given, name)
    return found


def _check_once(found: DataFrame, given: PromptTable, name: str) -> None:
    try:
        tables.check_unique(found, "key")
    except InvalidInput as error:
        reason = str(error).replace("column key", f"column {given.id}")
        raise InvalidInput(f"prompt.tables.{name}: {given.shown}: {reason}") from None


def _of_neighbors(
    nearest: DataFrame, found: DataFrame, given: PromptTable, separator: str, name: str
) -> DataFrame:
    """(key, value): the values of the `top` nearest neighbors that have one."""
    query, rank, neighbor = (column(nearest, each).alias(f"_{each}") for each in _NEIGHBORS)
    pairs = nearest.select(query, rank, neighbor)
    _check_types(pairs, "_neighbor_id", found, name)
    known = found.filter(_is_said(F.col("value")))
    met = pairs.join(known, F.col("_neighbor_id") == F.col("key"))
    ranked = F.array_sort(F.collect_list(F.struct("_rank", "value")))
    best = F.transform(F.slice(ranked, 1, given.top), lambda each: each["value"])
    return met.groupBy("_query_id").agg(F.array_join(best, separator))


def _joined(rows: DataFrame, found: DataFrame, name: str) -> DataFrame:
    _check_types(rows, "id", found, name)
    return rows.join(found, F.col("id") == F.col("key"), "left").drop("key")


def _check_types(rows: DataFrame, id: str, found: DataFrame, name: str) -> None:
    kinds = (rows.schema[id].dataType, found.schema["key"].dataType)
    check_can_be_equal(*kinds, f"prompt.tables.{name}: the ids to be joined")
