"""Rows agree on `within`, and are a query's own, exactly where SQL's `=` finds their keys equal."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from pyspark.sql import functions as F

import ember
from ember.errors import InvalidInput
from ember.spark.tables import select_embeddings

# The hour that is there twice when clocks are set back in Berlin.
TWICE = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
KEYS = {
    "binary": [b"\xff", b"\xfe", b"", b"a", b"a\x00", b"\xc3\xa9", b","],
    "string": ["a", "A", "", " ", "a ", "é", "e\u0301", "1", "01", ",", "1,2", '"', "\\", "null"],
    "double": [0.0, -0.0, NAN, INF, -INF, 1.0, 0.1, float(np.float32(0.1)), 5e-324, 1e300],
    "float": [0.0, -0.0, NAN, INF, 1.0, 1e-45],
    "bigint": [0, 1, -1, 2**63 - 1, -(2**63)],
    "decimal(10,2)": [Decimal("1.10"), Decimal("1.11"), Decimal("0"), Decimal("-0.01")],
    "timestamp": [TWICE, TWICE + timedelta(hours=1), TWICE + timedelta(microseconds=1)],
    "timestamp_ntz": [datetime(2026, 10, 25, 2, 30), datetime(2026, 10, 25, 2, 30, 0, 1)],
    "date": [date(2026, 1, 1), date(2026, 1, 2), date(1, 1, 1)],
    "boolean": [True, False],
}


def keyed(spark, kind, values):
    """A row with the same vector for each value, twice, and for a null; ids 0, 1, …"""
    rows = [(number, value, [1.0, 2.0]) for number, value in enumerate([*values, *values, None])]
    return spark.createDataFrame(rows, f"id int, key {kind}, embedding array<float>").coalesce(1)


@pytest.fixture
def berlin(spark):
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    yield
    spark.conf.set("spark.sql.session.timeZone", before)


@pytest.mark.parametrize("kind", KEYS)
def test_rows_agree_where_sql_finds_their_keys_equal(spark, berlin, kind):
    table = keyed(spark, kind, KEYS[kind])
    one, other = table.alias("one"), table.alias("other")
    equal = one.join(other, F.expr("one.key = other.key"))
    expected = {tuple(row) for row in equal.select("one.id", "other.id").collect()}
    grouped = select_embeddings(table, "id", "embedding", "the table", ["key"])
    groups = {row["id"]: row["group"] for row in grouped.select("id", "group").collect()}
    found = {
        (one, other)
        for one, mine in groups.items()
        for other, theirs in groups.items()
        if mine is not None and mine == theirs
    }
    assert found == expected


def test_several_keys_are_not_run_together(spark):
    rows = [
        *((0, "a,b", b"\xff", [1.0]), (1, "a", b"b\xff", [1.0]), (2, "a", b"b\xff", [1.0])),
        *((3, "a", b"b\xfe", [1.0]), (4, None, b"b\xfe", [1.0]), (5, "a,b", None, [1.0])),
    ]
    table = spark.createDataFrame(rows, "id int, x string, y binary, embedding array<float>")
    found = ember.join(table.coalesce(1), threshold=0.5, within=["x", "y"]).table.collect()
    assert [(row["left_id"], row["right_id"]) for row in found] == [(1, 2)]


@pytest.mark.parametrize(
    ("kind", "other"),
    [("int", "double"), ("decimal(4,1)", "decimal(4,2)"), ("date", "timestamp"),
     ("string", "int"), ("timestamp", "timestamp_ntz"), ("string", "binary")],
)  # fmt: skip
def test_keys_of_two_types_are_refused(spark, kind, other):
    left, right = (
        spark.sql(f"select 1 id, cast(null as {each}) key, array(1f, 2f) embedding")
        for each in (kind, other)
    )
    with pytest.raises(InvalidInput, match=r"the within column key is .* write both as one type"):
        ember.search(left, right, k=1, within=["key"])


def test_integers_agree_whatever_their_width(spark):
    left, right = (
        spark.sql(f"select 1 id, cast(7 as {each}) key, array(1f, 2f) embedding")
        for each in ("tinyint", "bigint")
    )
    assert ember.join(left, right, threshold=0.5, within=["key"]).table.count() == 1


@pytest.mark.parametrize("kind", ["string collate UTF8_LCASE", "variant"])
def test_keys_that_cannot_be_compared_byte_by_byte_are_refused(spark, kind):
    made = "parse_json('1')" if kind == "variant" else "'a' collate UTF8_LCASE"
    table = spark.sql(f"select 1 id, {made} key, array(1f, 2f) embedding")
    with pytest.raises(InvalidInput, match="the within column key is"):
        ember.join(table, threshold=0.5, within=["key"])


REPEATED = {
    "string": ["a", "b", "c", "d", None],
    "double": [0.0, -0.0, NAN, 1.0, None],
    "binary": [b"\xff", b"\xfe", b"", b"a", None],
}


def repeated(spark, kind, seed, count=40):
    """Rows of few ids, near each other; a second key in two groups."""
    rng = np.random.default_rng(seed)
    ids = [REPEATED[kind][number] for number in rng.integers(0, 5, count)]
    rows = [
        (key, int(group), [float(x) for x in vector])
        for key, group, vector in zip(
            ids, rng.integers(0, 2, count), rng.normal(size=(count, 3)), strict=True
        )
    ]
    schema = f"id {kind}, shelf int, embedding array<float>"
    return spark.createDataFrame(rows, schema).coalesce(1), ids, rows


def sql_equal(one, other):
    """As SQL's `=`, of what is not null."""
    return one == other or (one != one and other != other)


@pytest.mark.parametrize(
    ("kind", "within", "itself"),
    [("string", [], True), ("double", ["shelf"], True), ("double", [], False),
     ("binary", ["shelf"], False)],
)  # fmt: skip
def test_no_neighbor_has_the_query_s_own_id(spark, monkeypatch, kind, within, itself):
    from ember.comparison import vector_files

    monkeypatch.setattr(
        vector_files, "BLOCK_BYTES", 12 * 7
    )  # so that ids reach over several blocks
    left, ids, rows = repeated(spark, kind, 1)
    right, _, others = (left, ids, rows) if itself else repeated(spark, kind, 2)
    other = None if itself else right
    frame = ember.search(
        left, other, k=3, metric="euclidean", exclude_self=True, within=within
    ).table
    found = sorted(
        (repr(row["query_id"]), row["rank"], repr(row["neighbor_id"]), row["score"])
        for row in frame.collect()
    )
    expected = []
    for place, (key, group, vector) in enumerate(rows):
        scored = []
        for number, (other, shelf, values) in enumerate(others):
            own = (itself and place == number) or (
                key is not None and other is not None and sql_equal(key, other)
            )
            if not own and (not within or shelf == group):
                apart = np.float32(vector).astype(float) - np.float32(values).astype(float)
                scored.append((float(np.float32(np.linalg.norm(apart))), repr(other)))
        expected += [
            (repr(key), rank, other, score)
            for rank, (score, other) in enumerate(sorted(scored)[:3], 1)
        ]
    assert [row[:2] for row in found] == [row[:2] for row in sorted(expected)]
    scores = [[row[3] for row in sorted(each)] for each in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    for query, _, neighbor, _ in found:
        assert query == "None" or query.lstrip("-") != neighbor.lstrip("-")


def test_own_ids_of_two_types_are_refused(spark):
    left, right = (
        spark.sql(f"select cast(1 as {each}) id, array(1f, 2f) embedding")
        for each in ("int", "string")
    )
    with pytest.raises(InvalidInput, match="exclude_self needs ids of one type"):
        ember.search(left, right, k=1, exclude_self=True)
    same = left.selectExpr("cast(id as bigint) id", "embedding")
    assert ember.search(left, same, k=1, exclude_self=True).table.count() == 0
