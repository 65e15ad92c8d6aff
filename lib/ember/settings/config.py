"""Typed configuration: YAML and --set in, checked objects out, errors that name the key.

What the jobs take is in ember.settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ember.errors import InvalidConfig
from ember.settings.config_problems import cut, problems
from ember.settings.typed import typed
from ember.settings.yaml_text import MAX_DEPTH, Plain, YamlProblem, read_yaml
from ember.worker.json_files import is_unicode

__all__ = ["Config", "load", "parse", "read"]

ConfigT = TypeVar("ConfigT", bound="Config")
# What one --set may hold; longer lists are for the file.
_MAX_SET = 2**16


class Config(BaseModel):
    """The base of every configuration object: frozen, and closed to unknown keys.

    Attributes:
        either: keys that are empty or null by default, and of which one has to be given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    either: ClassVar[tuple[str, ...]] = ()

    @field_validator("*")
    @classmethod
    def _encodable(cls, value: Any) -> Any:
        """Refuse text that is not Unicode: Java, Arrow and tokenizers cannot take it."""
        texts = [value]
        while texts:
            each = texts.pop()
            if isinstance(each, str) and not is_unicode(each):
                raise PydanticCustomError("surrogate", "Give text that is Unicode")
            if isinstance(each, dict):
                texts += [*each, *each.values()]
            elif isinstance(each, list | tuple):
                texts += each
        return value

    @model_validator(mode="after")
    def _one_of_either(self) -> Self:
        given = [key for key in self.either if getattr(self, key)]
        if self.either and len(given) != 1:
            raise PydanticCustomError("either", "{given}", {"given": given})
        return self


def load(kind: type[ConfigT], file: str | None, overrides: Sequence[str]) -> ConfigT:
    """Read `file` (YAML; None: nothing), apply `dotted.key=value` overrides, and check.

    Raises:
        InvalidConfig: with the problems found, one a line, and how many more there are.
    """
    values = read(file) if file else {}
    return parse(kind, _override(values, overrides), file or "--set")


def parse(kind: type[ConfigT], values: dict[str, Any], source: str, at: str = "") -> ConfigT:
    """Check `values` against `kind`. `source` says in an error where they came from.

    Each `Plain` becomes what its key is: a value of --set for a text is that very text.
    at: what stands before each key in an error, where `values` are a part of a configuration.

    Raises:
        InvalidConfig: with the problems found, one a line, and how many more there are.
    """
    try:
        return kind.model_validate(typed(kind, values))
    except ValidationError as error:
        found = problems(kind, error.errors(), at)
        raise InvalidConfig(f"{source}: " + "\n".join(found)) from None


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
        told = cut(f"--set {override}")
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
                raise InvalidConfig(f"{told}: {cut(parent)} is a value, not a section")
            place = inner
        place[last] = Plain(text)
    return values
