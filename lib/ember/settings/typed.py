"""Texts of a configuration as values of the types that its keys have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ember.settings.yaml_text import NULLS, Plain, YamlProblem, natural, parse_yaml

__all__ = ["branches", "typed"]

# For keys that are true or false, as in YAML 1.1.
_WORDS = {"yes": True, "no": False, "on": True, "off": False}
_BRACKETS = {"[": "]", "{": "}"}


def typed(annotation: Any, value: Any) -> Any:
    """`value` with each `Plain` in it made what its key is: see `_scalar`.

    annotation: the type of a key, as in a pydantic model. What is of another type, or beyond the
    known keys, is left for pydantic to refuse; below Any, all is left as it is.
    """
    kinds = list(branches(annotation))
    if Any in kinds:
        return value
    if isinstance(value, Plain):
        return _scalar(kinds, value)
    if isinstance(value, Mapping):
        return {key: typed(_inner(kinds, key), each) for key, each in value.items()}
    if isinstance(value, list):
        return _listed(kinds, value)
    return value


def branches(annotation: Any) -> Iterator[Any]:
    """The types that a key may have, without what is said about them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from branches(get_args(annotation)[0])
    elif origin in (UnionType, Union):
        for each in get_args(annotation):
            yield from branches(each)
    else:
        yield annotation


def _scalar(kinds: list[Any], text: Plain) -> Any:
    """The value of a text for a key of one of these types.

    null where the key may be null; a list or a section where it may be one and the text is in
    their brackets; for a text, the very text; else what YAML 1.2 makes of it.
    """
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if NoneType in kinds and text in NULLS:
        return None
    if text in words:
        return str(text)
    if any(_opened_by(kind) == text[:1] for kind in kinds) and _BRACKETS.get(text[:1]) == text[-1:]:
        try:
            return typed(_one_of(kinds), parse_yaml(text))
        except YamlProblem:
            pass
    if str in kinds:
        return str(text)
    if bool in kinds and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return natural(text)


def _opened_by(kind: Any) -> str | None:
    if get_origin(kind) is list:
        return "["
    return "{" if get_origin(kind) is dict or _is_section(kind) else None


def _listed(kinds: list[Any], values: list[Any]) -> list[Any]:
    """A list for a key that may be one, of one kind of values or of several."""
    inner = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
    if len(inner) < 2:
        only = inner[0] if inner else None
        return [typed(only, each) for each in values]
    # Numbers where all of them are, as YAML has it; else texts as they are written.
    guesses = [natural(each) if isinstance(each, Plain) else each for each in values]
    if all(isinstance(each, int | float) for each in guesses):
        return guesses
    return [str(each) if isinstance(each, Plain) else each for each in values]


def _inner(kinds: list[Any], key: Any) -> Any:
    """The type of what stands under `key` in a section or a mapping; None where it is unknown."""
    for kind in kinds:
        if _is_section(kind):
            field = kind.model_fields.get(str(key))
            return field.annotation if field else None
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _one_of(kinds: list[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007  # of types that are known only here
