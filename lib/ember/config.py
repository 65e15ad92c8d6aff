"""Typed configuration: YAML and --set in, checked objects out, errors that name the key.

What the jobs take is in ember.settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ember.errors import InvalidConfig
from ember.typed import branches, typed
from ember.yaml_text import MAX_DEPTH, Plain, YamlProblem, read_yaml

__all__ = ["Config", "load", "parse", "read"]

ConfigT = TypeVar("ConfigT", bound="Config")
_SHOWN = 200
_PROBLEMS = 20
_PROBLEMS_LENGTH = 4000
# What one --set may hold; longer lists are for the file.
_MAX_SET = 2**16


class Config(BaseModel):
    """The base of every configuration object: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def load(kind: type[ConfigT], file: str | None, overrides: Sequence[str]) -> ConfigT:
    """Read `file` (YAML; None: nothing), apply `dotted.key=value` overrides, and check.

    Raises InvalidConfig with the problems found, one a line, and how many more there are.
    """
    values = read(file) if file else {}
    return parse(kind, _override(values, overrides), file or "--set")


def parse(kind: type[ConfigT], values: dict[str, Any], source: str, at: str = "") -> ConfigT:
    """Check `values` against `kind`. `source` says in an error where they came from.

    Each `Plain` becomes what its key is: a value of --set for a text is that very text.
    at: what stands before each key in an error, where `values` are a part of a configuration.
    Raises InvalidConfig with the problems found, one a line, and how many more there are.
    """
    try:
        return kind.model_validate(typed(kind, values))
    except ValidationError as error:
        problems = _problems(kind, error.errors(), at)
        raise InvalidConfig(f"{source}: " + "\n".join(problems)) from None


def read(file: str) -> dict[str, Any]:
    """The keys and values of a YAML file, unquoted scalars as `Plain`. Raises InvalidConfig."""
    try:
        values = read_yaml(file)
    except FileNotFoundError:
        raise InvalidConfig(f"there is no configuration file {file}") from None
    except (OSError, ValueError) as error:
        problem = "is not YAML" if isinstance(error, YamlProblem) else "cannot be read"
        raise InvalidConfig(f"the configuration file {file} {problem}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = "list" if isinstance(values, list) else "text"
        raise InvalidConfig(f"{file} must hold keys and values, not a {found}")
    return values


def _override(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        told = _cut(f"--set {override}")
        if len(override) > _MAX_SET:
            raise InvalidConfig(f"{told}: longer than {_MAX_SET} characters; give it in the file")
        if not equals or not all(key.split(".")):
            raise InvalidConfig(f"{told}: write it as dotted.key=value")
        *parents, last = key.split(".")
        if len(parents) > MAX_DEPTH:
            raise InvalidConfig(f"{told}: nested too deeply, more than {MAX_DEPTH} levels")
        place = values
        for parent in parents:
            inner = place.setdefault(parent, {})
            if inner is None:  # an empty section in the file
                inner = place[parent] = {}
            if not isinstance(inner, dict):
                raise InvalidConfig(f"{told}: {_cut(parent)} is a value, not a section")
            place = inner
        place[last] = Plain(text)
    return values


def _problems(kind: type[Config], found: Sequence[Any], at: str) -> Iterator[str]:
    """A sentence for each finding of pydantic, once, as far as a reader would read."""
    told: set[str] = set()
    for number, problem in enumerate(found):
        if len(told) == _PROBLEMS or sum(map(len, told)) > _PROBLEMS_LENGTH:
            yield f"… and {len(found) - number} more"
            return
        sentence = _explain(kind, problem, at)
        if sentence not in told:
            told.add(sentence)
            yield sentence


def _explain(kind: type[Config], problem: Any, at: str) -> str:
    """One sentence for one finding of pydantic."""
    loc = problem["loc"]
    fields = _fields_at(kind, loc[:-1])
    # Beyond the last field's name, loc names branches of a union and positions in a list.
    key = _cut(at + ".".join(map(str, loc[: _depth(kind, loc)]))) or "the configuration"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(fields)
        near = get_close_matches(str(loc[-1])[:_SHOWN], fields, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        unknown = _cut(f"{at}{'.'.join(map(str, loc))}")
        return f"unknown key {unknown}{hint}; known keys here: {known}"
    if problem["type"] == "missing":
        return f"{key} is missing; give it in the file or with --set {key}=..."
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, not {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    """A value as an error shows it, however long it is."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _depth(kind: type[Config], loc: Sequence[Any]) -> int:
    """How many leading parts of `loc` are names of fields."""
    depth = 0
    for depth, part in enumerate(loc, 1):
        fields = _fields_at(kind, loc[: depth - 1])
        if part not in fields and fields:
            return depth
        if not fields:
            return depth - 1
    return depth


def _fields_at(kind: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    """The known keys of the section that `loc` leads to; none where it is not a section."""
    current: type[BaseModel] = kind
    for part in loc:
        field = current.model_fields.get(str(part))
        section = _section(field.annotation) if field else None
        if section is None:
            return []
        current = section
    return list(current.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in branches(annotation):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
