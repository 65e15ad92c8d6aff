"""From an evaluation on Spark to the plain rows of its page, and the contents of a few rows."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, NumericType, StructType

from ember.evaluation.result import Evaluation
from ember.report.report import MOST_CELLS, MOST_CLASSES, Item, Report, Row, Table
from ember.settings.report import ContentConfig
from ember.spark import read_batches, tables
from ember.spark.ids import text_of
from ember.spark.older_versions import as_dicts, file_path, make_valid_utf8
from ember.worker.metrics.sums import ALL
from ember.worker.row_paths import PathRules

__all__ = ["as_text", "check_content", "collect", "fetch_items", "id_text", "plain", "rows_of"]

# Rows of a table that a page takes, which a browser sorts and filters at once.
_ROWS = {"per_class": 1000, "per_label": 1000, "reliability": 1000, "most_confused": 100}
_ROWS |= {"worst": 200, "slices": 200, "labels": 200, "scores": 1000}
_MOST_CURVES = 8
# Of the worst rows, and of each kind of query.
_MOST_SEEN = 24
_MOST_QUERIES = 6
_MOST_DOCUMENTS = 10
# Ids to look for: a page with more is too long to read, and their query too long to plan.
_MOST_IDS = 2000
# Characters of a text in a cell or below a thumbnail.
_LONGEST = 300


def collect(
    evaluation: Evaluation,
    content: ContentConfig | None = None,
    query_content: ContentConfig | None = None,
) -> Report:
    """The report of an evaluation: a few small Spark jobs.

    Its tables are those of the evaluation, but `confusion` only for up to MOST_CLASSES classes,
    `reliability` of the slice "all", `precision_recall` of the labels with the most rows, and
    `slices` only where they differ from the whole. A retrieval with content also has `ranked`:
    which (worst or sampled), id, map, documents, gains.

    `content` is the corpus of the judged ids, for a retrieval the documents, for pairs the second
    ids; `query_content` that of the queries or first ids, by default the same.
    """
    found: dict[str, Table] = {}
    for name, most in _ROWS.items():
        if name in evaluation.tables:
            frame = evaluation.tables[name]
            if name == "reliability":
                frame = frame.filter(F.col("slice") == ALL).drop("slice")
            found[name] = _rows(frame, most)
    classes = found.get("per_class")
    if classes and len(classes.rows) <= MOST_CLASSES and "confusion" in evaluation.tables:
        found["confusion"] = _rows(evaluation.tables["confusion"], MOST_CELLS)
    if "precision_recall" in evaluation.tables:
        frame = evaluation.tables["precision_recall"]
        found["precision_recall"] = _curves(frame, found.get("per_label"))
    if evaluation.tests:
        found["tests"] = Table(list(evaluation.tests[0]), evaluation.tests)
    if evaluation.slices:
        found["slices"] = _different(evaluation.slices)
    items: Mapping[str, Mapping[str, Item]] = {}
    if content is not None:
        if evaluation.lists is not None:
            found["ranked"] = _ranked(evaluation.tables["per_query"], evaluation.lists)
        contents = {"rows": content, "queries": query_content}
        items = fetch_items(evaluation.rows.sparkSession, contents, _shown(found))
    figures = [
        {**figure.as_row(), "slice": _cut_text(figure.slice)} for figure in evaluation.figures
    ]
    issues = [
        {"reason": issue.reason, "rows": issue.rows, "ids": [_cut_text(key) for key in issue.ids]}
        for issue in evaluation.issues
    ]
    return Report(evaluation.kind, figures, issues, found, items)


def _rows(frame: DataFrame, most: int) -> Table:
    columns = (plain(frame, name) for name in frame.columns)
    rows = as_dicts(frame.select(*columns).limit(most + 1))
    return Table(frame.columns, rows[:most], len(rows) > most)


def _different(slices: Sequence[Row]) -> Table:
    """The slices that differ from the whole, the surest first."""
    rows = [row for row in slices if row["differs"]]
    rows.sort(key=lambda row: (row["q_value"], row["p_value"], row["metric"], row["slice"]))
    cut = [{**row, "slice": _cut_text(row["slice"])} for row in rows[: _ROWS["slices"]]]
    columns = [name for name in slices[0] if name != "differs"]
    return Table(columns, cut, len(rows) > len(cut))


def _curves(frame: DataFrame, labels: Table | None) -> Table:
    """The curves of the labels with the most rows; the only curve where there are no labels."""
    if labels is None:
        return _rows(frame, 1000)
    order = sorted(labels.rows, key=lambda row: (-row["support"], row["label"]))
    names = [row["label"] for row in order[:_MOST_CURVES]]
    label = as_text(F.col("label"), frame.schema["label"].dataType)  # as `names` has it
    table = _rows(frame.filter(label.isin(names)), 1000)
    rows = sorted(table.rows, key=lambda row: (names.index(row["label"]), row["recall"]))
    return Table(table.columns, rows, len(order) > len(names))


def _ranked(per_query: DataFrame, lists: DataFrame) -> Table:
    """The queries of the lowest average precision, and some sampled by the hash of their id."""
    key = as_text(F.col("id"), per_query.schema["id"].dataType)
    chosen: list[Row] = []
    for which, order in (("worst", F.col("map")), ("sampled", F.xxhash64(key))):
        first = per_query.orderBy(order, "id").limit(_MOST_QUERIES)
        columns = F.lit(which).alias("which"), key.alias("id"), "map"
        chosen += as_dicts(first.select(*columns))
    kind = lists.schema["documents"].dataType.elementType  # type: ignore[attr-defined]
    documents = F.transform(
        F.slice("documents", 1, _MOST_DOCUMENTS), lambda each: as_text(each, kind)
    )
    gains = F.slice("gains", 1, _MOST_DOCUMENTS)
    found = lists.filter(key.isin([row["id"] for row in chosen])).select(
        key.alias("id"), documents.alias("documents"), gains.alias("gains")
    )
    known = {row["id"]: row for row in as_dicts(found)}
    none: Row = {"documents": [], "gains": []}
    rows = [{**none, **known.get(row["id"], {}), **row} for row in chosen]
    return Table(["which", "id", "map", "documents", "gains"], rows)


def _shown(tables: Mapping[str, Table]) -> Mapping[str, set[str]]:
    """The ids in collages, by side: rows (or documents), and queries (or first ids of pairs)."""
    if "ranked" in tables:
        ranked = tables["ranked"].rows
        documents = {key for row in ranked for key in row["documents"]}
        return {"rows": documents, "queries": {row["id"] for row in ranked}}
    worst = tables["worst"].rows[:_MOST_SEEN] if "worst" in tables else ()
    ids: list[Sequence[str]] = [r["id"] if isinstance(r["id"], list) else [r["id"]] for r in worst]
    queries = {str(part) for each in ids for part in each[:-1]}
    return {"rows": {str(each[-1]) for each in ids}, "queries": queries}


def as_text(value: Column, kind: DataType) -> Column:
    """An id or label of any type as the text that a page shows.

    A long one is cut, and ends in its length and a hash, so that no other is mistaken for it.
    """
    # A Parquet string may hold bytes that are not UTF-8.
    binary = isinstance(kind, BinaryType)
    return _cut(F.hex(value) if binary else make_valid_utf8(text_of(value, kind)))


def id_text(frame: DataFrame, name: str) -> Column:
    """The column `name` of a table as text, under the same name."""
    return as_text(tables.column(frame, name), frame.schema[name].dataType).alias(name)


def _cut(text: Column) -> Column:
    length = F.length(text)
    told = F.format_string("… (%d characters, %016x)", length, F.xxhash64(text))
    return F.when(length > _LONGEST, F.concat(F.left(text, F.lit(_LONGEST)), told)).otherwise(text)


def _cut_text(text: str) -> str:
    """Like `_cut`, for a text on the driver; the hash is another one."""
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_LONGEST]}… ({len(text)} characters, {digest[:16]})"


def plain(frame: DataFrame, name: str) -> Column:
    """A column as numbers, texts, or lists of texts: ids may be of any type."""
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

    In two steps, since Parquet would read the content of all rows to find a few: the ids alone tell
    in which files these are, and only those files are read.
    """
    column = tables.column(table, id)
    key = as_text(column, table.select(column).schema[0].dataType)
    found = table.filter(key.isin(sorted(ids)[:_MOST_IDS]))
    if len(table.inputFiles()) < 2:
        return found
    file = file_path(table)
    files = [row[0] for row in found.select(file).distinct().collect()]
    return found.filter(file.isin(files)) if files else found.limit(0)


def check_content(spark: SparkSession, config: ContentConfig) -> None:
    """Raise InvalidInput for a table that is not there, or columns that it lacks."""
    _select(tables.read_table(spark, config), config)


def fetch_items(
    spark: SparkSession,
    contents: Mapping[str, ContentConfig | None],
    ids: Mapping[str, Collection[str]],
) -> Mapping[str, Mapping[str, Item]]:
    """The contents of the rows `ids` (as text) of two sides, by side and id.

    Where the second side has no contents of its own, its rows are found in those of the first, and
    are listed there.
    """
    (first, content), (second, other) = contents.items()
    if other is None:
        return {first: _fetch(spark, content, {*ids[first], *ids[second]})}
    return {first: _fetch(spark, content, ids[first]), second: _fetch(spark, other, ids[second])}


def _fetch(
    spark: SparkSession, config: ContentConfig | None, ids: Collection[str]
) -> Mapping[str, Item]:
    """The contents of rows by id, prepared on the executors; one row of each id that is there."""
    if config is None or not ids:
        return {}
    table = tables.read_table(spark, config)
    rows, paths = _select(rows_of(table, config.id, ids), config)
    read_batches.fit(rows)
    from ember.worker.images.thumbnails import SCHEMA, show_batches

    show = partial(show_batches, modality=config.modality, paths=paths)
    found: dict[str, Item] = {}
    for row in sorted(
        as_dicts(rows.mapInArrow(show, SCHEMA)),
        key=lambda each: (each["id"], each["text"] or "", each["image"] or b""),
    ):
        item = Item(
            row["label"] or "",
            row["text"] or "",
            _data_uri(row["image"]),
            row["width"] or 0,
            row["height"] or 0,
            row["reason"] or "",
        )
        found.setdefault(row["id"], item)
    return found


def _select(table: DataFrame, config: ContentConfig) -> tuple[DataFrame, PathRules | None]:
    """The rows as (id text, content, label text), and where the files that they name may be."""
    select = tables.corpus_selector(table.sparkSession, config)
    corpus = select(table, config.id, config.content, config.modality)
    label = F.lit(None) if config.label is None else tables.column(table, config.label)
    columns = {
        "id": as_text(tables.column(table, config.id), corpus.id_type),
        "content": tables.column(table, config.content),
        "label": _cut(make_valid_utf8(label.cast("string"))),
    }
    return table.select(*(value.alias(name) for name, value in columns.items())), corpus.paths


def _data_uri(data: bytes | None) -> str:
    if not data:
        return ""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
