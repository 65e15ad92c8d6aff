"""The output of a pipeline itself: a manifest of its steps, and one page for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.pipeline.running import Outcome
from ember.spark.publish import Output, read_manifest
from ember.spark.storage import Storage

__all__ = ["PAGE", "add_page", "own_output"]

PAGE = "report.html"


def own_output(spark: SparkSession, path: str, run_id: str) -> Output:
    """The output of the pipeline itself, which replaces that of an earlier run.

    Raises:
        InvalidInput: something that no pipeline wrote is at `path`.
    """
    storage = Storage(spark)
    earlier = read_manifest(storage, path) or {}
    mode = "overwrite" if earlier.get("job") == "pipeline" else "fail"
    if mode == "fail" and storage.exists(path):
        raise InvalidInput(
            f"output.path: {path} exists and was not written by a pipeline; give another path"
        )
    output = Output(spark, path, mode, {"job": "pipeline"}, job="pipeline", run_id=run_id)
    output.check()
    return output


def add_page(
    spark: SparkSession, output: Output, outcomes: Sequence[Outcome], manifest: Mapping[str, Any]
) -> None:
    """Stage the page of all steps, both those that ran just now and those that were up to date."""
    from ember.report import Step, read_step, render_steps

    steps = [
        Step(each.name, each.job, each.outcome, each.seconds, each.output, message=each.why)
        for each in outcomes
    ]
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        page = Path(local) / PAGE
        page.write_text(render_steps([read_step(spark, step) for step in steps], manifest), "utf-8")
        output.add(str(page), PAGE)
