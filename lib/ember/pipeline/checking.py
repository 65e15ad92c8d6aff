"""What can be checked of all steps before the first one runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.pipeline.files import home, missing
from ember.pipeline.freshness import is_own
from ember.pipeline.planning import Plan, Step
from ember.settings.files import local_files, roots, sources, tables, targets
from ember.spark import catalog, places
from ember.spark.places import Place, Written
from ember.spark.staged_files import read_manifest
from ember.spark.storage import Storage

__all__ = ["check_steps"]


def check_steps(spark: SparkSession, plan: Plan) -> None:
    """Raise InvalidInput that names all inputs that nothing makes, and all outputs in the way."""
    storage, made = Storage(spark), list[Place]()
    own = places.written(storage, {"output.path": plan.output})
    written = [places.written(storage, _targets(step)) for step in plan.steps]
    problems = [*places.collisions([*own, *chain(*written)]), *_written_twice(plan)]
    for number, step in enumerate(plan.steps):
        for key, path in missing(storage, step.config):
            there = places.place(storage, path)
            if not any(there.within(each) for each in made):
                problems.append(f"steps.{step.name}.{key}: there is nothing at {path}")
        for key, name in tables(step.config).items():
            before = {each.output.casefold() for each in plan.steps[:number]}
            if name.casefold() not in before and not catalog.exists(spark, name):
                problems.append(f"steps.{step.name}.{key}: there is no table {name}")
        made += [places.place(storage, path) for path in targets(step.config).values()]
        problems += _in_the_way(storage, step, home(storage, plan.output))
        # What an earlier step has written is there to be read.
        problems += _harmed(storage, step, [*chain(*written[number:]), *own])
    if problems:
        raise InvalidInput("\n".join(problems))


def _written_twice(plan: Plan) -> Iterator[str]:
    """One problem for each table that two steps write."""
    names = [(step.config.output, step) for step in plan.steps]
    seen: dict[str, str] = {}
    for output, step in names:
        if name := getattr(output, "table", None):
            at = f"steps.{step.name}.output.table"
            if first := seen.get(name.casefold()):
                yield f"{at} is {first} ({name}), and they would replace each other"
            seen[name.casefold()] = at


def _targets(step: Step) -> dict[str, str]:
    return {f"steps.{step.name}.{key}": path for key, path in targets(step.config).items()}


def _in_the_way(storage: Storage, step: Step, pipeline: str) -> Iterator[str]:
    """Problems with what is at the step's outputs, where an earlier run of it did not write it."""
    for key, path in targets(step.config).items():
        if key == "output.path" and getattr(step.config.output, "format", "parquet") != "parquet":
            continue  # a table keeps its manifest elsewhere, and is checked in its turn
        if key == "index.path":
            continue  # goes from run to run, whatever its output.mode
        manifest = read_manifest(storage, path)
        if is_own(step, manifest, pipeline):
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


def _harmed(storage: Storage, step: Step, outputs: Sequence[Written]) -> Iterator[str]:
    """Problems with inputs of the step that one of the outputs would change."""
    reads = {**sources(step.config), **local_files(step.config)}
    return places.harms(storage, outputs, _named(step, reads), _named(step, roots(step.config)))


def _named(step: Step, paths: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {f"steps.{step.name}.{key}": each for key, each in paths.items()}
