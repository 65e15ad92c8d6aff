"""References in a step's configuration: `$name`, `${name}`, `${name.key}`; `$$` is a dollar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ember.errors import InvalidConfig
from ember.settings.config import Config
from ember.settings.yaml_text import Plain

__all__ = ["NAME", "References", "Unchecked", "output_key"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(rf"\$(?:(\$)|({NAME.pattern})|\{{({NAME.pattern})((?:\.[\w-]+)*)\}}|())")


def output_key(config: Config) -> str:
    """The key under `output` that says where a step's rows go."""
    output: Any = getattr(config, "output")  # noqa: B009  # all jobs have it
    named = (key for key in ("path", "table", "merge_into") if getattr(output, key, None))
    return next(named, "path")


class Unchecked(InvalidConfig):
    """A reference to a step that has problems of its own."""


@dataclass
class References:
    """What can be referred to: variables, and the steps above, by their configuration.

    Attributes:
        later: names of steps that come further below.
        broken: steps above that have problems.
        used: the steps that were referred to since it was last cleared.
    """

    variables: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Config] = field(default_factory=dict)
    later: tuple[str, ...] = ()
    broken: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def resolve(self, value: Any, key: str) -> Any:
        """`value` with all references in it replaced, in nested sections and lists as well.

        A text that is one reference and nothing else becomes what it refers to, a number, say.
        key: where `value` stands, for errors.

        Raises:
            InvalidConfig: an unknown reference.
        """
        if isinstance(value, Mapping):
            return {name: self.resolve(each, f"{key}.{name}") for name, each in value.items()}
        if isinstance(value, list):
            return [self.resolve(each, f"{key}.{n}") for n, each in enumerate(value)]
        if not isinstance(value, str):
            return value
        if (whole := _REFERENCE.fullmatch(value)) and not whole[1]:
            return self._find(whole, key)
        resolved = _REFERENCE.sub(lambda found: str(self._find(found, key)), value)
        return Plain(resolved) if isinstance(value, Plain) else resolved

    def _find(self, found: re.Match[str], key: str) -> Any:
        dollar, plain, braced, inner = found.groups()[:4]
        if dollar:
            return "$"
        name = plain or braced
        if name is None:
            raise InvalidConfig(
                f"{key}: a reference is written $name or ${{name}}, and $$ for a dollar itself"
            )
        if name in self.steps:
            self.used.add(name)
            wanted = (inner or "").removeprefix(".") or f"output.{output_key(self.steps[name])}"
            return self._key_of(name, wanted, key)
        if name in self.variables and not inner:
            return self.variables[name]
        if name in self.broken:
            raise Unchecked(f"{key}: step {name} has problems")
        raise InvalidConfig(f"{key}: {self._unknown(name, inner)}")

    def _key_of(self, step: str, wanted: str, key: str) -> Any:
        value: Any = self.steps[step].model_dump(mode="json")
        for part in wanted.split("."):
            known = value if isinstance(value, dict) else {}
            if part not in known:
                raise InvalidConfig(f"{key}: step {step} has no key {wanted}")
            value = known[part]
        if not isinstance(value, str | int | float):
            raise InvalidConfig(f"{key}: {wanted} of step {step} is {value!r}, not a single value")
        return value

    def _unknown(self, name: str, inner: str | None) -> str:
        if name in self.later:
            return f"step {name} comes below; a step refers to those above it"
        if inner and name in self.variables:
            return f"{name} is a variable, which has no keys"
        known = [*self.variables, *self.steps]
        near = get_close_matches(name, known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        listed = f"variables: {', '.join(self.variables) or 'none'}"
        listed += f"; steps above: {', '.join(self.steps) or 'none'}"
        return f"there is no variable or step {name}{hint}; {listed}"
