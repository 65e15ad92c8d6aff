"""Groups of rows by equality columns: one text for values that SQL's `=` finds equal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    AtomicType,
    BinaryType,
    DoubleType,
    FloatType,
    IntegralType,
    StringType,
    StructField,
    TimestampType,
)

from ember.errors import InvalidInput
from ember.spark.older_versions import NOT_COMPARABLE, collation

__all__ = ["group_of", "group_types", "is_binary_string"]

# Metadata of the column `group`.
_NAMES, _TYPES = "ember.names", "ember.types"


def group_types(rows: DataFrame) -> list[tuple[str, str]]:
    """Names and types of the columns that the groups of `select_embeddings` are made of.

    Groups of two tables can be compared where their types are the same.
    """
    told = rows.schema["group"].metadata
    return list(zip(told[_NAMES], told[_TYPES], strict=True))


def is_binary_string(kind: StringType) -> bool:
    """Are such strings equal only where their bytes are?"""
    return collation(kind) == "UTF8_BINARY"


def group_of(table: DataFrame, columns: Sequence[Column], within: Sequence[str]) -> Column:
    """The column `group` of rows that are to agree on `columns`; null where one of them is null.

    within: their names, as the configuration gives them.

    Raises:
        InvalidInput: a type whose values cannot be compared.
    """
    fields = table.select(*columns).schema.fields
    texts = [_key(each, field) for each, field in zip(columns, fields, strict=True)]
    missing = reduce(or_, (each.isNull() for each in columns))
    kinds = [field.dataType for field in fields]
    # 7 agrees with 7 whether it is an int or a bigint.
    types = ["integer" if isinstance(k, IntegralType) else k.simpleString() for k in kinds]
    # No text of a key has a comma.
    group = F.when(~missing, F.concat_ws(",", *texts))
    return group.alias("group", metadata={_NAMES: list(within), _TYPES: types})


def _key(value: Column, field: StructField) -> Column:
    """A text that is the same for two values exactly where SQL's `=` finds them equal.

    Raises:
        InvalidInput: a type whose values it cannot compare.
    """
    kind = field.dataType
    if not isinstance(kind, AtomicType) or isinstance(kind, NOT_COMPARABLE):
        raise InvalidInput(
            f"the within column {field.name} is {kind.simpleString()}; rows agree on "
            "single values, such as strings or numbers"
        )
    if isinstance(kind, FloatType | DoubleType):
        # There are two zeros, and they are equal; NaN is equal to itself.
        return F.when(value == 0, F.lit("0")).otherwise(value.cast("string"))
    if isinstance(kind, TimestampType):
        # Not as it is written, which is the same an hour later when a clock is set back.
        return F.unix_micros(value).cast("string")
    if isinstance(kind, StringType) and not is_binary_string(kind):
        raise InvalidInput(
            f"the within column {field.name} is {kind.simpleString()}; rows agree on strings byte "
            "by byte: cast it to string"
        )
    if isinstance(kind, StringType | BinaryType):
        return F.hex(value.cast("binary"))
    return value.cast("string")
