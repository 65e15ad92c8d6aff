"""What is in an output, held against the files that its manifest names.

A run notes every file that it publishes, with its size. So a later run knows what somebody else has
put there, which nobody may take along, and what is gone or has been written over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.spark.staged_files import Files

__all__ = ["FILES", "HIDDEN", "MANIFEST", "altered", "foreign", "lacking", "noted"]

MANIFEST = "_manifest.json"
FILES = "files"  # the key of a manifest
# What Spark and Hadoop leave beside files, and may leave out.
_MARKS = re.compile(r"(?:.*/)?(?:_SUCCESS|\.[^/]*\.crc)")
# What counts as Ember's where a manifest names no files, as before there was that key.
_UNNAMED = re.compile(r"(?:.*/)?(?:part-[^/]*|_.*)")
HIDDEN = re.compile(r"(?:^|/)[_.]")
Manifest = Mapping[str, Any]


def noted(files: Files, folder: str) -> dict[str, int]:
    """The files in `folder`, however deep, with their bytes; what a manifest says under `FILES`."""
    return dict(sorted((path, size) for path, size in files.below(folder) if path != MANIFEST))


def foreign(
    files: Files, folder: str, manifest: Manifest | None, underway: Collection[str] = ()
) -> str | None:
    """A file in an output that the run which left the manifest did not put there, if any is.

    Folders count by what they hold. None as well where no run has left a manifest.
    underway: files of Ember's all the same.
    """
    if manifest is None:
        return None
    named = manifest.get(FILES)
    for path, _ in files.below(folder):
        own = _UNNAMED.fullmatch(path) if named is None else path in named
        if not own and path not in underway and path != MANIFEST and not _MARKS.fullmatch(path):
            return path
    return None


def lacking(files: Files, folder: str, manifest: Manifest) -> str | None:
    """A file with rows, or of a model, that the manifest names and that is not there, if any is.

    Where it names none, nobody knows; then it is those names that are lacking. Pages and marks,
    whose names begin with _ or ., decide no row.
    """
    if FILES not in manifest:
        return f"the key {FILES} in its {MANIFEST}"
    found = dict(files.below(folder))
    return next((path for path in _shown(manifest) if path not in found), None)


def altered(files: Files, folder: str, manifest: Manifest) -> str | None:
    """A file with rows, or of a model, that has another size than the manifest says, if any has."""
    found = dict(files.below(folder))
    named = manifest.get(FILES, {})
    return next(
        (path for path in _shown(manifest) if found.get(path, named[path]) != named[path]), None
    )


def _shown(manifest: Manifest) -> Iterator[str]:
    return (path for path in manifest.get(FILES, {}) if not HIDDEN.search(path))
