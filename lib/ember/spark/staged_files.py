"""What staging asks of a file system, and the JSON files that runs leave there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ember.spark.contents import MANIFEST

__all__ = [
    "Files",
    "dotted",
    "manifest_text",
    "name_of",
    "read_json",
    "read_manifest",
    "write_manifest",
]


class Files(Protocol):
    """What staging asks of a file system; see `ember.spark.storage.Storage`."""

    def exists(self, path: str) -> bool: ...
    def files(self, folder: str) -> list[str]: ...
    def folders(self, folder: str) -> list[str]: ...
    def below(self, folder: str) -> Iterator[tuple[str, int]]: ...
    def make_folder(self, path: str) -> None: ...
    def delete(self, path: str) -> None: ...
    def delete_empty(self, folder: str) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def rename_all(self, moves: Sequence[tuple[str, str]]) -> None: ...
    def moves_folders(self, path: str) -> bool: ...
    def exchange(self, one: str, other: str) -> bool: ...
    def read_text(self, path: str) -> str: ...
    def write_text(self, path: str, text: str) -> None: ...


def name_of(path: str) -> str:
    """The last part of a path as file systems list it, without a slash at its end."""
    return path.rpartition("/")[2]


def read_json(files: Files, file: str) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is none, or only a part of one."""
    if not files.exists(file):
        return None
    try:
        found = json.loads(files.read_text(file))
    except Exception:  # written in part, or gone meanwhile: each file system has its own error
        return None
    return found if isinstance(found, dict) else None


def read_manifest(files: Files, folder: str) -> dict[str, Any] | None:
    """The manifest that a run left with the output at `folder`; None where there is none."""
    return read_json(files, f"{folder}/{MANIFEST}")


def write_manifest(files: Files, folder: str, manifest: Mapping[str, Any]) -> None:
    """Leave a manifest with the output at `folder`, in place of one that is there."""
    files.write_text(f"{folder}/{MANIFEST}", manifest_text(manifest))


def dotted(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a manifest's section by dotted keys, without those that are null."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """A manifest as it is written."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
