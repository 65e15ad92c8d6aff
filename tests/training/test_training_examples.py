"""Labeled rows: their parts in every time zone, odd labels, ids that cannot be joined."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest

from ember.errors import InvalidConfig, InvalidInput
from ember.report.collect import as_text
from ember.settings.training import SplitConfig
from ember.spark.ids import text_of
from ember.spark.tables import Corpus
from ember.training.finetune_rows import labeled_rows
from ember.training.split import check_split
from ember.training.training_table import gather, select_labels

ZONES = ("UTC", "America/New_York", "Asia/Kolkata")
# Midnight in UTC and after, over the hour that New York has twice.
START = dt.datetime(2023, 11, 5, 4, 0, tzinfo=dt.UTC)


@pytest.fixture
def zoned(spark):
    """Set the session's time zone; as before afterwards."""
    before = spark.conf.get("spark.sql.session.timeZone")
    yield lambda zone: spark.conf.set("spark.sql.session.timeZone", zone)
    spark.conf.set("spark.sql.session.timeZone", before)


def part_of(key, split):
    draw = int(hashlib.sha256(f"{split.seed}:{key}".encode()).hexdigest()[:13], 16) / 2**52
    held_out = "validation" if draw < split.train + split.validation else "test"
    return "train" if draw < split.train else held_out


def test_a_column_of_parts_goes_with_the_shares_that_are_the_defaults_and_no_others():
    check_split(SplitConfig(column="part", train=0.8, validation=0.1, test=0.1, group=None))
    with pytest.raises(InvalidConfig, match=r"leave out split\.group, split\.test, split\.train$"):
        check_split(SplitConfig(column="part", train=0.7, validation=0.1, test=0.2, group="day"))


def test_a_split_by_instants_is_the_same_in_every_time_zone(spark, zoned):
    """And that of the instant as UTC writes it, for `train` and for `finetune`."""
    instants = [START + dt.timedelta(minutes=30 * n) for n in range(24)]
    split = SplitConfig(train=0.5, validation=0.2, test=0.3)
    expected = {each: part_of(f"{each:%F %T}", split) for each in instants}
    for zone in ZONES:
        zoned(zone)
        rows = spark.createDataFrame(
            [(each, [1.0], "ab"[n % 2]) for n, each in enumerate(instants)],
            "id timestamp, embedding array<float>, label string",
        )
        labels = select_labels(rows, "id", "label", split)
        made = gather([rows.select("id", "embedding")], labels, split)
        micros = made.rows.selectExpr("unix_micros(id) AS at", "part").collect()
        made.forget()
        found = {dt.datetime.fromtimestamp(row["at"] / 1e6, dt.UTC): row["part"] for row in micros}
        assert found == expected, zone
        corpus = Corpus(rows.select("id", "label"), "id", paths=False)
        staged = labeled_rows(corpus, labels, split).collect()
        assert {row["key"]: row["part"] for row in staged} == {
            f"{each:%F %T}": part for each, part in expected.items()
        }, zone


def test_instants_as_text_are_those_of_utc_to_the_microsecond(spark, zoned):
    """Also as a page names them, by which it finds the rows again."""
    micros = [0, -1, 1_700_000_000_123_456, -62_135_596_800_000_000, 1_699_167_600_000_000]
    epoch = dt.datetime(1970, 1, 1)
    for zone in ZONES:
        zoned(zone)
        rows = spark.createDataFrame([(each,) for each in micros], "n long")
        rows = rows.selectExpr("timestamp_micros(n) AS at", "CAST(n AS string) AS name")
        at, name = (field.dataType for field in rows.schema)
        texts = [text_of(rows["at"], at), as_text(rows["at"], at), text_of(rows["name"], name)]
        for number, row in zip(micros, rows.select(*texts).collect(), strict=True):
            expected = (epoch + dt.timedelta(microseconds=number)).isoformat(" ")
            assert [each.rstrip("0") for each in row[:2]] == [expected.rstrip("0")] * 2
            assert row[2] == str(number)


def test_a_label_that_is_nan_is_none_and_there_is_one_zero(spark):
    rows = [(1, [1.0], float("nan")), (2, [2.0], 0.0), (3, [3.0], -0.0), (4, [4.0], 2.5)]
    table = spark.createDataFrame(rows, "id int, embedding array<float>, label double")
    split = SplitConfig(train=1.0, validation=0.0, test=0.0)
    made = gather(
        [table.select("id", "embedding")],
        select_labels(table, "id", "label", split),
        split,
        max_failed_fraction=1,
    )
    assert (made.labels, made.counts["failed"]) == (("0.0", "2.5"), {"null label": 1})
    made.forget()
    lists = table.selectExpr("id", "embedding", "array(label, 2.5D) AS label")
    labels = select_labels(lists, "id", "label", split)
    made = gather([lists.select("id", "embedding")], labels, split)
    assert made.labels == ("0.0", "2.5")
    made.forget()


@pytest.mark.parametrize("kind", ["double", "decimal(20,2)", "timestamp_ntz"])
def test_ids_of_two_types_are_refused_unless_both_are_integers(spark, kind):
    rows = spark.createDataFrame(
        [(1, [1.0], "a")], "id bigint, embedding array<float>, label string"
    )
    split = SplitConfig()
    other = rows.limit(0).selectExpr(f"CAST(NULL AS {kind}) AS id", "label")
    with pytest.raises(InvalidInput, match="write both as one type"):
        gather([rows.select("id", "embedding")], select_labels(other, "id", "label", split), split)


def test_no_two_reads_of_one_path_are_answered_from_one_cache(spark, tmp_path):
    """While the first is still held, which Spark would take for the second."""
    path = str(tmp_path / "rows")
    split = SplitConfig(train=1.0, validation=0.0, test=0.0)
    held = []
    for names in ("ab", "cd"):
        rows = [(1, [1.0], names[0]), (2, [2.0], names[1])]
        written = spark.createDataFrame(rows, "id int, embedding array<float>, label string")
        written.coalesce(1).write.mode("overwrite").parquet(path)
        table = spark.read.parquet(path)
        labels = select_labels(table, "id", "label", split)
        held.append(gather([table.select("id", "embedding")], labels, split))
    assert [made.labels for made in held] == [("a", "b"), ("c", "d")]
    for made in held:
        made.forget()


def test_doubles_beyond_float32_fail_by_name_and_rounding_is_told(spark):
    values = {1: 1e39, 2: float("inf"), 3: float("nan"), 4: 3.4028234663852886e38}
    rows = [(n, [values.get(n, 0.5), 1.0]) for n in range(12)]
    features = spark.createDataFrame(rows, "id int, embedding array<double>")
    labels = spark.createDataFrame([(n, str(n % 2)) for n in range(12)], "id int, label string")
    split = SplitConfig(train=1, validation=0, test=0)
    made = gather([features], select_labels(labels, "id", "label", split), split)
    try:
        assert made.counts["failed"] == {"beyond float32": 1, "not finite": 2}
        assert {row["id"]: row["error"] for row in made.failures.collect()} == {
            1: "beyond float32",
            2: "not finite",
            3: "not finite",
        }
        assert made.counts["rounded_tables"] == [1]
        assert made.rows_by_part["train"] == 9
    finally:
        made.forget()


def test_a_table_of_other_rows_than_the_labels_is_refused(spark):
    labels = spark.createDataFrame([(n, str(n % 2)) for n in range(8)], "id int, label string")
    tables = [
        spark.createDataFrame(
            [(n + start, [float(n)]) for n in range(8)], "id int, embedding array<float>"
        )
        for start in (0, 100)
    ]
    split = SplitConfig(train=1, validation=0, test=0)
    with pytest.raises(InvalidInput, match="features table 2 has none of the 8 training rows"):
        gather(tables, select_labels(labels, "id", "label", split), split)
