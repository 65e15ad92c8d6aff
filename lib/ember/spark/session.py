"""The Spark session: taken as it is, or started with good settings for one machine."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from pyspark.sql import SparkSession

from ember.spark import class_archive, classic, console, java_names
from ember.worker.machine import umask

_log = logging.getLogger(__name__)

__all__ = ["check_arguments", "is_local", "local_settings", "spark_session"]

_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
# Spark hands rows to Python value by value; without Arrow's check of each place, packing a table of
# vectors takes a fifth less.
_UNCHECKED_ARROW = "-Darrow.enable_unsafe_memory_access=true"
# Java's optimizing compiler takes a third of Java's CPU time in a small job, which the models lack,
# for code that soon runs no more. With ten times its thresholds it is left to what stays hot.
_LATE_COMPILER = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)
# Not all Javas know all options, here and in the archive of classes.
_ANY_JAVA = "-XX:+IgnoreUnrecognizedVMOptions"
# Hadoop has a mask of its own for the files that Spark writes, 022 in any umask.
_MASK = "fs.permissions.umask-mode"
_SPARK_MASK = f"spark.hadoop.{_MASK}"


@contextmanager
def spark_session(name: str, *, archive: bool = False) -> Iterator[SparkSession]:
    """The session that is there; or one that is started here, and stopped when the block ends.

    archive: keep Java's classes for later starts, once the block has succeeded a second time.

    Under spark-submit its arguments and properties files decide; in local mode, files heed the
    umask where neither Spark's nor Hadoop's settings have another. Started by plain Python, it runs
    on local[*] with what `local_settings` adds to the user's defaults.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    submitted = _is_submitted()
    classes = None
    defaults: dict[str, str] = {}
    if submitted:
        settings = _submitted_settings()
    else:
        console.let_java_have_unicode()
        defaults = _user_defaults()
        settings = local_settings(defaults)
        classes = class_archive.find(defaults) if _JAVA_OPTIONS in settings else None
        if classes:
            settings[_JAVA_OPTIONS] = " ".join([settings[_JAVA_OPTIONS], *classes.options])
    if _master(submitted, {**defaults, **settings}).startswith("local"):
        # Workers must run in the interpreter that has ember, not in whichever python3 comes first.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        # Otherwise Spark looks up the host's name, which a laptop often cannot resolve.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if not submitted:
        classic.start_java({**settings, "spark.app.name": name})
    # Not before Java is there: a process that forks another had better have one thread.
    Thread(target=_import_meanwhile, name="ember-imports", daemon=True).start()
    builder = SparkSession.builder if submitted else SparkSession.builder.appName(name)
    session = builder.config(map={**settings}).getOrCreate()
    try:
        if not submitted:
            classic.quiet(session)
        yield session
    finally:
        try:
            session.stop()
        except Exception:  # its Java process is gone; why it went is what matters
            _log.debug("the session could not be stopped", exc_info=True)
    if classes and archive:
        classes.make(session)


def _import_meanwhile() -> None:
    """Import, while Spark starts, what is imported otherwise when a job first needs it."""
    for module in ("pandas", "pyarrow.compute", "pyspark.sql.pandas.functions"):
        with suppress(ImportError):  # which is for whoever needs it to say
            import_module(module)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise InvalidConfig where spark-submit may have changed letters of these arguments."""
    if _is_submitted() and java_names.look_changed(arguments):
        java_names.check_arguments(arguments, java_names.encoding_of(classic.submitted_jvm()))


def _is_submitted() -> bool:
    """Did spark-submit start this process?"""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _submitted_settings() -> dict[str, str]:
    """What spark-submit left open and cannot know: the umask, where tasks run in its own JVM."""
    hadoop = classic.submitted_jvm().org.apache.hadoop.conf.Configuration()
    if classic.submitted_setting(_SPARK_MASK) is not None or _is_set(hadoop, _MASK):
        return {}
    local = _is_local(classic.submitted_setting("spark.master") or "")
    return {_SPARK_MASK: umask()} if local else {}


def _is_set(hadoop: Any, key: str) -> bool:
    """Do files of the user's set a key of Hadoop's? Its own default is of a file, too."""
    return bool({*(hadoop.getPropertySources(key) or ())} - {"core-default.xml"})


def _master(submitted: bool, settings: dict[str, str]) -> str:
    """Where the session will run; "" where nothing says so."""
    if submitted:
        return classic.submitted_setting("spark.master") or ""
    return settings.get("spark.master", "")


def is_local(spark: SparkSession) -> bool:
    """Do tasks run on the driver's machine, in its process?"""
    return _is_local(classic.master(spark))


def _is_local(master: str) -> bool:
    return master.startswith("local") and not master.startswith("local-cluster")


def local_settings(defaults: dict[str, str]) -> dict[str, str]:
    """Settings for a session on this machine, less those that `defaults` has.

    A task that fails is tried four times, as on a cluster, so that one killed worker does not end
    the run. The driver's memory holds the data of all tasks here: a quarter of the machine's,
    between 1 and 8 GiB.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    settings = {
        "spark.master": "local[*, 4]",
        "spark.driver.memory": f"{min(8, max(1, total // 4))}g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # With few cores the default of 200 shuffle partitions is mostly overhead.
        "spark.sql.shuffle.partitions": str(4 * (os.cpu_count() or 1)),
        _JAVA_OPTIONS: f"{_UNCHECKED_ARROW} {_ANY_JAVA} {_LATE_COMPILER}",
        _SPARK_MASK: umask(),
    }
    return {key: value for key, value in settings.items() if key not in defaults}


def _user_defaults() -> dict[str, str]:
    """Keys of the properties file that Spark reads by itself, and of PYSPARK_SUBMIT_ARGS."""
    home = Path(os.environ.get("SPARK_HOME", ""), "conf")
    defaults = {}
    file = Path(os.environ.get("SPARK_CONF_DIR", home)) / "spark-defaults.conf"
    if file.is_file():
        for line in file.read_text("utf-8").splitlines():
            parts = line.replace("=", " ", 1).split(maxsplit=1)
            if len(parts) == 2 and not parts[0].startswith("#"):
                defaults[parts[0]] = parts[1].strip()
    arguments = os.environ.get("PYSPARK_SUBMIT_ARGS", "").split()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.startswith("spark."):
            defaults[key] = value
    if "--master" in arguments:
        defaults["spark.master"] = arguments[arguments.index("--master") + 1]
    return defaults
