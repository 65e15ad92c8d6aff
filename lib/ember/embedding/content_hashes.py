"""What each row of a corpus is known by: a hash of all that its result depends on beside the model.

That is the SHA-256 of its content: of the bytes of a picture or a file, of a text in UTF-8. Where a
model writes texts the prompt is a part of it and, where it draws tokens by the row's id, the id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from ember.embedding.model_work import ModelWork
from ember.embedding.row_work import HASH
from ember.spark.tables import column
from ember.worker import content_hashes
from ember.worker.row_paths import UNKNOWN, PathRules

__all__ = ["pinned", "to_run", "wanted", "with_hashes"]

# Names of columns that no table of a user's has.
_FILE, _KEY, _PLACE = "_ember_file", "_ember_wanted", "_ember_place"


def wanted(work: ModelWork) -> DataFrame:
    """(id, hash, place, bare) of all rows, as `content_plan` takes them; files are read for it.

    hash: null where there is no content, or it cannot be read. place: of a row that names a file,
    its path with the hash of the file before it, as `PathRules` reads it when `hashed`.
    """
    rows, place = work.rows, F.lit(None).cast("string")
    if work.paths:
        rows = _with_files(rows, work.paths, work.spec.max_bytes)
        path = F.coalesce(_content(rows).cast("string"), F.lit(""))
        place = F.concat(F.coalesce(_FILE, F.lit(UNKNOWN)), F.lit(" "), path)
    found = _hash(work, rows)
    return rows.select(
        column(rows, work.id).alias("id"),
        found.alias("hash"),
        place.alias("place"),
        (found.isNull() & _content(rows).isNull()).alias("bare"),
    )


def to_run(work: ModelWork, plan: DataFrame, *, repeated: bool) -> DataFrame:
    """The rows that a plan has for the model, with the column `HASH`; see also `pinned`.

    plan: (id, hash, places) of them. repeated: has the input several rows of one id and content, of
    which one is to run?
    """
    given = work.rows
    same = column(given, work.id).eqNullSafe(F.col(_KEY))
    keyed = plan.select(F.col("id").alias(_KEY), F.col("hash").alias(HASH), "places")
    if work.paths:
        # Without a hash a row is its own; else its file may lie in several places.
        places = F.when(F.col(HASH).isNull(), F.col("places")).otherwise(F.slice("places", 1, 1))
        keyed = keyed.select(_KEY, HASH, F.explode(places).alias(_PLACE))
        path = F.expr(f"substring({_PLACE}, {len(UNKNOWN) + 2})")
        same = same & (F.coalesce(_content(given).cast("string"), F.lit("")) == path)
    rows = given.join(keyed, same)
    if work.paths:
        file = F.substring(_PLACE, 1, len(UNKNOWN))
        rows = rows.withColumn(_FILE, F.when(file != UNKNOWN, file))
    rows = rows.filter(_hash(work, rows).eqNullSafe(F.col(HASH)))
    if work.paths:
        content = given.columns[1]
        rows = rows.withColumn(content, F.when(_content(rows).isNotNull(), F.col(_PLACE)))
    rows = rows.select(*(column(rows, name) for name in given.columns), HASH)
    if repeated:
        bare = F.col(HASH).isNull()
        rows = rows.filter(~bare).dropDuplicates([work.id, HASH]).unionByName(rows.filter(bare))
    return rows


def with_hashes(work: ModelWork) -> DataFrame:
    """All rows with the column `HASH`, of work whose rows hold their content."""
    return work.rows.withColumn(HASH, _hash(work, work.rows))


def pinned(work: ModelWork) -> ModelWork:
    """The same work, on rows of `to_run`: files have to be those that were hashed."""
    if work.paths is None:
        return work
    return replace(work, paths=replace(work.paths, hashed=True))


def _content(rows: DataFrame) -> Column:
    return column(rows, rows.columns[1])


def _hash(work: ModelWork, rows: DataFrame) -> Column:
    content = F.col(_FILE) if work.paths else _sha256(_content(rows))
    if work.spec.task != "generate":
        return content
    asked = [column(rows, name) for name in work.rows.columns[2:]]  # prompt and problem
    parts = [content, *map(_sha256, asked)]
    together = F.concat_ws(" ", *(F.coalesce(part, F.lit("-")) for part in parts))
    plain = F.coalesce(*asked).isNull()
    found = F.when(plain, content).otherwise(_sha256(together))
    if work.spec.modality == "image":  # a picture that cannot be read has no description
        found = F.when(content.isNotNull(), found)
    if work.spec.generation and work.spec.generation.sampling:
        key = F.xxhash64(column(rows, work.id)).cast("string")
        found = F.when(found.isNotNull(), _sha256(F.concat_ws(" ", found, key)))
    return found


def _sha256(value: Column) -> Column:
    return F.sha2(value.cast("binary"), 256)


def _with_files(rows: DataFrame, paths: PathRules, max_bytes: int) -> DataFrame:
    """The rows with one more column, the hash of the file that each names."""
    names = [f"c{number}" for number in range(len(rows.columns))]
    plain = rows.toDF(*names)
    schema = plain.withColumn("hash", F.lit(None).cast("string")).schema
    found = plain.mapInArrow(_reader(paths, max_bytes), schema)
    return found.toDF(*rows.columns, _FILE)


def _reader(
    paths: PathRules, max_bytes: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker does. Pickled by value, so that workers import nothing of the driver side."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from content_hashes.with_hashes(batches, paths, max_bytes)

    return run
