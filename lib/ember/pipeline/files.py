"""What a step reads and writes, found by the marks on the keys of its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ember.config import Config
from ember.settings.embedding import Use
from ember.storage import Storage

__all__ = ["inputs", "local_files", "missing", "sources", "targets", "use_of"]


def targets(config: Config) -> dict[str, str]:
    """The folders that a step writes, by key."""
    return {key: paths[0] for key, use, paths in _marked(config) if use is Use.WRITE}


def sources(config: Config) -> dict[str, list[str]]:
    """The tables and folders that a step reads with Spark's file systems, by key."""
    return {key: paths for key, use, paths in _marked(config) if use is Use.READ}


def local_files(config: Config) -> dict[str, list[str]]:
    """What a step reads of this machine, models above all, by key."""
    found = {}
    for key, use, paths in _marked(config):
        if use is Use.READ_LOCAL:
            found[key] = [f"file:{_local(path)}" for path in paths]
        elif use is Use.MODEL and (model := _local(paths[0].removeprefix("hf:"))).exists():
            found[key] = [f"file:{model}"]
    return found


def inputs(storage: Storage, config: Config) -> dict[str, dict[str, Any]]:
    """What is there to be read, by key: files, bytes, and a hash that changes when any file does.

    A model of the hub, or weights that Keras provides, are no files of the user's: what names them
    is in the configuration.
    """
    found = {**sources(config), **local_files(config)}
    return {key: _state(storage, paths) for key, paths in sorted(found.items())}


def _state(storage: Storage, paths: list[str]) -> dict[str, Any]:
    """How many files there are, of how many bytes, and a hash of their names, sizes and times."""
    digest = hashlib.sha256()
    count = size = 0
    for path in paths:
        for file, length, changed in storage.listing(path):
            digest.update(f"{file}\n{length}\n{changed}\n".encode())
            count, size = count + 1, size + length
    return {"files": count, "bytes": size, "sha256": digest.hexdigest()}


def missing(storage: Storage, config: Config) -> Iterator[tuple[str, str]]:
    """Keys and paths at which there is nothing to read."""
    for key, paths in sources(config).items():
        yield from ((key, path) for path in paths if not storage.matches(path))


def _marked(config: Config, at: str = "") -> Iterator[tuple[str, Use, list[str]]]:
    """The keys that name files, what they are for, and what they name."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for key, each in _sections(value, f"{at}{name}"):
            yield from _marked(each, f"{key}.")
        if value is not None and (use := use_of(field)):
            yield f"{at}{name}", use, [value] if isinstance(value, str) else list(value)


def _sections(value: Any, key: str) -> list[tuple[str, Config]]:
    if isinstance(value, Config):
        return [(key, value)]
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    named = inner.items() if isinstance(inner, dict) else ()
    return [(f"{key}.{name}", each) for name, each in named if isinstance(each, Config)]


def use_of(field: FieldInfo) -> Use | None:
    """What a key names files for: the mark on its type, or on that beside null."""
    marks = [mark for mark in field.metadata if isinstance(mark, Use)]
    for branch in get_args(field.annotation):
        if get_origin(branch) is Annotated:
            marks += [mark for mark in branch.__metadata__ if isinstance(mark, Use)]
    return marks[0] if marks else None


def _local(path: str) -> Path:
    return Path(path.removeprefix("file://")).expanduser().absolute()
