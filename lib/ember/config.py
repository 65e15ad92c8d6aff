"""Typed configuration: YAML and --set in, checked objects out, errors that name the key.

What the jobs take is in ember.settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ember.errors import InvalidConfig

__all__ = ["Config", "load", "parse", "read"]

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """The base of every configuration object: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def load(kind: type[ConfigT], file: str | None, overrides: Sequence[str]) -> ConfigT:
    """Read `file` (YAML; None: nothing), apply `dotted.key=value` overrides, and check.

    Raises InvalidConfig with every problem found, one a line.
    """
    values = read(file) if file else {}
    return parse(kind, _override(values, overrides), file or "--set")


def parse(kind: type[ConfigT], values: dict[str, Any], source: str, at: str = "") -> ConfigT:
    """Check `values` against `kind`. `source` says in an error where they came from.

    at: what stands before each key in an error, where `values` are a part of a configuration.
    Raises InvalidConfig with every problem found, one a line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = dict.fromkeys(_explain(kind, problem, at) for problem in error.errors())
        raise InvalidConfig(f"{source}: " + "\n".join(problems)) from None


def read(file: str) -> dict[str, Any]:
    """The keys and values of a YAML file. Raises InvalidConfig, also for a key given twice."""
    try:
        values = yaml.load(Path(file).read_text("utf-8"), _Loader)
    except FileNotFoundError:
        raise InvalidConfig(f"there is no configuration file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"cannot read the configuration file {file}: {error}") from None
    except yaml.YAMLError as error:
        raise InvalidConfig(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidConfig(f"{file} must hold keys and values, not a {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML without keys that hide one another."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in given:
            if given.count(key) > 1 and key != "<<":
                raise yaml.YAMLError(f"{key} is given twice in one place,{node.start_mark}")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _override(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise InvalidConfig(f"--set {override}: write it as dotted.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            inner = place.setdefault(parent, {})
            if inner is None:  # an empty section in the file
                inner = place[parent] = {}
            if not isinstance(inner, dict):
                raise InvalidConfig(f"--set {override}: {parent} is a value, not a section")
            place = inner
        place[last] = value
    return values


def _explain(kind: type[Config], problem: Any, at: str) -> str:
    """One sentence for one finding of pydantic."""
    loc = problem["loc"]
    fields = _fields_at(kind, loc[:-1])
    # Beyond the last field's name, loc names branches of a union and positions in a list.
    key = at + ".".join(str(part) for part in loc[: _depth(kind, loc)]) or "the configuration"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(fields)
        near = get_close_matches(str(loc[-1]), fields, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"unknown key {at}{'.'.join(map(str, loc))}{hint}; known keys here: {known}"
    if problem["type"] == "missing":
        return f"{key} is missing; give it in the file or with --set {key}=..."
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, not {problem['input']!r}"


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
    candidates = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
