"""Letters that a JVM loses: in the arguments of a command, and in the names of files."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from corpora import write
from ember.errors import InvalidConfig, InvalidInput
from ember.spark import tables
from ember.spark.java_names import check_arguments, check_files, encoding_of, look_changed
from ember.spark.storage import Storage

ASCII = "ANSI_X3.4-1968"


@pytest.mark.parametrize(
    ("argument", "encoding", "words"),
    [
        ("--set=input.path=gr????e", ASCII, "start Spark with LC_ALL=C.UTF-8"),
        ("--config=caf??.yaml", "US-ASCII", "or give the value in the configuration file"),
        ("--set=output.path=caf\ufffd", "UTF-8", "write it in UTF-8"),
    ],
)
def test_an_argument_that_may_have_lost_letters_is_refused_with_the_cure(argument, encoding, words):
    assert look_changed([argument])
    with pytest.raises(InvalidConfig) as refused:
        check_arguments(["--run-id=1", argument], encoding)
    assert words in str(refused.value)
    assert repr(argument) in str(refused.value)


def test_arguments_that_have_lost_nothing_pass():
    globs = ["--set=input.path=2024-??-??/part-?.parquet"]
    check_arguments([*globs, "größe"], "UTF-8")
    check_arguments(globs, "ISO-8859-1")
    check_arguments(["--set=input.path=part-?.parquet", "--set=model.prompt=why? "], ASCII)
    assert not look_changed(["part-?.parquet", "größe", "why? "])


@pytest.mark.parametrize(
    ("name", "encoding", "told"),
    [
        ("größe.parquet".encode(), ASCII, "LC_ALL=C.UTF-8"),
        ("kind=größe".encode(), ASCII, "LC_ALL=C.UTF-8"),
        (b"gr\xf6sse.parquet", "UTF-8", "rename it"),
        (b"plain.parquet", ASCII, None),
        ("größe.parquet".encode(), "UTF-8", None),
        ("_größe".encode(), ASCII, None),
        (".größe.crc".encode(), ASCII, None),
        ("_kind=größe".encode(), ASCII, "LC_ALL=C.UTF-8"),
    ],
)
def test_a_file_that_java_cannot_name_is_refused_where_a_table_would_lack_it(
    tmp_path, name, encoding, told
):
    inner = os.fsencode(tmp_path / "kind=a")
    os.mkdir(inner)  # noqa: PTH102  # of bytes
    with open(os.path.join(inner, name), "wb"):  # noqa: PTH118, PTH123
        pass
    if told is None:
        check_files(str(tmp_path), [], encoding)
        return
    with pytest.raises(InvalidInput, match=told) as refused:
        check_files(str(tmp_path), [], encoding)
    assert repr(os.fsdecode(os.path.join(inner, name))) in str(refused.value)  # noqa: PTH118


@contextmanager
def named_in(spark, encoding):
    system = spark._jvm.java.lang.System
    before = system.setProperty("sun.jnu.encoding", encoding)
    try:
        yield Storage(spark)
    finally:
        system.setProperty("sun.jnu.encoding", before)


def test_a_table_is_read_whole_or_refused(spark, tmp_path):
    write(tmp_path / "in" / "a.parquet", id=[1])
    write(tmp_path / "in" / "größe.parquet", id=[2])
    assert tables.read(spark, str(tmp_path / "in")).count() == 2
    with named_in(spark, ASCII), pytest.raises(InvalidInput, match=r"would leave out '.*größe"):
        tables.read(spark, str(tmp_path / "in"))


def test_of_a_glob_the_files_count_that_it_names(spark, tmp_path):
    write(tmp_path / "kind=a" / "one.parquet", id=[1])
    write(tmp_path / "other" / "größe.parquet", id=[2])
    write(tmp_path / "kind=a" / "größe.txt", id=[2])
    with named_in(spark, ASCII) as storage:
        for fine in ("kind=*/*.parquet", "kind=?/one*", "no*", "kind=a/one.parquet"):
            storage.check_names(f"{tmp_path}/{fine}")
        for lost in ("kind=*", "*", "other/*.parquet", "k*/gr*"):
            with pytest.raises(InvalidInput, match="LC_ALL"):
                storage.check_names(f"file://{tmp_path}/{lost}")


def test_an_encoding_that_python_does_not_know_is_taken_for_utf_8(spark):
    with named_in(spark, "x-of-nobody"):
        assert encoding_of(spark._jvm) == "UTF-8"
