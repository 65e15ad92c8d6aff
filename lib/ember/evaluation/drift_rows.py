"""The rows of two tables that are held against each other, and what of them cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, NumericType, StringType, StructField, StructType

from ember.errors import InvalidInput
from ember.evaluation.joining import check_ids, key_of
from ember.spark import read_batches
from ember.spark.dimensions import dimension_of
from ember.spark.ids import check_can_be_equal, text_of
from ember.spark.tables import column, select_embeddings
from ember.worker.drift.tasks import Sides, vector_faults

__all__ = ["SIDES", "Pair", "pair_of", "side_name"]

SIDES = ("reference", "current")
"""Which table a row is of, by its number."""
_PARTS = ("embedding", "score", "label")
_FAULTS = {
    "score": "with a score that is null or not finite, left out",
    "label": "with a null label, left out",
}


@dataclass(frozen=True)
class Pair:
    """Two tables as one.

    Attributes:
        rows: id, key, side (0 for the reference), slice_0 (its name), and of `parts` those there
            are: embedding, score double, label string.
        parts: what both tables have.
        sides: how the vectors are read; None without them.
    """

    rows: DataFrame
    parts: tuple[str, ...]
    sides: Sides | None

    def faults(self) -> DataFrame:
        """What cannot be used of which row: (id, side, part, reason)."""
        found = [
            self.rows.filter(~_usable(part)).select(
                "id", "side", F.lit(part).alias("part"), F.lit(_FAULTS[part]).alias("reason")
            )
            for part in self.parts
            if part in _FAULTS
        ]
        if self.sides:
            schema = StructType([*(self.rows.schema[name] for name in ("id", "side")), _REASON])
            rows = self.rows.select("id", "side", "embedding")
            vectors = rows.mapInArrow(vector_faults(self.sides), schema)
            told = F.concat("reason", F.lit(", left out")).alias("reason")
            found.append(vectors.select("id", "side", F.lit("embedding").alias("part"), told))
        every = found[0]
        for each in found[1:]:
            every = every.union(each)
        return every


_REASON = StructField("reason", StringType())


def side_name() -> Column:
    """Which table a row is of, in words, by its column `side`."""
    return F.element_at(F.array(*map(F.lit, SIDES)), F.col("side") + 1)


def _usable(part: str) -> Column:
    value = F.col(part)
    if part == "label":
        return value.isNotNull()
    finite = ~F.isnan(value) & (F.abs(value) != F.lit(float("inf")))
    return F.coalesce(finite, F.lit(False))


def pair_of(
    reference: DataFrame,
    current: DataFrame,
    *,
    paired: bool,
    max_failed_fraction: float,
) -> Pair:
    """Tables of `id` and, where they have them, `embedding`, `score` and `label`, as one.

    paired: whether rows are compared with those of the same id, so that the vectors may be of two
    models.

    Raises:
        InvalidInput: tables that do not fit each other, or ids that occur twice.
    """
    tables = (reference, current)
    parts = tuple(name for name in _PARTS if all(name in each.columns for each in tables))
    if not parts:
        raise InvalidInput(
            "there is nothing to compare: name an embedding, a score, a label or the predictions "
            "of both tables"
        )
    for name in ("id", *(each for each in parts if each == "label")):
        kinds = [each.schema[name].dataType for each in tables]
        check_can_be_equal(kinds[0], kinds[1], f"the {name}s of reference and current table")
    for table, shown in zip(tables, SIDES, strict=True):
        check_ids(table, "id", f"the {shown} table")
    sides = None
    if "embedding" in parts:
        sides = _sides(tables, paired, max_failed_fraction)
    selected = [_side(table, number, parts) for number, table in enumerate(tables)]
    rows = selected[0].union(selected[1])
    rows = rows.withColumn("key", key_of(rows))
    if sides:
        read_batches.fit(rows)
    return Pair(rows, parts, sides)


def _sides(tables: Sequence[DataFrame], paired: bool, max_failed_fraction: float) -> Sides:
    lengths = []
    for table, shown in zip(tables, SIDES, strict=True):
        rows = select_embeddings(table, "id", "embedding", f"the {shown} table")
        lengths.append(dimension_of(rows, f"the {shown} table", max_failed_fraction))
    one, other = lengths
    if one != other and one and other and not paired:
        raise InvalidInput(
            f"the reference's vectors have {one} dimensions and the current ones {other}: they are "
            "of two models. Vectors of one model are compared; of two models the neighbors of rows "
            "that both have embedded can be, with overlap: {}"
        )
    return Sides((one, other), "cosine" if paired else None)


def _side(table: DataFrame, number: int, parts: Sequence[str]) -> DataFrame:
    """The rows of a table, in the order of `parts`."""
    columns = [column(table, "id").alias("id")]
    for part in parts:
        value, kind = column(table, part), table.schema[part].dataType
        if part == "embedding":
            double = isinstance(kind, ArrayType) and kind.elementType.typeName() == "double"
            value = value.cast("array<double>") if double else value
        elif part == "score":
            if not isinstance(kind, NumericType):
                raise InvalidInput(
                    f"the {SIDES[number]} table: the score is {kind.simpleString()}, not a number"
                )
            value = value.cast("double")
        else:
            value = text_of(value, kind)
        columns.append(value.alias(part))
    side = F.lit(number).alias("side")
    return table.select(*columns, side, F.lit(SIDES[number]).alias("slice_0"))
