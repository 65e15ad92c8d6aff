"""Attempts at a table, left beside it by runs, and the rows that they hold.

See ember.spark.staging for the folders. Nothing here changes any.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from ember.spark import contents
from ember.spark.staged_files import Files, name_of, read_json, read_manifest

__all__ = ["ATTEMPT", "Attempts"]

ATTEMPT = re.compile(r"attempt-.*-[0-9a-f]{8}")
_log = logging.getLogger(__name__)


class Attempts:
    """The attempts under `root` at the table at `target`, as the run with one of them sees them.

    Args:
        attempt: the name of that run's own.
        new: where in an attempt the table grows.
        held: are rows published there? By default, where data files are.
    """

    def __init__(
        self,
        files: Files,
        root: str,
        target: str,
        attempt: str,
        new: str,
        *,
        held: Callable[[], bool] | None = None,
    ) -> None:
        self._files = files
        self._root = root
        self._target = target
        self._inner = new
        self._held = held or (lambda: self.has_data(target))
        self.attempt = attempt
        self.folder = f"{root}/{attempt}"

    def earlier(self) -> list[str]:
        """The folders of the attempts that this one resumes, nested ones included."""
        found: list[str] = []
        below = [self.folder]
        while below:
            inner = self._files.folders(f"{below.pop()}/earlier")
            found += inner
            below += inner
        return found

    def sources(self) -> list[str]:
        """The folders that hold the rows done before this attempt, each row in one of them."""
        attempts = self._files.folders(f"{self.folder}/earlier")
        folders = self._rows_of_all(attempts)
        if not any(self._is_complete(attempt) for attempt in attempts):
            folders += [self._target] if self._held() else []
        return folders

    def claimed(self) -> list[str]:
        """The folders that hold the rows of the attempts that this one resumes."""
        return self._rows_of_all(self._files.folders(f"{self.folder}/earlier"))

    def _rows_of_all(self, attempts: Sequence[str]) -> list[str]:
        return [each for attempt in attempts for each in self._rows_of(attempt)]

    def has_rows(self) -> bool:
        """Does this attempt hold any row?"""
        return bool(self._rows_of(self.folder))

    def has_data(self, folder: str) -> bool:
        """Are there data files right in `folder`?"""
        return bool(self.data_files(folder))

    def data_files(self, folder: str) -> list[str]:
        """The files right in `folder` that hold rows."""
        named = ((name_of(file), file) for file in self._files.files(folder))
        return [file for name, file in named if not name.startswith(("_", "."))]

    def _rows_of(self, folder: str) -> list[str]:
        """The folders that hold the rows of an attempt, each row in one of them."""
        new = self.own_new(folder)
        found = [new] if new and self.has_data(new) else []
        if self._files.exists(f"{folder}/kept/_SUCCESS"):
            kept = f"{folder}/kept"
            return found + ([kept] if self.has_data(kept) else [])
        for each in self._files.folders(f"{folder}/earlier"):
            found += self._rows_of(each)
        return found

    def own_new(self, attempt: str) -> str | None:
        """The folder of an attempt's own rows; None where it holds the table that was replaced."""
        new = f"{attempt}/{self._inner}"
        manifest = read_manifest(self._files, new)
        own = manifest is None or manifest.get("attempt") == name_of(attempt)
        return new if own else None

    def _is_complete(self, folder: str) -> bool:
        """Does an attempt hold all rows that were done before it?"""
        if self._files.exists(f"{folder}/kept/_SUCCESS"):
            return True
        return any(self._is_complete(each) for each in self._files.folders(f"{folder}/earlier"))

    def _replaces_target(self) -> bool:
        """Is there a killed attempt, to be resumed, that was to overwrite what is there?"""
        return any(
            told.get("mode") == "overwrite" and self._is_complete(folder)
            for folder, told in self._unfinished()
        )

    def is_finished(self) -> bool:
        """Is there a published table, whole, and no attempt of a killed run that was to replace it?

        One with a file gone, or written over, is not, and a log line says which.
        """
        published = read_manifest(self._files, self._target)
        if published is None or self._unfinished():
            return False
        gone = contents.lacking(self._files, self._target, published)
        gone = gone or contents.altered(self._files, self._target, published)
        if gone:
            _log.warning("%s lacks %s as it was, and is made again", self._target, gone)
        return gone is None

    def _unfinished(self) -> list[tuple[str, dict[str, Any]]]:
        """Attempts of other runs that can be gone on with, and what their attempt.json says."""
        told = [(each, read_json(self._files, f"{each}/attempt.json")) for each in self._others()]
        return [
            (each, facts)
            for each, facts in told
            if facts is not None and not self._is_published(each)
        ]

    def _is_published(self, folder: str) -> bool:
        """Is what this attempt made the table that is published?"""
        manifest = read_manifest(self._files, self._target)
        return manifest is not None and manifest.get("attempt") == name_of(folder)

    def _others(self) -> list[str]:
        folders = self._files.folders(self._root)
        named = ((name_of(each), each) for each in folders)
        return [each for name, each in named if ATTEMPT.fullmatch(name) and name != self.attempt]
