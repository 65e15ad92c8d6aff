"""When ids of two tables can be equal: one rule, whatever the job that joins them."""

from __future__ import annotations

from itertools import product

import pytest
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
)

from ember.errors import InvalidInput
from ember.spark.ids import check_can_be_equal, check_id

INTEGERS = (ByteType(), ShortType(), IntegerType(), LongType())


def test_ids_of_one_type_and_integers_of_any_width_can_be_equal():
    for one, other in [*product(INTEGERS, INTEGERS), (StringType(), StringType())]:
        check_can_be_equal(one, other, "the ids")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LongType(), DoubleType()),
        (StringType(), StringType("UNICODE_CI")),
        (DecimalType(4, 1), DecimalType(4, 2)),
        (TimestampType(), TimestampNTZType()),
    ],
)
def test_ids_of_other_types_are_refused_with_both_named(one, other):
    with pytest.raises(InvalidInput) as told:
        check_can_be_equal(one, other, "the ids of both")
    assert str(told.value) == (
        f"the ids of both are {one.simpleString()} and {other.simpleString()}; "
        "write both as one type"
    )


def test_an_id_is_a_single_value():
    for kind in (*INTEGERS, StringType(), TimestampType()):
        check_id(kind, "key")
    for kind in (ArrayType(LongType()), StructType()):
        with pytest.raises(InvalidInput, match=r"^the truth: the id column key is .*not one value"):
            check_id(kind, "key", "the truth")
