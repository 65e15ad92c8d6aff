"""What can be checked of all steps before the first one runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyspark.sql import SparkSession

from ember import places
from ember.errors import InvalidInput
from ember.pipeline.files import missing
from ember.pipeline.freshness import is_own
from ember.pipeline.planning import Step, plain
from ember.settings.files import local_files, sources, targets
from ember.staging import read_manifest
from ember.storage import Storage

__all__ = ["check_steps"]


def check_steps(spark: SparkSession, steps: Sequence[Step], own: str) -> None:
    """Raise InvalidInput that names all inputs that nothing makes, and all outputs in the way.

    own: where the pipeline's manifest goes.
    """
    storage, made = Storage(spark), list[str]()
    problems = list(_colliding(storage, steps, own))
    for number, step in enumerate(steps):
        for key, path in missing(storage, step.config):
            if not any(plain(path).startswith(each) for each in made):
                problems.append(f"steps.{step.name}.{key}: there is nothing at {path}")
        made += map(plain, targets(step.config).values())
        problems += _in_the_way(storage, step)
        problems += _harmed(storage, step, steps[number + 1 :], own)
    if problems:
        raise InvalidInput("\n".join(problems))


def _colliding(storage: Storage, steps: Sequence[Step], own: str) -> Iterator[str]:
    """Outputs of all steps that are one place, by whatever link, or lie in one another."""
    writes = {
        f"steps.{step.name}.{key}": path
        for step in steps
        for key, path in targets(step.config).items()
    }
    try:
        places.check_apart(storage, {**writes, "output.path": own}, {})
    except InvalidInput as error:
        yield str(error)


def _in_the_way(storage: Storage, step: Step) -> Iterator[str]:
    """What stands where the step is to write, and is not what it wrote there before."""
    for key, path in targets(step.config).items():
        manifest = read_manifest(storage, path)
        if is_own(step, manifest):
            continue
        at = f"steps.{step.name}.{key}"
        if step.config.output.mode == "fail" and places.is_ours(manifest):
            yield (
                f"{at}: {path} exists and was not written by this step; give another path, or set "
                "its output.mode to overwrite"
            )
            continue
        try:
            _check(storage, step, key, path)
        except InvalidInput as error:
            yield f"{at}: {error}"


def _check(storage: Storage, step: Step, key: str, path: str) -> None:
    holds = {"groups.path": "table of groups", "save": "projection"}.get(key, places.TABLE)
    places.check_target(storage, path, step.config.output.mode, step.job, holds)


def _harmed(storage: Storage, step: Step, later: Sequence[Step], own: str) -> Iterator[str]:
    """What the step reads that itself, a later step or the pipeline would write over.

    What an earlier step has written is there to be read.
    """
    reads = {**sources(step.config), **local_files(step.config)}
    writes = {f"steps.{step.name}.{key}": path for key, path in targets(step.config).items()}
    for other in later:
        writes |= {f"steps.{other.name}.{key}": p for key, p in targets(other.config).items()}
    for key, path in {**writes, "output.path": own}.items():
        named = {f"steps.{step.name}.{each}": found for each, found in reads.items()}
        try:
            places.check_apart(storage, {key: path}, named)
        except InvalidInput as error:
            yield str(error)
