"""Which modules a text goes through in a sentence-transformers folder, by its role."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ember.errors import InvalidConfig, InvalidInput
from ember.worker.json_files import read_json, read_settings
from ember.worker.models.text_prompts import Role

__all__ = ["INSTEAD", "Module", "has_modules", "modules_of", "unknown"]

_MODULES_FILE = "modules.json"


@dataclass(frozen=True)
class Module:
    kind: str
    folder: str  # inside the model's


def has_modules(folder: Path) -> bool:
    """Does the folder say which modules a text goes through?"""
    return (folder / _MODULES_FILE).is_file()


def modules_of(folder: Path, role: Role | None) -> list[Module]:
    """All modules that a text in this role goes through; the first is a Transformer."""
    listed = read_json(folder / _MODULES_FILE)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InvalidInput(f"{folder / _MODULES_FILE} is no list of modules")
    named = [(str(each.get("type")), str(each.get("path", ""))) for each in listed]
    found = list(_routed(folder, named, role))
    if not found or found[0].kind != "Transformer":
        name = f"is {found[0].kind}" if found else "is missing"
        raise InvalidInput(
            f"{folder}: its first module {name}; Ember knows texts that go through a Transformer"
        )
    return found


def _routed(folder: Path, named: list[tuple[str, str]], role: Role | None) -> Iterator[Module]:
    """Modules of (type, path), with those of the chosen route in place of a Router."""
    for kind, path in named:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise InvalidInput(f"{folder}: its module {kind} lies outside of the folder, at {path}")
        package, _, name = kind.rpartition(".")
        if not package.startswith("sentence_transformers"):
            raise unknown(folder, f"the module {kind}, code of its own")
        if name in ("Router", "Asym"):
            yield from _routed(folder, _route(folder, path, role), role)
        else:
            yield Module(name, path)


def _route(folder: Path, path: str, role: Role | None) -> list[tuple[str, str]]:
    """The modules of a Router for texts in this role, chosen as `Router._resolve_route` does."""
    at = folder / path
    settings = read_settings(at / "router_config.json") or read_settings(at / "config.json")
    try:
        kinds, routes, given = settings["types"], settings["structure"], settings["parameters"]
        mappings = given.get("route_mappings") or {}
        mapped = {ast.literal_eval(key): route for key, route in mappings.items()}
        default = given.get("default_route")
        if default is None and given.get("allow_empty_key", True):
            default = next(iter(routes))
        chosen = [mapped.get(each) for each in ((role, "text"), (role, None))]
        chosen += [mapped.get(each) for each in ((None, "text"), (None, None))]
        chosen += [name for name in (role, "text") if name in routes]
        chosen += [default] if role is None else []
        route = next((each for each in chosen if each is not None), None)
        if route is not None:
            return [(kinds[name], f"{path}/{name}".lstrip("/")) for name in routes[route]]
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError, StopIteration):
        raise InvalidInput(f"{at}: its Router does not say what goes where") from None
    raise InvalidConfig(
        f"{folder} treats texts by their role, and has none for {role or 'texts without one'}; set "
        f"model.role (its routes are {', '.join(routes)})"
    )


INSTEAD = "give model.layer mean or cls for its transformer alone, or another model"


def unknown(folder: Path, what: str) -> InvalidInput:
    """The error that a folder holds something without which its vectors would be others."""
    return InvalidInput(
        f"{folder} has {what}, which Ember does not know; without it the vectors would not be the "
        f"model's: {INSTEAD}"
    )
