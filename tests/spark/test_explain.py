"""What a run that fails says of it. The texts are what Spark 4.3, Hadoop 3.5 and Python gave."""

from __future__ import annotations

import re
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from ember.errors import EmberError, InvalidConfig, InvalidInput, TooManyPairs, find_in_text
from ember.spark.explain import cause, explain
from ember.spark.storage import Storage


class Java(Exception):
    """As py4j has it: what was called, then the stack of Java."""

    def __init__(self, *lines: str) -> None:
        stack = "\n\tat org.apache.spark.Some.where(Some.scala:1)\n".join(lines)
        super().__init__(
            f"An error occurred while calling o205.parquet.\n: {stack}\n\t... 1 more\n"
        )


class Worker(Exception):
    """As pyspark has it: the traceback of a worker."""

    def __init__(self, raised: str) -> None:
        super().__init__(
            "An exception was thrown from the Python worker:\nTraceback (most recent call last):\n"
            '  File "/x/ember/comparison/packed_files.py", line 183, in _write_matrix\n'
            f'    with Path(path).open("wb") as stream:\n{raised}\n'
        )


FULL = Java(
    "org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to "
    "file:/data/.out 1.staging/1/new. SQLSTATE: 58030",
    "Caused by: org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device",
    "\tSuppressed: org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device",
)
KILLED = Java(
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed "
    "4 times, most recent failure: Lost task 0.3 in stage 0.0 (TID 1) (localhost executor driver): "
    "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). Consider …",
    "Caused by: java.io.EOFException",
)
LOST = Java(
    "org.apache.spark.SparkException: Job aborted due to stage failure: Task 3 in stage 2.0 failed "
    "4 times, most recent failure: Lost task 3.3 in stage 2.0 (TID 9) (10.0.0.7 executor 1): "
    "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Command "
    "exited with code 137",
)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FULL, 1, "no space is left on the disk at file:/data/.out 1.staging/1/new;"),
        (Worker("OSError: [Errno 28] No space left on device: '/a b/x'"), 1, "disk at /a b/x;"),
        (OSError(28, "No space left on device", "/y"), 1, "no space is left on the disk at /y;"),
        (OSError(27, "File too large", "/y"), 1, "larger than the system lets it be at /y:"),
        (OSError(30, "Read-only file system", "/y"), 2, "the file system is read-only at /y;"),
        (PermissionError(13, "Permission denied", "/y"), 2, "permission is denied at /y;"),
        (
            Java("java.io.FileNotFoundException: /a b/.c.crc (Permission denied)"),
            2,
            "permission is denied at /a b/.c.crc;",
        ),
        (
            Java(
                "java.io.IOException: Mkdirs failed to create file:/ro/.out.staging (exists=false, "
                "cwd=file:/home)"
            ),
            2,
            "cannot make the folder file:/ro/.out.staging: the file system is read-only, or",
        ),
        (
            Java(
                "org.apache.hadoop.fs.ParentNotDirectoryException: Parent path is not a directory: "
                "file:/in/a.parquet"
            ),
            2,
            "a file is where a folder has to be at file:/in/a.parquet;",
        ),
        (
            Java(
                "java.net.ConnectException: Call From vm/127.0.0.1 to localhost:1 failed on "
                "connection exception: java.net.ConnectException: Connection refused; For more …",
                "Caused by: java.net.ConnectException: Connection refused",
            ),
            2,
            "nothing answers at localhost:1: the connection is refused;",
        ),
        (
            ValueError("java.net.UnknownHostException: no-such-host.invalid"),
            2,
            "the host no-such-host.invalid is not known here;",
        ),
        (
            Java(
                "java.lang.RuntimeException: java.lang.ClassNotFoundException: Class "
                "org.apache.hadoop.fs.s3a.S3AFileSystem not found",
                "Caused by: java.lang.ClassNotFoundException: Class "
                "org.apache.hadoop.fs.s3a.S3AFileSystem not found",
            ),
            2,
            "(S3AFileSystem); start Spark with the package org.apache.hadoop:hadoop-aws",
        ),
        (
            Java(
                "java.lang.RuntimeException: java.lang.ClassNotFoundException: Class "
                "org.apache.hadoop.fs.azurebfs.SecureAzureBlobFileSystem not found"
            ),
            2,
            "the package org.apache.hadoop:hadoop-azure",
        ),
        (
            Java(
                "org.apache.hadoop.fs.UnsupportedFileSystemException: No FileSystem for scheme "
                '"nosuch"'
            ),
            2,
            "no file system for nosuch: paths; look at how the path is spelled",
        ),
        (
            Java("java.io.IOException: Incomplete HDFS URI, no host: hdfs:///x"),
            2,
            "hdfs:///x names no host;",
        ),
        (KILLED, 1, "a Python worker was killed, most likely by the system for want of memory;"),
        (LOST, 1, "executor 1 was lost (Command exited with code 137); where it ran out of memory"),
        (
            Java("java.lang.OutOfMemoryError: Java heap space"),
            1,
            "Java ran out of memory (Java heap space); raise spark.driver.memory",
        ),
        (
            ConnectionRefusedError(111, "Connection refused"),
            1,
            "a connection is refused: the other",
        ),
        (
            Java(
                "org.apache.spark.SparkException: [SPARK_JOB_CANCELLED] Job 8 cancelled as part of "
                "cancellation of all jobs SQLSTATE: XXKDA"
            ),
            1,
            "the Spark job was cancelled, or Spark was stopped",
        ),
        (
            Java(
                "org.apache.spark.SparkException: [FAILED_READ_FILE.FILE_NOT_EXIST] Encountered "
                "error while reading file file:///a/b.parquet. File does not exist. It is possible"
            ),
            2,
            "is gone at file:///a/b.parquet: the input changed during the run",
        ),
        (
            Java(
                "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error "
                "while reading file file:///a/b.parquet.  SQLSTATE: KD001"
            ),
            2,
            "an input file cannot be read:",
        ),
        (
            Java(
                "java.nio.file.InvalidPathException: Malformed input or input contains unmappable "
                "characters: /data/gr\ufffd\ufffde"
            ),
            2,
            "Java cannot name /data/gr\ufffd\ufffde in the locale that it was started in; start "
            "Spark with LC_ALL=C.UTF-8",
        ),
        (Worker("ModuleNotFoundError: No module named 'torch'"), 2, "has no module torch; install"),
        (Worker("MemoryError"), 1, "Python ran out of memory;"),
        (
            RuntimeError(
                "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port"
            ),
            2,
            "Java did not start: install Java 17",
        ),
    ],
)
def test_a_cause_that_can_be_foreseen_is_told_in_one_sentence(error, code, words):
    explained = explain(error)
    assert words in str(explained)
    assert (explained.exit_code, "\n" in str(explained)) == (code, False)
    assert ("unexpectedly" in str(explained), cause(error)) == (False, str(explained))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("by zero"), "failed unexpectedly: ZeroDivisionError: by zero (set"),
        (Worker("ValueError: of no kind"), "failed unexpectedly: Worker: ValueError: of no kind ("),
        (
            Java("a.B: outer", "Caused by: a.C: inner", "Caused by: java.io.EOFException"),
            "failed unexpectedly: Java: a.C: inner (set",
        ),
        (KeyError(), "failed unexpectedly: KeyError: no message (set"),
    ],
)
def test_what_nobody_foresaw_is_told_by_what_lies_deepest(error, words):
    explained = explain(error)
    assert (explained.exit_code, words in str(explained), explained.args) == (
        1,
        True,
        explained.args,
    )


def test_the_cause_is_found_behind_other_exceptions_and_not_in_stacks():
    outer = RuntimeError("the step failed")
    outer.__cause__ = OSError(28, "No space left on device", "/y")
    assert "the disk at /y" in str(explain(outer))
    stack = Java("a.B: x\n\tat a.Permission denied.No space left on device(X.java:1)")
    assert "failed unexpectedly" in str(explain(stack))


@pytest.mark.parametrize(
    "unit",
    [
        "writing rows to ",
        "error while reading file ",
        "[Errno 1] a: ",
        "/x (Permission denied",
        "Total size of serialized results of 1 tasks (\n",
        "[CAST_INVALID_INPUT\n",
    ],
)
def test_an_endless_text_is_told_in_a_readable_length(unit):
    text = f"No space left on device /x\n{unit * 16_000}. SQLSTATE: 1"
    assert len(str(explain(RuntimeError(text)))) < 1000
    assert len(cause(RuntimeError(f"{unit * 16_000}. SQLSTATE: 1"))) < 1000


class Odd(EmberError):
    """An error with an __init__ of its own."""

    exit_code = 4

    def __init__(self, number: int, word: str) -> None:
        super().__init__(f"{number} {word}")


def test_an_error_of_a_worker_comes_back_whole_whatever_its_class():
    for kind in (InvalidConfig, TooManyPairs, Odd):
        name = f"{kind.__module__}.{kind.__qualname__}"
        text = f"{Worker(f'{name}: one: 1{chr(10)}two')} SQLSTATE: 38000"
        found = find_in_text(text)
        assert (type(found), str(found)) == (kind, "one: 1\ntwo")
        assert explain(RuntimeError(text)).exit_code == kind.exit_code
    assert find_in_text("ember.errors.Nothing: x") is None
    assert str(find_in_text("ember.errors.InvalidInput")) == ""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk 1"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_with_the_path(spark, small_disk):
    storage = Storage(spark)
    full = f"no space is left on the disk at file:{small_disk}"
    letters = spark.range(2000, numPartitions=1).select(F.sha2(F.col("id").cast("string"), 512))
    with pytest.raises(OSError, match="no space is left") as caught:
        storage.write_text(f"{small_disk}/x/y.json", "x" * 2**20)
    assert f"at {small_disk}/x/y.json; free some" in str(explain(caught.value))
    with pytest.raises(Exception, match=r"TASK_WRITE_FAILED|calling") as other:
        letters.write.parquet(f"{small_disk}/out 1")
    assert (explain(other.value).exit_code, f"{full}/out 1;" in str(explain(other.value))) == (
        1,
        True,
    )


def test_real_faults_of_java_and_of_a_worker(spark, tmp_path):
    file = tmp_path / "a b.parquet"
    pq.write_table(pa.table({"id": [1, 2]}), file)
    table = spark.read.parquet(str(file))
    file.unlink()

    def full(batches):
        raise OSError(28, "No space left on device", "/scratch/x")
        yield from batches

    def write_below_a_file():
        file.write_text("")
        spark.range(1).write.parquet(f"{file}/out")

    for fails, code, words in (
        (
            lambda: Storage(spark).write_text("/proc/x/y", ""),
            2,
            r"make the folder (file:)?/proc/x: ",
        ),
        (table.collect, 2, r"is gone at file:.*/a%20b\.parquet|is gone at file:.*/a b\.parquet"),
        (spark.range(1).mapInArrow(full, "id long").collect, 1, "no space .* at /scratch/x"),
        (write_below_a_file, 2, f"folder has to be at file:{re.escape(str(file))}|cannot make"),
        (spark.range(1).select(F.raise_error(F.lit("of no kind"))).collect, 1, "of no kind"),
    ):
        with pytest.raises(Exception, match=r"[\s\S]") as caught:
            fails()
        explained = explain(caught.value)
        assert re.search(words, str(explained)), str(explained)
        assert (explained.exit_code, isinstance(explained, InvalidInput)) == (code, code == 2)


@pytest.mark.parametrize("condition", ["1 / (id - 1) = 1", "cast(concat('x', id) as int) = 1"])
def test_a_condition_that_fails_on_a_row_says_so(spark, condition):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever Spark makes of it
        spark.range(3).filter(condition).collect()
    explained = explain(caught.value)
    assert explained.exit_code == 2
    assert "cannot be computed for a row" in str(explained)
