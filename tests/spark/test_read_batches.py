"""Rows of megabytes: Spark reads them in batches that fit, and says so where none does."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.processes import BIN, ROOT, environment, settings
from corpora import picture
from ember.errors import EmberError, InvalidInput
from ember.spark import classic, read_batches
from ember.spark.read_batches import RowGroup, advise, fit, put_back, rows_at_once

READ = "spark.sql.parquet.columnarReaderBatchSize"
SENT = "spark.sql.execution.arrow.maxRecordsPerBatch"
MIB = 2**20


def large_rows(path, count, size):
    """Pictures of `size` bytes, most of them zeros behind the picture, which take no room here."""
    content = [picture(number).ljust(size, b"\0") for number in range(count)]
    table = pa.table(
        {"image_id": range(count), "content": content, "name": ["x" * 99] * count, "n": [1] * count}
    )
    # A page is decoded whole as well; pyarrow's hold 1,024 rows where it is not told otherwise.
    pq.write_table(
        table, path, compression="zstd", use_dictionary=False, write_batch_size=4, data_page_size=1
    )
    return str(path)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], None),
        ([(4096, 30 * MIB)], None),  # a batch never reaches beyond its row group
        ([(10, 320 * MIB)], 1),
        ([(300, 2400 * MIB)], 4),
        ([(3, 2400 * MIB)], 1),
        ([(10**6, 1000 * MIB), (3000, 1800 * MIB)], 53),
    ],
)
def test_a_batch_holds_as_many_rows_as_fit_and_at_least_one(groups, expected):
    assert rows_at_once([RowGroup("f", n, size, size) for n, size in groups]) == expected


def test_batches_of_large_rows_are_lowered_for_a_run_and_put_back(spark, tmp_path):
    large_rows(tmp_path / "small.parquet", 2, 1000)
    path = large_rows(tmp_path / "large.parquet", 64, MIB)
    before = dict(spark.conf.getAll)
    table = spark.read.parquet(str(tmp_path))
    with put_back(spark):
        fit(table.select("image_id", "name"))  # the large column is not read
        assert spark.conf.getAll == before
        fit(table.select("image_id", "content").filter("length(name) > 0"))
        assert spark.conf.get(READ) == "31"
        assert spark.conf.getAll.keys() - before.keys() == {READ}  # batches sent are of 64 MiB
    assert spark.conf.getAll == before
    # Outside of a run the session is the user's.
    fit(spark.read.parquet(path))
    assert spark.conf.getAll == before


def test_batches_sent_to_python_are_lowered_where_spark_counts_rows_only(
    spark, tmp_path, monkeypatch
):
    table = spark.read.parquet(large_rows(tmp_path / "large.parquet", 64, MIB))
    monkeypatch.setattr(read_batches, "_SENT_BYTES", "spark.sql.not.in.this.version")
    with put_back(spark):
        fit(table)
        assert spark.conf.get(SENT) == "31"
        batches = table.mapInArrow(
            lambda each: (pa.RecordBatch.from_pydict({"n": [len(b)]}) for b in each), "n long"
        )
        assert [row["n"] for row in batches.collect()] == [31, 31, 2]
    assert SENT not in spark.conf.getAll


def test_the_user_s_settings_are_left_alone(spark, tmp_path):
    table = spark.read.parquet(large_rows(tmp_path / "large.parquet", 64, MIB))
    spark.conf.set(READ, "777")
    try:
        with put_back(spark):
            fit(table)
            assert spark.conf.get(READ) == "777"
        assert spark.conf.get(READ) == "777"
    finally:
        spark.conf.unset(READ)


def read_in_a_run(table, failure=None):
    with put_back(table.sparkSession):
        fit(table)
        if failure:
            raise failure


def test_settings_are_put_back_after_a_failed_run_too(spark, tmp_path):
    table = spark.read.parquet(large_rows(tmp_path / "large.parquet", 64, MIB))
    with pytest.raises(ZeroDivisionError):
        read_in_a_run(table, ZeroDivisionError())
    assert READ not in spark.conf.getAll


def test_a_lazy_call_says_what_to_set_in_the_user_s_session(spark, tmp_path, caplog):
    table = spark.read.parquet(large_rows(tmp_path / "large.parquet", 64, MIB))
    advise(table)
    assert f"set {READ} to 31 or less" in caplog.text
    caplog.clear()
    advise(table.select("image_id"))
    assert not caplog.text


def test_a_row_group_larger_than_the_memory_is_refused_before_any_work(
    spark, tmp_path, monkeypatch
):
    path = large_rows(tmp_path / "large.parquet", 64, MIB)
    stored = pq.read_metadata(path).row_group(0).column(1).total_compressed_size
    little = read_batches._Memory(stored - 1, "spark.executor.memory")
    monkeypatch.setattr(read_batches, "_memory", lambda _: little)
    message = r"holds 64 rows of 64.0 MiB.*raise spark.executor.memory"
    with pytest.raises(InvalidInput, match=message):
        read_in_a_run(spark.read.parquet(path))


def test_running_out_of_memory_over_large_rows_names_rows_and_setting(spark, tmp_path):
    table = spark.read.parquet(large_rows(tmp_path / "large.parquet", 64, MIB))
    cleaning = OSError("connection refused")
    cleaning.__context__ = RuntimeError("aborted: java.lang.OutOfMemoryError: Java heap space")
    with pytest.raises(InvalidInput, match=r"1.0 MiB a row.*raise spark.driver.memory"):
        read_in_a_run(table, cleaning)
    # Without large rows, it is what it was.
    with pytest.raises(OSError, match="connection refused"):
        read_in_a_run(spark.range(3), cleaning)


def test_spark_that_ended_in_mid_run_is_told_in_a_sentence(spark, monkeypatch):
    monkeypatch.setattr(classic, "answers", lambda _: False)
    with pytest.raises(EmberError, match="Spark ended in mid-run") as raised, put_back(spark):
        raise ConnectionRefusedError("[Errno 111] Connection refused")
    assert raised.value.exit_code == 1


BODY = """
import pyarrow as pa
from ember.embedding import row_work; from ember import job; from ember.spark import tables
from ember.settings.embedding import EmbedConfig

def rows(run):
    corpus = tables.read_corpus(run.spark, run.config.input)
    spread, total = row_work.spread(corpus.rows, "image", "auto")
    def count(batches):
        yield from (pa.RecordBatch.from_pydict({"n": [len(batch)]}) for batch in batches)
    run.say(f"{sum(row.n for row in spread.mapInArrow(count, 'n long').collect())} of {total}")

raise SystemExit(job.main("embed", EmbedConfig, rows))
"""


def test_rows_of_megabytes_in_one_row_group_reach_python_with_little_memory(tmp_path):
    """What the jobs on rows do with them, without a model: 384 MiB in a Java process of 512."""
    given = settings(
        input__path=large_rows(tmp_path / "large.parquet", 96, 4 * MIB),
        input__id="image_id",
        input__modality="image",
        model__name="none",
        output__path=tmp_path / "out",
    )
    done = subprocess.run(
        [sys.executable, "-c", BODY, *given],
        cwd=ROOT,
        env=environment(
            PYSPARK_SUBMIT_ARGS="--master local[2] --driver-memory 512m pyspark-shell",
            # Whatever python3 there is in it is not the one that has Ember.
            PATH=os.pathsep.join(
                each for each in os.environ["PATH"].split(":") if each != str(BIN)
            ),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "96 of 96" in done.stdout
