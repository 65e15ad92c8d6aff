"""The keys of a configuration, read from its class, for help, examples and error messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ember.settings.typed import branches

__all__ = ["Holds", "Key", "below", "keys_of", "section_of", "walk"]

# How a value holds other keys: as a section, a list of sections, or sections by name.
Form = Literal["section", "list", "mapping"]
_JOINTS: dict[Form, str] = {"section": ".", "list": "[].", "mapping": ".NAME."}


@dataclass(frozen=True)
class Holds:
    """Marks the type of a mapping in which the keys of a section stand among others."""

    section: type[BaseModel]


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
        name: dotted, as for --set; `features[].id` is a key of each section of a list, and
            `tables.NAME.id` one of each section of a mapping.
        annotation: its type, with all that is said of it.
        default: what it is when it is not given; nothing where it is required.
        form, keys: how it holds other keys, and which; None and () for a value.
        needs: the key which has to be given for this one to matter, where that one is null or empty
            by default.
    """

    name: str
    annotation: Any
    required: bool
    default: Any
    description: str
    form: Form | None
    keys: tuple[Key, ...]
    needs: str | None

    @property
    def last(self) -> str:
        """The last part of the name, which stands in a file."""
        return self.name.rpartition(".")[2]


def keys_of(
    kind: type[BaseModel], at: str = "", given: BaseModel | None = None, needs: str | None = None
) -> tuple[Key, ...]:
    """The keys of a section, in the order of its class.

    at: what stands before their names. given: a section by default, whose values are their defaults
    then. needs: see Key.
    """
    first = getattr(kind, "either", ())[:1]
    return tuple(
        _key(f"{at}{name}", name, field, given, needs, name in first)
        for name, field in kind.model_fields.items()
    )


def walk(keys: Sequence[Key]) -> Iterator[Key]:
    """The keys and those below them, each before those below it."""
    for key in keys:
        yield key
        yield from walk(key.keys)


def below(annotation: Any) -> tuple[Form, type[BaseModel]] | None:
    """The section that a type leads to, and how; None for a value."""
    either = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else ()
    for kind in (each for each in either if get_origin(each) is Annotated):
        if section := _marked(kind):
            return "section", section
    for kind in branches(annotation):
        origin, inside = get_origin(kind), get_args(kind)
        if section := section_of(kind):
            return "section", section
        if origin is list and (section := section_of(inside[0])):
            return "list", section
        if origin is dict and (section := section_of(inside[1])):
            return "mapping", section
    return None


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a type is, or that it is marked (`Holds`) to contain."""
    sections = (
        kind
        for kind in branches(annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    )
    return _marked(annotation) or next(sections, None)


def _marked(annotation: Any) -> type[BaseModel] | None:
    notes = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((note.section for note in notes if isinstance(note, Holds)), None)


def _key(  # noqa: PLR0917
    name: str,
    own: str,
    field: FieldInfo,
    given: BaseModel | None,
    needs: str | None,
    first: bool,
) -> Key:
    """first: stands for several keys of which one has to be given."""
    required = first or field.is_required()
    if given is not None:
        default = getattr(given, own)
    else:
        default = None if required else field.get_default(call_default_factory=True)
    form: Form | None = None
    keys: tuple[Key, ...] = ()
    if found := below(field.annotation):
        form, section = found
        inner = default if isinstance(default, BaseModel) else None
        optional = needs if required or inner is not None else name
        keys = keys_of(section, f"{name}{_JOINTS[form]}", inner, optional)
    notes = field.metadata
    annotation = Annotated[field.annotation, *notes] if notes else field.annotation
    return Key(
        name=name,
        annotation=annotation,
        required=required and given is None,
        default=default,
        description=field.description or "",
        form=form,
        keys=keys,
        needs=needs,
    )
