"""The few rows of large tables that a page shows, found by their ids."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, NumericType, StructType

from ember.report.content import Item
from ember.settings.report import ContentConfig
from ember.spark import read_batches, tables
from ember.spark.ids import text_of
from ember.worker.row_paths import PathRules
from ember.worker.spec import Modality

__all__ = ["as_text", "check_content", "cut", "fetch_items", "plain", "rows_of"]

# A page that asks for more would be too long to read, and its query too long to plan.
_MOST = 2000
# Characters of a text in a cell or below a picture; a table has up to 1,000 rows.
_LONGEST = 300


def as_text(value: Column, kind: DataType) -> Column:
    """An id, or a label, of any type as a page names it: the beginning of a long one.

    What is cut ends in its length and a hash, so that others are not taken for it.
    """
    # A Parquet string may hold bytes that are no UTF-8.
    binary = isinstance(kind, BinaryType)
    return _cut(F.hex(value) if binary else F.make_valid_utf8(text_of(value, kind)))


def _cut(text: Column) -> Column:
    length = F.length(text)
    told = F.format_string("… (%d characters, %016x)", length, F.xxhash64(text))
    return F.when(length > _LONGEST, F.concat(F.left(text, F.lit(_LONGEST)), told)).otherwise(text)


def cut(text: str) -> str:
    """The same of a text that the driver has; the hash is another one."""
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_LONGEST]}… ({len(text)} characters, {digest[:16]})"


def plain(frame: DataFrame, name: str) -> Column:
    """A column as numbers, lists of texts, or text: ids may be of any type."""
    value, kind = tables.column(frame, name), frame.schema[name].dataType
    if isinstance(kind, ArrayType):
        value = F.transform(value.cast("array<string>"), _cut)
    elif isinstance(kind, StructType):  # an id of several columns
        value = F.array(*(as_text(value[field.name], field.dataType) for field in kind.fields))
    elif not isinstance(kind, NumericType) or kind.typeName() == "decimal":
        value = as_text(value, kind)
    return value.alias(name)


def rows_of(table: DataFrame, id: str, ids: Collection[str]) -> DataFrame:
    """The rows of `table` whose id, as text, is one of `ids`.

    In two steps, since Parquet would read the content of all rows to find those of a few: the ids
    alone tell in which files they are, and only those files are read.
    """
    wanted = sorted(ids)[:_MOST]
    key = as_text(
        tables.column(table, id), table.select(tables.column(table, id)).schema[0].dataType
    )
    found = table.filter(key.isin(wanted))
    if len(table.inputFiles()) < 2:
        return found
    file = table.metadataColumn("_metadata")["file_path"]
    files = [row[0] for row in found.select(file).distinct().collect()]
    return found.filter(file.isin(files)) if files else found.limit(0)


def check_content(spark: SparkSession, config: ContentConfig) -> None:
    """Raise InvalidInput for a table that is not there, or columns that it lacks."""
    _select(tables.read_table(spark, config), config)


def fetch_items(
    spark: SparkSession, config: ContentConfig | None, ids: Collection[str]
) -> Mapping[str, Item]:
    """What can be seen of the rows `ids` (as text), by id: made on the executors.

    Of an id that occurs several times, one row. An id that is not there has none; without a
    configuration there are none at all.
    """
    if config is None or not ids:
        return {}
    table = tables.read_table(spark, config)
    rows, paths = _select(rows_of(table, config.id, ids), config)
    read_batches.fit(rows)
    from ember.worker.images.thumbnails import SCHEMA

    shown = rows.mapInArrow(partial(_show, config.modality, paths), SCHEMA).toArrow().to_pylist()
    found: dict[str, Item] = {}
    for row in sorted(
        shown, key=lambda each: (each["id"], each["text"] or "", each["image"] or b"")
    ):
        found.setdefault(
            row["id"],
            Item(
                row["label"] or "",
                row["text"] or "",
                _address(row["image"]),
                row["width"] or 0,
                row["height"] or 0,
                row["reason"] or "",
            ),
        )
    return found


def _select(table: DataFrame, config: ContentConfig) -> tuple[DataFrame, PathRules | None]:
    """The rows as (id text, content, label text), and where they may name files."""
    select = tables.corpus_selector(table.sparkSession, config)
    corpus = select(table, config.id, config.content, config.modality)
    key = as_text(tables.column(table, config.id), corpus.id_type)
    label = F.lit(None) if config.label is None else tables.column(table, config.label)
    return (
        table.select(
            key.alias("id"),
            tables.column(table, config.content).alias("content"),
            _cut(F.make_valid_utf8(label.cast("string"))).alias("label"),
        ),
        corpus.paths,
    )


def _show(
    modality: Modality, paths: PathRules | None, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    from ember.worker.images.thumbnails import show_batches

    return show_batches(batches, modality, paths=paths)


def _address(data: bytes | None) -> str:
    if not data:
        return ""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
