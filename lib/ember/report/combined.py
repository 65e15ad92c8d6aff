"""One page for all steps of a pipeline, whether they ran just now or were up to date."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.publish import MANIFEST
from ember.report.content import Report, from_json
from ember.storage import Storage

__all__ = ["Outcome", "Step", "read_step", "render_steps", "write_steps"]

Outcome = Literal["ran", "up to date", "failed", "not run"]
# What search, join and evaluate keep of their page, beside their tables.
KEPT = "_report.json"


@dataclass(frozen=True)
class Step:
    """A step of a pipeline as its page shows it.

    seconds: what it took in this run, None where it did nothing. path: its output. manifest: what
    the output's manifest says, {} where there is none. report: what its own page shows, for a step
    that makes one. message: why it failed, or what else there is to say.
    """

    name: str
    job: str
    outcome: Outcome
    seconds: float | None = None
    path: str = ""
    manifest: Mapping[str, Any] | None = None
    report: Report | None = None
    message: str = ""


def read_step(
    spark: SparkSession,
    name: str,
    job: str,
    outcome: Outcome,
    path: str = "",
    *,
    seconds: float | None = None,
    message: str = "",
) -> Step:
    """A step with what stands on storage at `path`: the manifest, and what its page shows.

    What a page shows is kept by the job that made the output, so that a step which was up to date
    appears as it was made, without a Spark job and without reading its corpus again. Where the
    output is not there (the step failed, or did not run) the step has neither.
    """
    storage = Storage(spark)
    found: dict[str, Any] = {}
    report = None
    if path and storage.exists(f"{path}/{MANIFEST}"):
        found = json.loads(storage.read_text(f"{path}/{MANIFEST}"))
        if storage.exists(f"{path}/{KEPT}"):
            try:
                report = from_json(storage.read_text(f"{path}/{KEPT}"))
            except InvalidInput as error:
                message = f"{message} {error}".strip()
    return Step(name, job, outcome, seconds, path, found, report, message)


def render_steps(steps: Sequence[Step], manifest: Mapping[str, Any]) -> str:
    """The page, as text to be written in UTF-8.

    manifest: of the pipeline's run: run_id, finished, config, versions, …; as Run.manifest() gives.
    """
    raise NotImplementedError


def write_steps(
    spark: SparkSession, path: str, steps: Sequence[Step], manifest: Mapping[str, Any]
) -> None:
    """Write the page to the file `path` (any URI that Spark can write), replacing one there."""
    Storage(spark).write_text(path, render_steps(steps, manifest))
