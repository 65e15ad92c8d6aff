"""What a job reads and writes, found by the marks on the keys of its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ember.settings.config import Config
from ember.settings.names import Use

__all__ = ["local_files", "roots", "sources", "tables", "targets", "use_of"]


def targets(config: Config) -> dict[str, str]:
    """The folders that a job writes, by key."""
    return {key: paths[0] for key, use, paths in _marked(config) if use is Use.WRITE}


def sources(config: Config) -> dict[str, list[str]]:
    """The tables and folders that a job reads with Spark's file systems, by key."""
    return {key: paths for key, use, paths in _marked(config) if use is Use.READ}


def tables(config: Config) -> dict[str, str]:
    """The names in Spark's catalogs of tables that a job reads, by key."""
    return {key: names[0] for key, use, names in _marked(config) if use is Use.READ_TABLE}


def roots(config: Config) -> dict[str, list[str]]:
    """The folders and URIs under which rows of a table may name files, by key."""
    return {key: paths for key, use, paths in _marked(config) if use is Use.MAY_READ}


def local_files(config: Config) -> dict[str, list[str]]:
    """What a job reads of this machine, models above all, by key."""
    found = {}
    for key, use, paths in _marked(config):
        if use is Use.READ_LOCAL:
            found[key] = [f"file:{_local(path)}" for path in paths]
        elif use is Use.MODEL and (model := _local(paths[0].removeprefix("hf:"))).exists():
            found[key] = [f"file:{model}"]
    return found


def _marked(config: Config, at: str = "") -> Iterator[tuple[str, Use, list[str]]]:
    """The keys that name files or tables, what they are for, and what they name."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for key, each in _sections(value, f"{at}{name}"):
            yield from _marked(each, f"{key}.")
        if value and (use := use_of(field)):
            yield f"{at}{name}", use, [value] if isinstance(value, str) else list(value)


def _sections(value: Any, key: str) -> list[tuple[str, Config]]:
    if isinstance(value, Config):
        return [(key, value)]
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    named = inner.items() if isinstance(inner, dict) else ()
    return [(f"{key}.{name}", each) for name, each in named if isinstance(each, Config)]


def use_of(field: FieldInfo) -> Use | None:
    """What a key names files or tables for: the mark on its type, or on that beside null."""
    marks = [mark for mark in field.metadata if isinstance(mark, Use)]
    for branch in get_args(field.annotation):
        if get_origin(branch) is Annotated:
            marks += [mark for mark in branch.__metadata__ if isinstance(mark, Use)]
    return marks[0] if marks else None


def _local(path: str) -> Path:
    return Path(path.removeprefix("file://")).expanduser().absolute()
