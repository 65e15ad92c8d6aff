"""What every job shares: arguments, logging, the session, the manifest, the exit code."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any, Generic, TypeVar

from pyspark.sql import SparkSession

from ember.command_line import job_parser
from ember.redaction import redact, redact_all
from ember.settings import config
from ember.spark import classic, console, places, read_batches
from ember.spark.destinations import Destination, committed, destination
from ember.spark.explain import explain
from ember.spark.lineage import Lineage
from ember.spark.parent_run import ParentRun, parent_run
from ember.spark.publish import Output, complete
from ember.spark.session import check_arguments, spark_session
from ember.spark.storage import Storage
from ember.spark.tracking import tracked

__all__ = ["Run", "log_as", "main", "versions"]

_log = logging.getLogger("ember.job")
_PACKAGES = (
    *("ember-spark", "pyspark", "pyarrow", "numpy", "pillow", "tensorflow", "keras", "torch"),
    *("transformers", "tokenizers", "imagehash", "datasketch"),
)
ConfigT = TypeVar("ConfigT", bound=config.Config)


@dataclass
class Run(Generic[ConfigT]):
    """One run of a job: what it was asked to do, and what it notes for the manifest.

    notes: what the manifest is to say beside the job's own facts.
    step_of: the run of a pipeline whose step this is, by the name `step`.
    """

    job: str
    config: ConfigT
    run_id: str
    dry_run: bool
    spark: SparkSession
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    step: str | None = None
    step_of: Run[Any] | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the run for the manifest."""
        start = perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + perf_counter() - start
            self.seconds[name] = round(spent, 3)

    @cached_property
    def destination(self) -> Destination:
        """Where the rows go; raises as `destinations.destination` does."""
        return destination(self.spark, self.config, self.job)

    def output(self, identity: Mapping[str, Any], **more: Any) -> Output:
        """The run's way to what its configuration names as output; see `publish.Output`."""
        given = getattr(self.config, "output")  # noqa: B009  # all jobs have it
        place = self.destination
        return Output(
            self.spark,
            place.path,
            given.mode,
            identity,
            job=self.job,
            run_id=self.run_id,
            table=place.table,
            **more,
        )

    @cached_property
    def parent(self) -> ParentRun | None:
        """The run of a scheduler's that this one is a part of."""
        return self.step_of.parent if self.step_of else parent_run(self.spark)

    @cached_property
    def lineage(self) -> Lineage:
        if self.step_of:
            return self.step_of.lineage.of_step(self.step or self.job, self.run_id)
        first = classic.setting(self.spark, "spark.openlineage.appName", "ember")
        return Lineage(self.spark, f"{first}.{self.job}", self.run_id, self.parent)

    def do(self, body: Callable[[Run[ConfigT]], None]) -> None:
        """Do the job; tell of it where that is asked for (ember.spark.lineage, and tracking)."""
        if getattr(self.config, "output", None) is None:  # as doctor may have it
            body(self)
        elif self.dry_run:
            self._do_once(body)
        else:
            place = self.destination
            track = tracked(self.spark, self.job, self.run_id, place.path)
            with self.lineage.events(self.config, place), track:
                self._do_once(body)

    def _do_once(self, body: Callable[[Run[ConfigT]], None]) -> None:
        """Do the job, unless this very run has committed its table, as one that is retried has."""
        place = self.destination
        if place.table is None or not committed(self.spark, place, self.job, self.run_id):
            body(self)
            return
        if not self.dry_run:
            complete(self.spark, place, self.run_id)
        self.say(f"{place.table.shown} is there already, committed by this run")

    def rate(self, rows: int, phase: str) -> float:
        """Rows per second of a phase."""
        return round(rows / max(self.seconds[phase], 1e-3), 2)

    def say(self, message: str) -> None:
        """The run's last word, on stdout."""
        console.say(redact(f"ember {self.job}: {message} (run {self.run_id})"))

    def manifest(self, **facts: Any) -> dict[str, Any]:
        """What every manifest says, and the facts of this job."""
        finished = datetime.now(UTC)
        told = {
            "run_id": self.run_id,
            "job": self.job,
            **({"parent_run": self.parent.describe()} if self.parent else {}),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
            "config": self.config.model_dump(mode="json"),
            **facts,
            **self.notes,
            "seconds": self.seconds,
            "spark": {
                "master": classic.master(self.spark),
                "application": classic.application_id(self.spark),
            },
            "versions": versions(),
        }
        return dict(redact_all(told))


def main(
    job: str,
    kind: type[ConfigT],
    body: Callable[[Run[ConfigT]], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a job from its command line and return its exit code (see ember.errors).

    Whatever fails becomes one message on stderr; the traceback is logged at debug level, which
    the environment variable EMBER_LOG_LEVEL=DEBUG shows.
    """
    if arguments is None:
        console.insist_on_unicode()
    about = (sys.modules[body.__module__].__doc__ or "").partition("\n")[0]
    given = job_parser(job, kind, about).parse_args(arguments)
    run_id = given.run_id or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    log_as(run_id)
    try:
        if arguments is None:
            check_arguments(sys.argv[1:])
        settings = config.load(kind, given.config, given.set)
        start = perf_counter()
        session = spark_session(f"ember {job} {run_id}", archive=not given.dry_run)
        with session as spark, read_batches.put_back(spark):
            seconds = {"session": round(perf_counter() - start, 3)}
            run = Run(job, settings, run_id, given.dry_run, spark, seconds=seconds)
            with run.phase("check"):
                places.check_config(Storage(spark), settings)
            run.do(body)
    except KeyboardInterrupt:
        print(f"ember {job}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        _log.debug("the run failed", exc_info=True)
        explained = explain(error)
        print(f"ember {job}: {explained}", file=sys.stderr)
        return explained.exit_code
    return 0


class _Redacting(logging.Formatter):
    """Messages and tracebacks without the secrets of URIs."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def log_as(run_id: str) -> None:
    """Have what Ember logs go to stderr under this run id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Redacting(f"%(asctime)s %(levelname)s [{run_id}] %(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger("ember")
    logger.handlers = [handler]
    logger.propagate = False
    level = os.environ.get("EMBER_LOG_LEVEL", "INFO").upper()
    logger.setLevel(level if level in logging.getLevelNamesMapping() else "INFO")


def versions() -> dict[str, str]:
    """Of Python and the packages that decide what comes out of a job."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
