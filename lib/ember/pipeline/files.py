"""What a step reads and writes, found by the marks on the keys of its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ember.config import Config
from ember.settings.embedding import ModelConfig, Use
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
    marked = _marked(config)
    return {key: [_local(each) for each in p] for key, use, p in marked if use is Use.READ_LOCAL}


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
        yield from ((key, path) for path in paths if not storage.listing(path))


def _marked(config: Config, at: str = "") -> Iterator[tuple[str, Use, list[str]]]:
    """The keys that name files, what they are for, and what they name."""
    if isinstance(config, ModelConfig):
        yield from _of_model(config, at)
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for key, each in _sections(value, f"{at}{name}"):
            yield from _marked(each, f"{key}.")
        if value is not None and (use := use_of(field)):
            yield f"{at}{name}", use, [value] if isinstance(value, str) else list(value)


def _sections(value: Any, key: str) -> list[tuple[str, Config]]:
    if isinstance(value, Config):
        return [(key, value)]
    listed = enumerate(value) if isinstance(value, list) else ()
    return [(f"{key}.{n}", each) for n, each in listed if isinstance(each, Config)]


def use_of(field: FieldInfo) -> Use | None:
    """What a key names files for: the mark on its type, or on that beside null."""
    marks = [mark for mark in field.metadata if isinstance(mark, Use)]
    for branch in get_args(field.annotation):
        if get_origin(branch) is Annotated:
            marks += [mark for mark in branch.__metadata__ if isinstance(mark, Use)]
    return marks[0] if marks else None


def _of_model(model: ModelConfig, at: str) -> Iterator[tuple[str, Use, list[str]]]:
    family, _, name = model.name.partition(":")
    if family == "hf" and Path(name.removeprefix("file://")).expanduser().is_dir():
        yield f"{at}name", Use.READ_LOCAL, [name]
    if family == "keras" and model.weights not in ("imagenet", "random"):
        yield f"{at}weights", Use.READ_LOCAL, [model.weights]


def _local(path: str) -> str:
    return f"file:{Path(path.removeprefix('file://')).expanduser().absolute()}"
