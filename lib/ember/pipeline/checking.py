"""What can be checked of all steps before the first one runs."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.pipeline.files import missing, targets
from ember.pipeline.freshness import is_own
from ember.pipeline.planning import Step, plain
from ember.publish import read_manifest
from ember.storage import Storage

__all__ = ["check_steps"]


def check_steps(spark: SparkSession, steps: Sequence[Step]) -> None:
    """Raise InvalidInput that names all inputs that nothing makes, and all outputs in the way."""
    storage, made, problems = Storage(spark), list[str](), []
    for step in steps:
        for key, path in missing(storage, step.config):
            if not any(plain(path).startswith(each) for each in made):
                problems.append(f"steps.{step.name}.{key}: there is nothing at {path}")
        made += map(plain, targets(step.config).values())
        there = step.config.output.mode == "fail" and storage.exists(step.output)
        if there and not is_own(step, read_manifest(storage, step.output)):
            problems.append(
                f"steps.{step.name}.output.path: {step.output} exists and was not written by this "
                "step; give another path, or set its output.mode to overwrite"
            )
    if problems:
        raise InvalidInput("\n".join(problems))
