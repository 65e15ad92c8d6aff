"""From whatever a run ended with to the one message that says what happened and what to change.

Spark wraps the cause of a failure in layers: a job aborted, a task failed while writing rows, a
worker's traceback as text, suppressed exceptions. The causes that an environment brings about are
known by what their texts say; each has a sentence here. Exit codes (see ember.errors):

    2  something that was given has to change: a path, a package, an address, a damaged file
    1  the machine or the cluster gave out meanwhile (disk, memory, a lost executor, a stop from
       outside): the same run may do once there is room; and what nobody foresaw
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ember import errors
from ember.errors import EmberError, InvalidInput
from ember.spark.java_names import CURE

__all__ = ["cause", "explain", "first_line"]

_LONGEST = 500
# Of a line, so many characters at either end are looked at: patterns of what lies between two words
# take a time that grows with the square of a line's length. No path is longer.
_LINE_END = 2000
# What has to be on Spark's class path for a scheme, as of the Hadoop that Spark 4 comes with.
_PACKAGES = {
    "s3a": "org.apache.hadoop:hadoop-aws",
    "s3": "org.apache.hadoop:hadoop-aws",
    "gs": "com.google.cloud.bigdataoss:gcs-connector",
    "abfs": "org.apache.hadoop:hadoop-azure",
    "abfss": "org.apache.hadoop:hadoop-azure",
    "wasb": "org.apache.hadoop:hadoop-azure",
    "wasbs": "org.apache.hadoop:hadoop-azure",
}
_SCHEMES = {"azurebfs": "abfss", "azure": "wasb"}  # of parts of class names


@dataclass(frozen=True)
class _Known:
    """A cause that is known by its text.

    Attributes:
        says: what is told of it. {g1}, {g2} are groups of `pattern`; {path} is " at " and the file
            or folder that the text names, if any; {package} how to come by the file system in {g1}.
    """

    pattern: str
    says: str
    kind: type[EmberError] = InvalidInput

    def told(self, text: str) -> EmberError | None:
        found = re.search(self.pattern, text, re.MULTILINE)
        if found is None:
            return None
        groups = {f"g{n}": (each or "").strip() for n, each in enumerate(found.groups(), 1)}
        package = _package(groups.get("g1", ""))
        return self.kind(self.says.format(path=_place(text), package=package, **groups))


_MEMORY = (
    "raise spark.driver.memory (in local mode it holds everything) or spark.executor.memory, or "
    "give tasks fewer rows"
)
# In this order: what comes first is what the others came of.
_KNOWN = (
    _Known(
        r"No space left on device|Disk quota exceeded|ENOSPC|EDQUOT",
        "no space is left on the disk{path}; free some, or have output.path (and spark.local.dir, "
        "where Spark keeps what it works with) elsewhere",
        EmberError,
    ),
    _Known(
        r"File too large|EFBIG",
        "a file is larger than the system lets it be{path}: see `ulimit -f`, and what the file "
        "system takes",
        EmberError,
    ),
    _Known(
        r"Read-only file system|EROFS",
        "the file system is read-only{path}; give a path that can be written to",
    ),
    _Known(
        r"File name too long|ENAMETOOLONG",
        "a name is too long for the file system{path}; give a shorter one",
    ),
    _Known(
        r"Malformed input or input contains unmappable characters: ([^\n]*)",
        f"Java cannot name {{g1}} in the locale that it was started in; {CURE}",
    ),
    _Known(
        r"Too many open files|EMFILE",
        "too many files are open; raise the limit (`ulimit -n`)",
        EmberError,
    ),
    _Known(
        r"ParentNotDirectoryException|Not a directory|NotADirectoryError|"
        r"exists and is not a directory|Destination exists and is not a directory",
        "a file is where a folder has to be{path}; give another path",
    ),
    _Known(
        r"AccessControlException|AccessDeniedException|\(?Permission denied\)?|PermissionError|"
        r"403 Forbidden|Access Denied",
        "permission is denied{path}; give a path, or credentials, that allow it",
    ),
    _Known(
        r"Mkdirs failed to create (\S+)",
        "cannot make the folder {g1}: the file system is read-only, or permission is missing, or "
        "the name is too long; give a path that can be written to",
    ),
    _Known(
        r"Class org\.apache\.hadoop\.fs\.([a-z0-9]+)\.(\w+) not found",
        "Spark lacks the file system that this path needs ({g2}){package}",
    ),
    _Known(
        r"No FileSystem for scheme \"?([\w.+-]+)\"?",
        "Spark knows no file system for {g1}: paths{package}",
    ),
    _Known(
        r"Incomplete HDFS URI, no host: (\S+)",
        "{g1} names no host; write hdfs://HOST:PORT/…, or set fs.defaultFS",
    ),
    _Known(
        r"UnknownHostException: ([^\s;:]+)",
        "the host {g1} is not known here; look at the path, and at the network",
    ),
    _Known(
        r"Call From \S+ to (\S+?) failed on connection exception",
        "nothing answers at {g1}: the connection is refused; look at the path, and whether the "
        "service runs",
    ),
    _Known(
        r"ExecutorLostFailure \(executor (\S+) exited[^)\n]*\)(?: Reason: ([^\n]*))?",
        "executor {g1} was lost ({g2}); where it ran out of memory raise spark.executor.memory or "
        "spark.executor.memoryOverhead, or give tasks fewer rows",
        EmberError,
    ),
    _Known(
        r"Python worker exited unexpectedly \(crashed\)|Python worker keeps on crashing",
        "a Python worker was killed, most likely by the system for want of memory; give tasks "
        "fewer rows (model.batch_size, limits.rows_per_task), run fewer at once (spark.master "
        "local[N], spark.executor.cores), or add memory",
        EmberError,
    ),
    _Known(
        r"java\.lang\.OutOfMemoryError: ([^\n]*)",
        "Java ran out of memory ({g1}); " + _MEMORY,
        EmberError,
    ),
    _Known(
        r"Total size of serialized results of \d+ tasks \(([^)\n]*)\) is bigger than "
        r"spark\.driver\.maxResultSize",
        "results of {g1} are more than spark.driver.maxResultSize; raise it",
        EmberError,
    ),
    _Known(
        r"SPARK_JOB_CANCELLED|[Jj]ob \d+ cancelled|cancelled because SparkContext was shut down|"
        r"SparkContext was shut down|Cannot call methods on a stopped SparkContext",
        "the Spark job was cancelled, or Spark was stopped, from outside",
        EmberError,
    ),
    _Known(
        r"JAVA_GATEWAY_EXITED|Java gateway process exited",
        "Java did not start: install Java 17 or newer, have it on PATH or in JAVA_HOME, and look "
        "at what it wrote above",
    ),
    _Known(
        r"Py4JNetworkError|Answer from Java side is empty|Error while sending or receiving|"
        r"An error occurred while trying to connect to the Java server",
        "the driver's Java process is gone, most likely for want of memory; " + _MEMORY,
        EmberError,
    ),
    _Known(
        r"Cannot run program \"([^\"]*)\"",
        "the Python for the workers, {g1}, cannot be started; set PYSPARK_PYTHON or "
        "spark.pyspark.python to one that every node has",
    ),
    _Known(
        r"PYTHON_VERSION_MISMATCH|Python in worker has different version",
        "driver and workers run different versions of Python; set PYSPARK_PYTHON and "
        "PYSPARK_DRIVER_PYTHON to the same one",
    ),
    _Known(
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "a Python that Spark uses has no module {g1}; install it there, or set PYSPARK_PYTHON to "
        "the environment that has it",
    ),
    _Known(
        r"\[((?:CAST_INVALID_INPUT|DIVIDE_BY_ZERO|REMAINDER_BY_ZERO|ARITHMETIC_OVERFLOW|"
        r"INVALID_PARAMETER_VALUE|INVALID_ARRAY_INDEX|CAST_OVERFLOW|"
        r"CANNOT_PARSE_TIMESTAMP|INVALID_REGEXP\w*)[^\]\n]*\].*)",
        "a condition (`where`) cannot be computed for a row: {g1}. Use functions such as try_cast, "
        "try_divide or nullif, which give null there",
    ),
    _Known(
        r"FAILED_READ_FILE\.FILE_NOT_EXIST",
        "a file that was to be read is gone{path}: the input changed during the run; run again",
    ),
    _Known(
        r"Relative path in absolute URI: (.+)$",
        "a file or folder there has a colon in its name ({g1}), which Hadoop cannot take; rename "
        "it",
    ),
    _Known(
        r"Illegal file pattern", "the path is no glob that Hadoop can read; look at its brackets"
    ),
    # How Spark says, in one of many exceptions, that a Parquet file is damaged.
    _Known(
        r"^(?:Caused by)?:? ?(?:\S+: )?"
        r"(.*(?:FAILED_READ_FILE|is not a Parquet file|Could not read footer|"
        r"can not read class org\.apache\.parquet).*)",
        "an input file cannot be read: {g1}",
    ),
    _Known(
        r"(?:Connection refused|ConnectionRefusedError)",
        "a connection is refused{path}: the other side is not there, or has died, as of want of "
        "memory",
        EmberError,
    ),
    _Known(
        r"(?m)^(?:\w+\.)*MemoryError",
        "Python ran out of memory; give tasks fewer rows, or add memory",
        EmberError,
    ),
)
# Where a text names the file or folder that it is about; the first that matches is taken.
_PLACES = (
    r"\[Errno [^\]]+\] .*: '(.+)'$",
    r"^(?:.*: )?(/.+) \((?:Permission denied|Read-only|No space|Not a dir|File name|Is a dir).*\)$",
    r"is not a directory: (\S.*)$",
    r"writing rows to (.+?)\. SQLSTATE",
    r"error while reading file (.+?)\.\s",
    r"\b((?:file|hdfs|s3a?|gs|abfss?|wasbs?):/[^\s'\"]+)",
)


def explain(error: BaseException) -> EmberError:
    """The error of the tree that `error` is, or that Spark carried from a worker, or became of."""
    if isinstance(error, EmberError):
        return error
    text = _in_full(error)
    if carried := errors.find_in_text(text):
        return carried
    if known := _known(text):
        return known
    return EmberError(
        f"failed unexpectedly: {type(error).__name__}: {_root(text)} (set EMBER_LOG_LEVEL=DEBUG "
        "for the traceback)"
    )


def cause(error: BaseException) -> str:
    """What lies behind `error`, in one line."""
    if isinstance(error, EmberError):
        return str(error)
    text = _in_full(error)
    known = errors.find_in_text(text) or _known(text)
    return str(known) if known else _root(text)


def first_line(error: Exception) -> str:
    """What Spark says of an error in SQL, without the query that it repeats below."""
    return str(error).strip().splitlines()[0][:300]


def _known(text: str) -> EmberError | None:
    lines = "\n".join(_said(text))
    return next((told for each in _KNOWN if (told := each.told(lines))), None)


def _in_full(error: BaseException) -> str:
    """The texts of an error and of those that it came of, stacks of Java included."""
    texts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(texts) < 20:
        # pyspark has a message of its own for some errors of Java, and the stack beside it.
        texts += [str(seen), str(getattr(seen, "_stackTrace", None) or "")]
        seen = seen.__cause__ or seen.__context__
    texts[0] = f"{type(error).__name__}: {texts[0]}"
    return "\n".join(filter(None, texts))


def _said(text: str) -> list[str]:
    """The lines that say something: not those of stacks, nor of source code in tracebacks."""
    lines = (_clipped(line.rstrip()) for line in text.splitlines())
    return [line.strip() for line in lines if re.match(r"\S|\s*(Caused by|Suppressed): ", line)]


def _clipped(line: str) -> str:
    """The line without its middle, where it is too long to be searched as it is."""
    if len(line) <= 2 * _LINE_END:
        return line
    return f"{line[:_LINE_END]} … {line[-_LINE_END:]}"


def _root(text: str) -> str:
    """The line that says what went wrong: of a traceback, of Java's stack, or the first."""
    lines = _said(text)
    traceback = next((n for n, line in enumerate(lines) if line.startswith("Traceback")), None)
    if traceback is not None:
        lines = [
            line for line in lines[traceback + 1 :] if re.match(r"[A-Za-z_][\w.]*(: |$)", line)
        ]
        found = lines[:1]
    else:
        below = [line for line in lines if re.match(r"(Caused by|): \S+: \S", line)]
        found = [re.sub(r"^(Caused by)?: ", "", line) for line in below[-1:]]
    first = re.sub(r"^\w+: ?", "", next(iter(_said(text)), "")) or "no message"
    return re.sub(r" SQLSTATE: \w+$", "", found[0] if found else first)[:_LONGEST]


def _place(text: str) -> str:
    for pattern in _PLACES:
        if found := re.search(pattern, text, re.MULTILINE):
            return f" at {found[1][:_LONGEST]}"
    return ""


def _package(name: str) -> str:
    """How to come by the file system of a scheme, or of a class's package."""
    package = _PACKAGES.get(_SCHEMES.get(name, name))
    if package is None:
        return "; look at how the path is spelled, or give Spark the package that has it"
    return (
        f"; start Spark with the package {package} (--packages or spark.jars.packages), in the "
        "version of its Hadoop"
    )
