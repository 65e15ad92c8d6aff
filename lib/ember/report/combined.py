"""One page for all steps of a pipeline, whether they ran just now or were up to date."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.report.content import KEPT, Report, from_json
from ember.spark.publish import MANIFEST
from ember.spark.storage import Storage

__all__ = [
    "Outcome",
    "Step",
    "read_step",
    "render_steps",
]

Outcome = Literal["ran", "up to date", "failed", "not run"]


@dataclass(frozen=True)
class Step:
    """A step of a pipeline as its page shows it.

    seconds: what it took in this run, None where it did nothing. path: its output. manifest: what
    the output's manifest says, None where there is none. report: what its own page shows, for a
    step that makes one. message: why it failed, or what else there is to say.
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

    What a page shows is kept by the job that made the output (`_report.json`), so that a step
    which was up to date appears as it was made, without a Spark job and without reading its corpus
    again. A step that failed or did not run has neither: what stands at `path` is not its work.
    """
    step = Step(name, job, outcome, seconds, path, None, None, message)
    storage = Storage(spark)
    if outcome in ("failed", "not run") or not path or not storage.exists(f"{path}/{MANIFEST}"):
        return step
    step = replace(step, manifest=json.loads(storage.read_text(f"{path}/{MANIFEST}")))
    if not storage.exists(f"{path}/{KEPT}"):
        return step
    try:
        return replace(step, report=from_json(storage.read_text(f"{path}/{KEPT}")))
    except InvalidInput as error:
        return replace(step, message=f"{message} {error}".strip())


def render_steps(steps: Sequence[Step], manifest: Mapping[str, Any]) -> str:
    """The page, as text to be written in UTF-8.

    manifest: of the pipeline's run: run_id, finished, config, versions, …; as Run.manifest() gives.
    A table of the steps comes first, then a chapter for each of them. Needs matplotlib and Jinja2;
    see ember.report.check_packages.
    """
    from ember.report.chapters import overview, step_chapter
    from ember.report.layout import Chapter
    from ember.report.page import render_page
    from ember.report.runs import run_section

    counted = Counter(step.outcome for step in steps)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items())
    failed = {f"{s.name} failed": [s.message] for s in steps if s.outcome == "failed"}
    sections = [overview(steps), run_section(manifest)]
    first = Chapter("Pipeline", f"{len(steps)} steps: {told}." if steps else "", sections, failed)
    return render_page(
        "Pipeline", manifest, first, [(step.name, step_chapter(step)) for step in steps]
    )
