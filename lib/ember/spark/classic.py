"""What only a classic Spark session has: its context, its accumulators, its Java process.

Nothing else in Ember touches these, so that sessions without them (Spark Connect) need another
version of this module and of no other. The types are Spark's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import (
    RDD,
    Accumulator,
    AccumulatorParam,
    Broadcast,
    SparkConf,
    SparkContext,
    SparkFiles,
    cloudpickle,
)
from pyspark.sql import DataFrame, SparkSession

__all__ = [
    "Accumulator",
    "Broadcast",
    "Py4JError",
    "Py4JJavaError",
    "accumulator",
    "analyzed_plan",
    "answers",
    "application_id",
    "archive_classes",
    "binary_rows",
    "broadcast",
    "cancel",
    "class_path",
    "cores",
    "executors",
    "files_lent",
    "hadoop_configuration",
    "has_archive",
    "is_catalog",
    "jvm",
    "master",
    "parsed_expression",
    "parsed_name",
    "physical_plan",
    "quiet",
    "received",
    "received_folder",
    "run_in_task",
    "run_in_tasks",
    "send_archive",
    "send_file",
    "setting",
    "settings",
    "start_java",
    "submitted_jvm",
    "submitted_setting",
    "tagged",
    "tree_merged",
    "versions",
]

T = TypeVar("T")
# By application, the names of the files that were sent, and their URIs.
_sent: WeakKeyDictionary[SparkContext, dict[str, str]] = WeakKeyDictionary()


def master(spark: SparkSession) -> str:
    """Where the session runs, as `spark.master` has it."""
    return spark.sparkContext.master or ""


def submitted_jvm() -> Any:
    """The packages of the JVM that spark-submit started, before there is a session."""
    SparkContext._ensure_initialized()  # connects to it
    return SparkContext._jvm


def start_java(settings: Mapping[str, str]) -> None:
    """Start Spark's Java process with these settings, for the session that is made next."""
    conf = SparkConf(loadDefaults=False).setAll([*settings.items()])
    SparkContext._ensure_initialized(conf=conf)


def submitted_setting(key: str) -> str | None:
    """A setting as spark-submit gives it, before there is a session; None where it is not set."""
    submitted_jvm()
    return SparkConf().get(key, None)


def application_id(spark: SparkSession) -> str:
    return str(spark.sparkContext.applicationId)


def setting(spark: SparkSession, key: str, default: str = "") -> str:
    """A setting of the application, as it was when it started."""
    # Not by getConf(), which copies all settings out of Java one by one.
    return spark.sparkContext._conf.get(key, default) or default


def cores(spark: SparkSession) -> int:
    """How many cores this application has."""
    return int(spark.sparkContext.defaultParallelism)


def quiet(spark: SparkSession) -> None:
    """Have Spark log errors only."""
    spark.sparkContext.setLogLevel("ERROR")


def answers(spark: SparkSession) -> bool:
    """Is Spark's Java process there, and not about to end?"""
    context: Any = spark.sparkContext._jsc
    try:
        return not context.sc().isStopped()
    except Exception:  # whatever the connection makes of it
        return False


def class_path(spark: SparkSession) -> list[str]:
    """Jars and folders in which Spark's Java process looks for classes."""
    system: Any = jvm(spark).java.lang.System
    return str(system.getProperty("java.class.path")).split(os.pathsep)


def archive_classes(spark: SparkSession, file: str) -> None:
    """Have Java write an archive of the classes that it has loaded (`jcmd VM.cds dynamic_dump`).

    Java has to be started with -XX:+RecordDynamicDumpInfo. The session may be stopped already.
    """
    java: Any = spark._jvm
    lang = java.java.lang
    # Its own words, "Dynamic dump to file …", which would stand among those of the job.
    lang.System.setOut(java.java.io.PrintStream(java.java.io.OutputStream.nullOutputStream()))
    command = _java_array(lang, "java.lang.String", ["dynamic_dump", file])
    name = java.javax.management.ObjectName("com.sun.management:type=DiagnosticCommand")
    arguments = _java_array(lang, "java.lang.Object", [command])
    types = _java_array(lang, "java.lang.String", ["[Ljava.lang.String;"])
    call = _java_array(lang, "java.lang.Object", [name, "vmCds", arguments, types])
    server = lang.management.ManagementFactory.getPlatformMBeanServer()
    # By its interface: the server's own class is hidden from py4j.
    methods = lang.Class.forName("javax.management.MBeanServer").getMethods()
    next(each for each in methods if each.getName() == "invoke").invoke(server, call)


def _java_array(lang: Any, kind: str, values: Sequence[Any]) -> Any:
    array = lang.reflect.Array.newInstance(lang.Class.forName(kind), len(values))
    for place, value in enumerate(values):
        array[place] = value
    return array


def run_in_task(spark: SparkSession, body: Callable[[Iterable[Any]], Iterator[T]]) -> list[T]:
    """What `body` yields in one task of its own."""
    return spark.sparkContext.parallelize([0], 1).mapPartitions(body).collect()


def run_in_tasks(
    spark: SparkSession, count: int, body: Callable[[Iterable[Any]], Iterator[T]], *modules: str
) -> list[T]:
    """What `body` yields in each of `count` tasks.

    modules: that workers may lack; what `body` uses of them is sent with it.
    """
    sent = [sys.modules[name] for name in modules]
    for module in sent:
        cloudpickle.register_pickle_by_value(module)
    try:
        tasks = spark.sparkContext.parallelize(range(count), count).mapPartitions(body)
        return tasks.collect()
    finally:
        for module in sent:
            cloudpickle.unregister_pickle_by_value(module)


def executors(spark: SparkSession) -> int:
    """How many executors there are; in local mode none."""
    context: Any = spark.sparkContext._jsc
    return len(context.sc().statusTracker().getExecutorInfos()) - 1  # the driver


def settings(spark: SparkSession) -> dict[str, str]:
    """All settings of the application, as they were when it started."""
    return dict(spark.sparkContext.getConf().getAll())


def versions(spark: SparkSession) -> tuple[str, str, str]:
    """Of Spark, Java and Hadoop, on the driver."""
    packages: Any = jvm(spark)
    java = str(packages.java.lang.System.getProperty("java.version"))
    return spark.version, java, str(packages.org.apache.hadoop.util.VersionInfo.getVersion())


def binary_rows(rows: DataFrame) -> RDD[bytes]:
    """The first column of `rows`, which is binary."""
    return rows.rdd.map(lambda row: bytes(row[0]))


def tree_merged(
    partials: DataFrame, read: Callable[[bytes], T], merge: Callable[[T, T], T], depth: int
) -> T | None:
    """The values of the first column of `partials`, read and merged in a tree; None without any.

    merge: must take a value and None as well, in either place.
    """
    values = binary_rows(partials).map(read)
    # None, because the first value is sent with every task.
    start: Any = None
    merged: T | None = values.treeAggregate(start, merge, merge, depth=depth)
    return merged


def broadcast(spark: SparkSession, value: T) -> Broadcast[T]:
    """A value that is sent once to each executor."""
    return spark.sparkContext.broadcast(value)


class _Merged(AccumulatorParam[dict[Any, Any]]):
    def __init__(self, merge: Callable[[dict[Any, Any], dict[Any, Any]], dict[Any, Any]]) -> None:
        self._merge = merge

    def zero(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {}

    def addInPlace(self, value1: dict[Any, Any], value2: dict[Any, Any]) -> dict[Any, Any]:
        return self._merge(value1, value2)


def accumulator(
    spark: SparkSession, merge: Callable[[dict[Any, Any], dict[Any, Any]], dict[Any, Any]]
) -> Accumulator[dict[Any, Any]]:
    """What tasks report to the driver.

    merge: adds the second to the first, which it may change and returns; it must be idempotent: a
    task that is retried or run twice reports twice.
    """
    return spark.sparkContext.accumulator({}, _Merged(merge))


@contextmanager
def tagged(spark: SparkSession, tag: str) -> Iterator[None]:
    """Run the block's Spark jobs under a tag, so that `cancel` can stop them."""
    spark.sparkContext.addJobTag(tag)
    try:
        yield
    finally:
        spark.sparkContext.removeJobTag(tag)


def cancel(spark: SparkSession, tag: str) -> None:
    """Stop the jobs that run under a tag."""
    spark.sparkContext.cancelJobsWithTag(tag)


def send_file(spark: SparkSession, file: str) -> None:
    """Have a file of any file system fetched by every node that runs a task, once."""
    sent, name = _sent.setdefault(spark.sparkContext, {}), file.rpartition("/")[2]
    if sent.get(name) == file:
        return
    sent[name] = file
    spark.sparkContext.addFile(quote(file, safe="/:"))  # which takes an encoded URI


@contextmanager
def files_lent(spark: SparkSession, folder: str) -> Iterator[None]:
    """Files of a folder that are sent are to be fetched until the block ends, and no longer.

    An executor that comes later would ask for all that were ever sent, and fail each of its tasks
    where one is gone. folder: a URI; whichever thread sends them.
    """
    try:
        yield
    finally:
        sent = _sent.get(spark.sparkContext, {})
        names = {name for name, file in [*sent.items()] if file.startswith(f"{folder}/")}
        for name in names:
            sent.pop(name, None)
        if names and answers(spark):
            _take_back(spark, names)


def _take_back(spark: SparkSession, names: Set[str]) -> None:
    """Leave files out of what executors are told to fetch; Spark has no call for it."""
    context: Any = spark.sparkContext._jsc
    sessions = context.sc().addedFiles().valuesIterator()
    while sessions.hasNext():
        files = sessions.next()
        uris = files.keys().toList()
        for uri in (str(uris.apply(number)) for number in range(uris.size())):
            if uri.rpartition("/")[2] in names:
                files.remove(uri)


def send_archive(spark: SparkSession, archive: str, name: str) -> None:
    """Have an archive unpacked as `name` on every node that runs a task."""
    spark.sparkContext.addArchive(f"{archive}#{name}")


def has_archive(spark: SparkSession, name: str) -> bool:
    return any(name in uri for uri in spark.sparkContext.listArchives)


def received(name: str) -> str:
    """Where a file or archive that was sent lies on the machine that this runs on."""
    return SparkFiles.get(name)


def received_folder() -> str:
    """The folder of what was sent, which goes with the application."""
    return SparkFiles.getRootDirectory()


def jvm(spark: SparkSession) -> Any:
    """The packages of Spark's Java process."""
    return spark._jvm


def hadoop_configuration(spark: SparkSession) -> Any:
    """Hadoop's settings, with those of Spark's that begin with spark.hadoop."""
    context: Any = spark._jsc
    return context.hadoopConfiguration()


def parsed_expression(spark: SparkSession, condition: str) -> Any:
    """A condition in SQL as Catalyst's unresolved expression."""
    session: Any = spark
    return session._jsparkSession.sessionState().sqlParser().parseExpression(condition)


def parsed_name(spark: SparkSession, name: str) -> list[str]:
    """The parts of a table's name. Raises PySparkException for what is none."""
    session: Any = spark
    parser = session._jsparkSession.sessionState().sqlParser()
    found = parser.parseMultipartIdentifier(name)
    return [str(found.apply(number)) for number in range(found.size())]


def is_catalog(spark: SparkSession, name: str) -> bool:
    """Is there a catalog of this name?"""
    session: Any = spark
    manager = session._jsparkSession.sessionState().catalogManager()
    return bool(manager.isCatalogRegistered(name))


def analyzed_plan(table: DataFrame) -> Any:
    """Catalyst's analyzed logical plan."""
    frame: Any = table
    return frame._jdf.queryExecution().analyzed()


def physical_plan(table: DataFrame) -> Any:
    """Spark's physical plan."""
    frame: Any = table
    return frame._jdf.queryExecution().sparkPlan()
