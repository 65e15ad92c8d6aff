"""What a pipeline leaves of itself: a manifest of its steps, and the page of them all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.pipeline.running import Outcome
from ember.publish import MANIFEST, Output
from ember.storage import Storage

__all__ = ["PAGE", "add_page", "own_output"]

PAGE = "report.html"


def own_output(spark: SparkSession, path: str) -> Output:
    """Where a pipeline's manifest goes; that of an earlier run of a pipeline is replaced.

    Raises InvalidInput where anything else is there.
    """
    storage, file = Storage(spark), f"{path}/{MANIFEST}"
    replaced = storage.exists(file) and _is_pipeline(storage.read_text(file))
    output = Output(spark, path, "overwrite" if replaced else "fail", {"job": "pipeline"})
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


def _is_pipeline(text: str) -> bool:
    try:
        return bool(json.loads(text).get("job") == "pipeline")
    except (ValueError, AttributeError):
        return False
