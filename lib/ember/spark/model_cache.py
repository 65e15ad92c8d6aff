"""The folder of what is made once: it is used only if it is as Ember wrote it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ember.errors import InvalidInput
from ember.worker.spec import hash_files

__all__ = ["cache_folder", "check_cached", "is_own"]


def cache_folder() -> Path:
    """Where what is made once is kept: EMBER_CACHE, or ember in the user's cache folder."""
    if cache := os.environ.get("EMBER_CACHE"):
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ember"


def is_own(path: Path) -> bool:
    """Is this file or folder the user's or root's, and not writable for everybody?"""
    status = path.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & stat.S_IWOTH


def check_cached(path: Path, sha256: str | None = None) -> None:
    """Raise InvalidInput for a file or folder that others may have written, or that has changed.

    sha256: its `hash_files`, where that is known. The hash is noted beside it on the first use.
    """
    for each in (path.parent, path):
        if not is_own(each):
            raise InvalidInput(
                f"{each} is another user's or writable for everybody, so the weights in it are not "
                "to be trusted; mend that, or set EMBER_CACHE to a folder of your own"
            )
    found = sha256 or hash_files(path)
    note = path.with_name(f"{path.name}.sha256")
    if not note.exists():
        made = note.with_name(f".{note.name}-{os.getpid()}")
        made.write_text(f"{found}\n", "utf-8")
        made.replace(note)  # whole at once: another run may be reading it
    elif note.read_text("utf-8").strip() != found:
        raise InvalidInput(
            f"{path} is not what it was when it was made ({note.name} beside it); delete both, and "
            "it is made anew"
        )
