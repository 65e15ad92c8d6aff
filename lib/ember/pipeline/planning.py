"""From the configuration of a pipeline to its steps, all of them checked before any runs."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ember.errors import InvalidConfig
from ember.pipeline.references import NAME, References, Unchecked, output_key
from ember.settings.config import Config, parse, read
from ember.settings.files import sources, tables, targets
from ember.settings.pipeline import PipelineConfig, StepConfig
from ember.settings.yaml_text import NULLS, Plain

__all__ = ["Plan", "Step", "plan"]

Kinds = Mapping[str, type[Config]]


@dataclass(frozen=True)
class Step:
    """A job with its resolved configuration. needs: earlier steps whose output it reads."""

    name: str
    job: str
    config: Any
    needs: tuple[str, ...]

    @property
    def output(self) -> str:
        """The folder or the table that the step writes, as its configuration names it."""
        named: str = getattr(self.config.output, output_key(self.config))
        return named


@dataclass(frozen=True)
class Plan:
    """The steps in the order in which they run. output: the folder of the pipeline itself."""

    steps: Sequence[Step]
    output: str


def plan(config: PipelineConfig, kinds: Kinds) -> Plan:
    """What a configuration asks for, checked.

    kinds: the jobs there are, with their configurations.

    Raises:
        InvalidConfig: with every problem found in any step, one a line.
    """
    problems = list(_bad_names(config))
    known = References(dict(config.vars))
    own = str(known.resolve(config.output.path, "output.path"))
    steps: list[Step] = []
    names = list(config.steps)
    for number, name in enumerate(names):
        known.later = tuple(names[number:])
        known.used.clear()
        try:
            step = _step(name, config.steps[name], kinds, known, steps)
        except Unchecked:
            known.broken.add(name)
        except InvalidConfig as error:
            problems.append(str(error))
            known.broken.add(name)
        else:
            known.steps[name] = step.config
            steps.append(step)
    if problems:
        raise InvalidConfig("\n".join(problems))
    return Plan(steps, own)


def _bad_names(config: PipelineConfig) -> Iterator[str]:
    for section in ("vars", "steps"):
        for name in getattr(config, section):
            if not NAME.fullmatch(name):
                yield f"{section}.{name}: a name has letters, digits and underscores only"
    for name, value in config.vars.items():
        if not isinstance(value, str | int | float) or _is_null(value):
            shown = None if _is_null(value) else value
            yield f"vars.{name}: give a text, a number or a boolean, not {shown!r}"
        if name in config.steps:
            yield f"vars.{name}: a step has this name as well; give one of them another"


def _is_null(value: Any) -> bool:
    return isinstance(value, Plain) and value in NULLS


def _step(
    name: str, given: dict[str, Any], kinds: Kinds, known: References, before: Sequence[Step]
) -> Step:
    at = f"steps.{name}"
    own = {key: given[key] for key in StepConfig.model_fields if key in given}
    described = parse(StepConfig, own, "", f"{at}.")
    if described.job not in kinds:
        near = get_close_matches(described.job, kinds, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InvalidConfig(
            f"{at}.job: there is no job {described.job}{hint}; jobs: {', '.join(sorted(kinds))}"
        )
    keys = {key: each for key, each in given.items() if key not in own}
    keys = known.resolve(keys, at)
    if described.config:
        keys = _merged(read(known.resolve(described.config, f"{at}.config")), keys)
    config = parse(kinds[described.job], keys, "", f"{at}.")
    read_here = [_plain(path) for paths in sources(config).values() for path in paths]
    named_here = [name.casefold() for name in tables(config).values()]
    needs = [
        step.name
        for step in before
        if step.name in known.used
        or step.output.casefold() in named_here
        or any(_made_by(step, path) for path in read_here)
    ]
    return Step(name, described.job, config, tuple(needs))


def _merged(base: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `keys` put over it, section by section."""
    merged = dict(base)
    for key, value in keys.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _made_by(step: Step, path: str) -> bool:
    return any(_within(path, _plain(target)) for target in targets(step.config).values())


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _plain(path: str) -> str:
    """A path in one spelling: local ones absolute, with links followed."""
    scheme, colon, rest = path.partition(":")
    if colon and scheme != "file" and "/" not in scheme:
        return path.rstrip("/")
    return os.path.realpath(rest if scheme == "file" else path)
