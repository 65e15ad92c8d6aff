"""Java's classes, read and checked once on a machine instead of at every start.

A session loads some 20,000 classes out of Spark's 280 jars, and takes half of its start and much of
the first jobs' time for it. Java can keep them as it has them in memory, in an archive that later
processes map (application class-data sharing, JEP 310 and 350). The second run that succeeds makes
one, where Ember starts the session itself and the user gives Java no options: it takes some ten
seconds, which who runs one job need not pay.

Java checks an archive against its own build and the class path, by each jar's size and time, and
does without one that does not fit. Nor can it make one everywhere: not without its own base
archive, nor with a folder of settings on the class path.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

from ember.spark import classic
from ember.spark.model_cache import cache_folder, is_own

__all__ = ["ClassArchive", "find"]

_log = logging.getLogger(__name__)
_CLASS_PATH = "spark.driver.extraClassPath"


@dataclass(frozen=True)
class ClassArchive:
    """The archive of this machine's Java and Spark, made or not.

    stem: what the names of all archives of this Java and this Spark begin with.
    """

    file: Path
    stem: str

    @property
    def is_there(self) -> bool:
        return self.file.is_file()

    @property
    def options(self) -> list[str]:
        """What Java is to be started with: to use the archive, or to be able to make it."""
        quiet = "-Xlog:cds*=off"  # why Java does without one is of no use to anybody
        if self.is_there:
            return [f"-XX:SharedArchiveFile={self.file}", quiet]
        return ["-XX:+RecordDynamicDumpInfo", quiet] if self._is_second else [quiet]

    @property
    def _first(self) -> Path:
        """A file that stands for the first run; it says why no archive could be made, if so."""
        return self.file.with_suffix(".first")

    @property
    def _is_second(self) -> bool:
        """Has one run succeeded, and none tried in vain? To be able to costs Java a tenth."""
        return self._first.exists() and not self._first.stat().st_size

    def make(self, spark: SparkSession) -> None:
        """Make the archive of the classes that this Java process has loaded, in the second run.

        spark: the session, which may be stopped already. Nothing is made, and the log says why at
        debug level, where that fails.
        """
        if self.is_there:
            return
        if not self._is_second:
            self._note_first()
            return
        if folder := _folder_on(classic.class_path(spark)):
            self._give_up(f"Java archives no classes with a folder on its class path: {folder}")
            return
        start = perf_counter()
        new = self.file.with_name(f".{self.file.name}-{os.getpid()}")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            classic.archive_classes(spark, str(new))
            new.replace(self.file)
        except Exception as error:
            self._give_up(f"Java's classes could not be archived: {error}")
            return
        finally:
            for left in new.parent.glob(f"{new.name}*"):  # by Java as well
                left.unlink(missing_ok=True)
        for other in self.file.parent.glob(f"{self.stem}-*"):
            if other.stem != self.file.stem:  # of a Java, or a Spark, that is there no more
                other.unlink(missing_ok=True)
        size, seconds = self.file.stat().st_size >> 20, perf_counter() - start
        _log.info("archived Java's classes at %s, once: %d MiB, %.1f s", self.file, size, seconds)

    def _note_first(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._first.touch()
        except OSError:
            _log.debug("nothing can be kept in %s", self.file.parent, exc_info=True)

    def _give_up(self, why: str) -> None:
        _log.debug("%s", why)
        with suppress(OSError):
            self._first.write_text(f"{why}\n", "utf-8")


def find(settings: Mapping[str, str]) -> ClassArchive | None:
    """Where the archive is, or is to be, of the Java and the Spark that a session would start.

    settings: those of the session that are known. None where no archive can be trusted or found.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(f"{home}/bin/java" if home else "java")
    if java is None:
        return None
    build = Path(java).resolve().parent.parent / "lib" / "modules"
    spark = Path(_find_spark_home())
    jars = spark / "jars"
    # They are on the class path, too; with them Java only pays for what it cannot make.
    if _folder_on([os.environ.get("SPARK_CONF_DIR", str(spark / "conf"))]):
        return None
    stem = f"java-{_hash(build, jars, settings.get(_CLASS_PATH))}"
    file = cache_folder().absolute() / f"{stem}-{_hash(_state(build), _state(jars))}.jsa"
    # Java divides this option at colons, and Spark its options at blanks.
    if any(letter in str(file) for letter in ": \"'\\"):
        return None
    if file.is_file() and not (is_own(file.parent) and is_own(file)):
        return None
    return ClassArchive(file, stem)


def _folder_on(class_path: Sequence[str]) -> str | None:
    """A folder on the class path with anything in it, at which Java gives up and ends."""
    folders = (each for each in class_path if Path(each).is_dir())
    return next((each for each in folders if any(Path(each).iterdir())), None)


def _hash(*parts: object) -> str:
    return sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]


def _state(path: Path) -> str:
    """What changes when another version is installed at `path`."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
