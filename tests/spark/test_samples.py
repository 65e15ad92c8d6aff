"""Rows drawn from a corpus: the same ones whatever the partitions, from all of it."""

from __future__ import annotations

from ember.spark.samples import Sample


def test_drawn_rows_do_not_depend_on_partitions_and_have_content(spark):
    values = [(n, None if n % 5 == 0 else f"text {n}") for n in range(200)]
    one = spark.createDataFrame(values, "`an id` int, `the text` string").coalesce(1)
    drawn = Sample(one).drawn(20)
    assert len(drawn) == 20 == len(set(drawn))
    assert set(drawn) <= {text.encode() for _, text in values if text}
    assert max(int(each.split()[1]) for each in drawn) > 100  # not the first ones
    assert Sample(one.repartition(7)).drawn(20) == drawn
    assert len(Sample(one).drawn(1000)) == 160
    assert Sample(one.where("false")).drawn(3) == []


def test_equal_ids_draw_no_more_rows_than_asked_for(spark):
    rows = spark.createDataFrame([(1, b"x")] * 50, "id int, content binary")
    assert Sample(rows).drawn(8) == [b"x"] * 8
    assert list(Sample(rows).first(3)) == [b"x"] * 3


def test_without_a_corpus_there_are_no_rows():
    assert Sample().first(3) == Sample().drawn(3) == []
