"""What a pipeline leaves of itself: a manifest of its steps, and the page of them all."""

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
    """Where a pipeline's manifest goes; that of an earlier run of a pipeline is replaced.

    Raises InvalidInput where anything else is there.
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
    """Stage the page of all steps, whether they ran just now or were up to date."""
    from ember.report import read_step, render_steps

    steps = [
        read_step(
            spark,
            each.name,
            each.job,
            each.outcome,
            each.output,
            seconds=each.seconds,
            message=each.why,
        )
        for each in outcomes
    ]
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        page = Path(local) / PAGE
        page.write_text(render_steps(steps, manifest), "utf-8")
        output.add(str(page), PAGE)
