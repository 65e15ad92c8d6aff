"""Reading a table and checking that it is what the configuration says, before any work starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    DoubleType,
    FloatType,
    StringType,
    StructType,
)

from ember.errors import InvalidInput
from ember.settings.tables import (
    ContentIs,
    CorpusConfig,
    EmbeddingsConfig,
    InputConfig,
    TableConfig,
)
from ember.spark import catalog, placed_files, read_batches
from ember.spark.access import default_roots, path_rules
from ember.spark.classic import Py4JError
from ember.spark.conditions import where
from ember.spark.explain import cause, first_line
from ember.spark.ids import check_id
from ember.spark.older_versions import error_condition
from ember.spark.paths import check as check_path
from ember.spark.paths import is_glob, literal
from ember.spark.storage import Storage
from ember.spark.within_keys import group_of
from ember.worker.row_paths import PathRules

__all__ = [
    "Corpus",
    "check_result_name",
    "check_unique",
    "column",
    "corpus_selector",
    "read",
    "read_corpus",
    "read_embeddings",
    "read_table",
    "same_column",
    "select_corpus",
    "select_embeddings",
]

_ACCOUNT_COLUMNS = ("status", "error")
_STAGED = re.compile(r"/\.[^/]+\.staging(/|$)")


@dataclass(frozen=True)
class Corpus:
    """Rows to be embedded: a DataFrame of exactly two columns, the id and the content.

    `paths`: where the files may be that the content names; None where it holds their bytes. The
    output depends on it as on the rows.
    """

    rows: DataFrame
    id: str
    paths: PathRules | None

    @property
    def content_is(self) -> ContentIs:
        return "paths" if self.paths else "bytes"

    @property
    def id_type(self) -> DataType:
        return self.rows.schema[0].dataType


def read(spark: SparkSession, path: str | Sequence[str]) -> DataFrame:
    """The Parquet table at `path`: a folder, a file, a glob, or a list of them.

    Raises:
        InvalidInput: there is none, or what is there is not Parquet.
    """
    paths = [path] if isinstance(path, str) else list(path)
    named = ", ".join(paths)
    storage = Storage(spark)
    globs = [file for each in paths for file in _located(storage, each)]
    for each in paths:
        storage.check_names(each)
    if delta := [each for each in globs if storage.exists(f"{each}/_delta_log")]:
        if len(paths) > 1:
            raise InvalidInput(f"{delta[0]} is a Delta table; give it alone, or a view of several")
        return _read_delta(spark, delta[0])
    try:
        table = spark.read.parquet(*globs)
    except AnalysisException as error:
        if error_condition(error) == "PATH_NOT_FOUND":
            raise InvalidInput(f"there is nothing at {named}") from None
        if error_condition(error) == "UNABLE_TO_INFER_SCHEMA":
            raise InvalidInput(
                f"{named} holds no Parquet files; for files in nested folders give a glob such as "
                "PATH/*/*, and rename files with names that begin with _ or ., which Spark leaves "
                "out"
            ) from None
        raise InvalidInput(f"cannot read {named}: {first_line(error)}") from None
    except Exception as error:  # a corrupt footer comes as a Java exception of any kind
        if "Illegal file pattern" in str(error):
            raise InvalidInput(f"there is nothing at {named}, which is no glob either") from None
        raise InvalidInput(f"cannot read {named} as Parquet: {cause(error)}") from error
    return table


def _located(storage: Storage, path: str) -> list[str]:
    """`path` as Spark takes it; of a table of Ember's in an object store, its files.

    Raises:
        InvalidInput: see `_glob` and `placed_files.rows_of`.
    """
    glob = _glob(storage, path)
    if glob == path and not is_glob(path) and not storage.moves_folders(path):
        folder, name = storage.qualify(path), storage.name(path)
        staging = storage.sibling(folder, f".{name}.staging") if name else ""
        if name and (files := placed_files.rows_of(storage, folder, staging)):
            return [literal(each) for each in files]
    return [glob]


def _read_delta(spark: SparkSession, path: str) -> DataFrame:
    """The Delta table at `path`; its files alone would also give the rows that were replaced."""
    try:
        table = spark.read.format("delta").load(path)
    except AnalysisException as error:
        raise InvalidInput(f"cannot read {path} as a Delta table: {first_line(error)}") from None
    except Py4JError as error:
        raise InvalidInput(
            f"{path} is a Delta table, and Spark has no Delta: start it with the jars of "
            f"delta-spark for its version ({cause(error)})"
        ) from None
    return catalog.at_version(table, lambda reader: reader.format("delta").load(path))


def _glob(storage: Storage, path: str) -> str:
    """`path` as Spark takes it: escaped where a file of that literal name is there.

    Raises:
        InvalidInput: a glob that leads into staged rows.
    """
    check_path(path)
    if not is_glob(path):
        return path
    if storage.exists(path):
        return literal(path)
    if inner := _staged(storage, path):
        raise InvalidInput(
            f"{path} also names {inner}, rows that a run has staged and not published; write the "
            "glob so that it does not lead into hidden folders"
        )
    return path


def _staged(storage: Storage, glob: str) -> str | None:
    """A place inside the staged rows of an output that the glob matches, if there is one."""
    try:
        found = storage.found(glob)
    except Py4JError:  # no glob, as reading it will say
        return None
    return next((place for place in found if _STAGED.search(place)), None)


def read_table(spark: SparkSession, config: TableConfig) -> DataFrame:
    """The rows of the table that `config` names for which its `where` is true.

    Raises:
        InvalidInput: see `read` and `where`.
    """
    table = catalog.read(spark, config.table) if config.table else read(spark, config.path)
    if config.where is None:
        return table
    return where(table, config.where, config.shown)


def read_corpus(spark: SparkSession, config: InputConfig, *results: str) -> Corpus:
    """The corpus that `config` names, checked: columns, types, and ids where asked for.

    results: the columns that the output will have beside the id, `embedding` if none is given.

    Raises:
        InvalidInput: see `select_corpus` and `check_unique`.
    """
    table = read_table(spark, config)
    select = corpus_selector(spark, config)
    corpus = select(table, config.id, config.content, config.modality, *results)
    read_batches.fit(corpus.rows)
    if config.unique_ids:
        check_unique(corpus.rows, corpus.id)
    return corpus


def corpus_selector(spark: SparkSession, config: CorpusConfig) -> Callable[..., Corpus]:
    """`select_corpus` as the configuration says; rows may read in the table's folder by default."""
    root = config.root
    if root is None and config.content_is == "paths":
        if not config.path:
            raise InvalidInput(
                f"root is missing; give the folder of the files that {config.shown} names, which "
                "has none beside it"
            )
        root = default_roots(spark, config.path)
    return partial(select_corpus, content_is=config.content_is, root=root)


def select_corpus(
    table: DataFrame,
    id: str,
    content: str,
    modality: str,
    *results: str,
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
) -> Corpus:
    """The id and content columns of `table`; nested fields may be given as `outer.inner`.

    content_is, root: see `access.path_rules`, whose errors this raises too.

    Raises:
        InvalidInput: a missing column, an id that is not atomic or is named like a column of the
            result, or content that is neither string nor binary.
    """
    rows = table.select(column(table, id), column(table, content))
    id_field, content_field = rows.schema.fields
    check_id(id_field.dataType, id)
    check_result_name(table, id_field.name, *(results or ("embedding",)), *_ACCOUNT_COLUMNS)
    if not isinstance(content_field.dataType, StringType | BinaryType):
        raise InvalidInput(
            f"the content column {content} is {content_field.dataType.simpleString()}; give "
            + ("encoded bytes (binary) or paths (string)" if modality == "image" else "text")
        )
    paths = path_rules(table.sparkSession, content_field, modality, content_is, root)
    if same_column(table.sparkSession, id_field.name, [content_field.name]):
        # One column as both, or the fields of two structs.
        rows = rows.toDF(id_field.name, f"{id_field.name}_content")
    return Corpus(rows, id_field.name, paths)


def check_result_name(table: DataFrame, id: str, *others: str) -> None:
    """Raise InvalidInput where an id column's name is that of another column of the result."""
    if same := same_column(table.sparkSession, id, others):
        raise InvalidInput(
            f"the id column is named {id}, like the column {same} of the result; rename it"
            if same == id
            else f"the id column is named {id}, and the result has a column {same}, from which "
            "Spark does not tell it; rename it, or set spark.sql.caseSensitive"
        )


def same_column(spark: SparkSession, name: str, others: Iterable[str]) -> str | None:
    """The first of `others` that Spark takes for the column `name`, if any.

    Without spark.sql.caseSensitive, names that differ only by case are one.
    """
    if spark.conf.get("spark.sql.caseSensitive") == "true":
        return next((each for each in others if each == name), None)
    return next((each for each in others if each.lower() == name.lower()), None)


def read_embeddings(
    spark: SparkSession, config: EmbeddingsConfig, within: Sequence[str] = ()
) -> DataFrame:
    """The table that `config` names, as (id, embedding); see `select_embeddings`.

    Raises:
        InvalidInput: it is not there or is no table of embeddings.
    """
    table = read_table(spark, config)
    rows = select_embeddings(table, config.id, config.embedding, config.shown, within)
    read_batches.fit(rows)
    return rows


def select_embeddings(
    table: DataFrame, id: str, embedding: str, shown: str, within: Sequence[str] = ()
) -> DataFrame:
    """`table` as (id, embedding array<float or double>), and with `within` also (…, group).

    within: columns that make up a row's group. `group` is a text that is equal for groups that
        SQL's `=` finds equal in all of them, null where one of them is null; see `within_keys`.

    Raises:
        InvalidInput: it has no such columns; the message names the table `shown`.
    """
    grouped = [column(table, name) for name in within]
    rows = table.select(
        column(table, id).alias("id"),
        column(table, embedding).alias("embedding"),
        *([group_of(table, grouped, within)] if within else []),
    )
    key, vector = (rows.schema[name].dataType for name in ("id", "embedding"))
    if not (
        isinstance(vector, ArrayType) and isinstance(vector.elementType, FloatType | DoubleType)
    ):
        raise InvalidInput(
            f"{shown}: column {embedding} is {vector.simpleString()}; embeddings are array<float>"
        )
    check_id(key, id, shown)
    return rows


def column(table: DataFrame, name: str) -> Column:
    """The column `name` of `table`, or the field that `outer.inner` leads to, by its last name.

    Raises:
        InvalidInput: there is no such column (the message lists those there are), or there are two.
    """
    if name in table.columns:
        _check_alone(table, name, table.columns)
        return F.col(catalog.quoted((name,)))
    fields: DataType = table.schema
    parts = name.split(".")
    for depth, part in enumerate(parts, 1):
        if not isinstance(fields, StructType) or part not in fields.names:
            known = ", ".join(table.columns)
            raise InvalidInput(f"there is no column {name}; the table has {known}")
        _check_alone(table, part, fields.names)
        if depth < len(parts):
            fields = fields[part].dataType
    return F.col(catalog.quoted(tuple(parts))).alias(parts[-1])


def _check_alone(table: DataFrame, name: str, names: Sequence[str]) -> None:
    """Raise InvalidInput where Spark cannot tell one of `names` from another."""
    others = list(names)
    others.remove(name)
    if same := same_column(table.sparkSession, name, others):
        raise InvalidInput(
            f"the columns {name} and {same} cannot be told from one another; rename one"
            + ("" if same == name else ", or set spark.sql.caseSensitive")
        )


def check_unique(rows: DataFrame, id: str) -> None:
    """Raise InvalidInput that names up to five ids which occur more than once."""
    counts = rows.groupBy(column(rows, id).alias("id")).count().filter("count > 1")
    repeated = counts.orderBy(F.desc("count"), "id").limit(5).collect()
    if repeated:
        named = ", ".join(f"{row['id']} ({row['count']} times)" for row in repeated)
        raise InvalidInput(f"ids in column {id} are not unique: {named}")
