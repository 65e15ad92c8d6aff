"""What is wrong with a configuration, in sentences that name the key and say what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from ember.settings.config_keys import below, keys_of, walk

__all__ = ["cut", "problems"]

_SHOWN = 200
_PROBLEMS = 20
_PROBLEMS_LENGTH = 4000
_GUESSES = 3


def problems(kind: type[BaseModel], found: Sequence[Any], at: str) -> Iterator[str]:
    """A sentence for each finding of pydantic, once, as far as a reader would read.

    found: `errors()` of the ValidationError. at: what stands before each key.
    """
    told: set[str] = set()
    for number, problem in enumerate(found):
        if len(told) == _PROBLEMS or sum(map(len, told)) > _PROBLEMS_LENGTH:
            yield f"… and {len(found) - number} more"
            return
        sentence = _explain(kind, problem, at)
        if sentence not in told:
            told.add(sentence)
            yield sentence


def cut(text: str) -> str:
    """A text as an error shows it, however long it is."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _explain(kind: type[BaseModel], problem: Any, at: str) -> str:
    """One sentence for one finding of pydantic."""
    loc = problem["loc"]
    sections = _sections_along(kind, loc)
    if problem["type"] == "extra_forbidden":
        return _unknown(kind, loc, sections[-1], at)
    # Beyond the last key, loc names branches of a union and positions in a list.
    depth = max((n for n, section in enumerate(sections, 1) if section), default=0)
    key = cut(at + ".".join(map(str, loc[:depth]))) or "the configuration"
    if problem["type"] == "either":
        return _either(kind, loc, key, problem["ctx"]["given"])
    if problem["type"] == "missing":
        return f"{key} is missing; {_give(kind, loc[:depth], key)}"
    if problem["input"] is None or problem["input"] == "":
        return f"{key} is empty; {_give(kind, loc[:depth], key)}"
    message = "input should be a section" if problem["type"] == "model_type" else problem["msg"]
    message = message[0].lower() + message[1:]
    return f"{key}: {message}, not {cut(repr(problem['input']))}"


def _either(kind: type[BaseModel], loc: Sequence[Any], key: str, given: Sequence[str]) -> str:
    """Of a section that needs one key of several, and has none of them, or more than one."""
    if given:
        return f"{' and '.join(f'{key}.{each}' for each in given)} are given; give one of them"
    section = _sections_along(kind, (*loc, ""))[-1]
    first, *others = getattr(section, "either", ("path", "table"))
    more = " or ".join(f"{key}.{each}" for each in others)
    return f"{key}.{first} is missing; {_give(kind, (*loc, first), f'{key}.{first}')}, or {more}"


def _give(kind: type[BaseModel], loc: Sequence[Any], key: str) -> str:
    """How to give the key at `loc`. --set reaches no place in a list."""
    if not loc or any(isinstance(part, int) for part in loc):
        return "give it in the file"
    section = _sections_along(kind, (*loc, ""))[-1]
    inner = _first_required(section) if section else ""
    return f"give it in the file or with --set {key}{inner}=..."


def _first_required(section: type[BaseModel]) -> str:
    """What a section cannot be without, as it follows the section's name."""
    if either := getattr(section, "either", ()):
        return f".{either[0]}"
    first = next((key for key in keys_of(section) if key.required), None)
    if first is None:
        return ""
    inner = below(first.annotation) if first.form == "section" else None
    return f".{first.name}{_first_required(inner[1]) if inner else ''}"


def _unknown(
    kind: type[BaseModel], loc: Sequence[Any], section: type[BaseModel] | None, at: str
) -> str:
    known = list(section.model_fields) if section else []
    name = str(loc[-1])[:_SHOWN]
    near = get_close_matches(name, known, 1) or [f"{at}{key}" for key in _elsewhere(kind, name)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    unknown = cut(f"{at}{'.'.join(map(str, loc))}")
    return f"unknown key {unknown}{hint}; known keys here: {', '.join(known)}"


def _elsewhere(kind: type[BaseModel], name: str) -> list[str]:
    """Keys of other sections that may be meant by `name`, the last part of what was given."""
    keys = list(walk(keys_of(kind)))
    near = get_close_matches(name, {key.last for key in keys}, 1)
    found = [key.name for key in keys if key.last in near]
    # A name that stands in many sections tells nothing.
    return found if len(found) <= _GUESSES else []


def _sections_along(kind: type[BaseModel], loc: Sequence[Any]) -> list[type[BaseModel] | None]:
    """For each part of `loc`, the section that it is a key of.

    None for what is no key: a position in a list, a name in a mapping, a branch of a union.
    """
    found: list[type[BaseModel] | None] = []
    section: type[BaseModel] | None = kind
    inside: type[BaseModel] | None = None  # a list or a mapping, of which loc names one entry next
    for part in loc:
        found.append(section)
        if section is None:
            section, inside = inside, None
            continue
        field = section.model_fields.get(str(part))
        form, inner = (field and below(field.annotation)) or (None, None)
        section, inside = (inner, None) if form == "section" else (None, inner)
    return found
