"""The keys of a job's configuration as text: a list for --help, a YAML file to start from.

Both are made from the classes in ember.settings alone, in ASCII, so that any terminal shows them.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ember.settings.config_keys import Key, keys_of, section_of, walk
from ember.settings.names import Use
from ember.settings.yaml_text import natural

__all__ = ["as_help", "as_yaml", "type_name"]

_WIDTH = 100
_NAMES = {str: "text", int: "integer", float: "number", bool: "true | false", NoneType: "null"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_FILES = (Use.READ, Use.READ_LOCAL, Use.WRITE)
# What YAML reads as it stands; anything else is quoted.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def as_help(kind: type[BaseModel], width: int = _WIDTH) -> str:
    """Every key of a configuration with its type, its default and what it is, for a terminal."""
    blocks = []
    for key in keys_of(kind):
        lines = [line for each in walk([key]) for line in _listed(each, width)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def as_yaml(kind: type[BaseModel], heading: Sequence[str]) -> str:
    """A configuration to start from: every key with its default, and what it is as a comment.

    A required key is left empty and says so. A section that is not there by default stands below
    its key as lines that begin with # and no single space: without the # they are that section.
    heading: what stands above all, a paragraph each.
    """
    lines = [line for each in heading for line in _comment(each, 0, _WIDTH)]
    for key in keys_of(kind):
        lines += ["", *_written(key, 0, _WIDTH)]
    return "\n".join(lines) + "\n"


def type_name(annotation: Any) -> str:
    """What a key takes, as a user writes it: `auto | integer >= 1`."""
    names = dict.fromkeys(_type_names(annotation, ()))
    return " | ".join(sorted(names, key="null".__eq__))


def _type_names(annotation: Any, notes: tuple[Any, ...]) -> Iterator[str]:
    """The names of the types that a key may have. notes: what is said of all of them."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        for each in inside:
            yield from _type_names(each, notes)
    elif section_of(annotation):
        yield "section"
    elif origin is Annotated:
        yield from _type_names(inside[0], (*notes, *inside[1:]))
    elif origin is Literal:
        yield from map(str, inside)
    elif origin is list:
        yield f"[{' | '.join(_type_names(inside[0], notes))}, ...]"
    elif origin is dict:
        yield f"{{NAME: {' | '.join(_type_names(inside[1], notes))}, ...}}"
    elif annotation is str and any(note in _FILES for note in notes):
        yield "path"
    else:
        yield _NAMES.get(annotation, "value") + _limits(notes)


def _limits(notes: Sequence[Any]) -> str:
    """The bounds of a number, as they follow its name."""
    # A note is a bound, or a field of pydantic that holds bounds.
    held = [each for note in notes for each in getattr(note, "metadata", [note])]
    bounds = {
        name: getattr(each, name)
        for name in _BOUNDS
        for each in held
        if getattr(each, name, None) is not None
    }
    if set(bounds) == {"ge", "le"}:
        return f" {bounds['ge']} to {bounds['le']}"
    return " and".join(f" {_BOUNDS[name]} {bound}" for name, bound in bounds.items())


def _listed(key: Key, width: int) -> Iterator[str]:
    told = "" if _is_plain_section(key) else f"; default: {_value(key.default)}"
    if key.required:
        told = f"; required{f' if {key.needs} is given' if key.needs else ''}"
    head = f"{key.name} ({type_name(key.annotation)}{told})"
    yield from _filled(head, "  ", "        ", width)
    yield from _filled(key.description, "      ", "      ", width)


def _is_plain_section(key: Key) -> bool:
    """Is this a section whose defaults are those of its keys?"""
    return key.form == "section" and isinstance(key.default, BaseModel)


def _written(key: Key, indent: int, width: int) -> Iterator[str]:
    """A key in YAML, with what stands above and below it."""
    margin = " " * indent
    yield from _comment(key.description, indent, width)
    notes = ["required"] * key.required
    notes += [name for name in [type_name(key.annotation)] if name != "section"]
    value = "" if key.required or _is_plain_section(key) else f" {_value(key.default)}"
    yield f"{margin}{key.last}:{value}" + (f"  # {'; '.join(notes)}" if notes else "")
    if key.form and not value:
        yield from _inside(key, indent, width)
    elif key.form:
        for line in (f"{margin}{key.last}:", *_inside(key, indent, width - 1)):
            yield f"{margin}#{line[indent:]}"


def _inside(key: Key, indent: int, width: int) -> Iterator[str]:
    """What stands below a key that holds others; one section of a list or mapping of them."""
    if key.form == "list":
        yield f"{' ' * indent}  -"
    if key.form == "mapping":
        yield f"{' ' * indent}  NAME:"
    deeper = 2 if key.form == "section" else 4
    for each in key.keys:
        yield from _written(each, indent + deeper, width)


def _comment(text: str, indent: int, width: int) -> Iterator[str]:
    margin = f"{' ' * indent}# "
    return _filled(text, margin, margin, width)


def _filled(text: str, first: str, others: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _value(value: Any) -> str:
    """A default as YAML that is read back as the same value."""
    if isinstance(value, str) and value and set(value) <= _PLAIN and natural(value) == value:
        return value
    return json.dumps(value)
