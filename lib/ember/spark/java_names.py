"""File names as Java sees them: in the encoding of the locale that it was started in.

A name that this encoding cannot spell is not found, and one of a file that is there is left out of
every listing without a word. In the locales C and POSIX these are all names with letters outside of
ASCII, and letters of a command's arguments come out of spark-submit as question marks.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from ember.errors import InvalidConfig, InvalidInput
from ember.spark.console import is_ascii

__all__ = ["CURE", "check_arguments", "check_files", "encoding_of", "look_changed"]

CURE = "start Spark with LC_ALL=C.UTF-8 in its environment"
# A letter outside of ASCII has at least two bytes in UTF-8, each of which becomes one of these; a
# `?` that stands alone is that of a glob or a question.
_MARKS = re.compile(r"\?\?")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def encoding_of(jvm: Any) -> str:
    """The encoding in which a JVM names files; UTF-8 in place of one that Python does not know."""
    name = str(jvm.java.lang.System.getProperty("sun.jnu.encoding") or "UTF-8")
    try:
        codecs.lookup(name)
    except LookupError:
        return "UTF-8"
    return name


def look_changed(arguments: Sequence[str]) -> bool:
    """May letters of a command's arguments have been lost on the way through a JVM?"""
    return any(_MARKS.search(each) or _REPLACEMENT in each for each in arguments)


def check_arguments(arguments: Sequence[str], encoding: str) -> None:
    """Raise InvalidConfig for arguments whose letters a JVM of this encoding may have lost.

    Nothing tells its question marks from those that a user wrote.
    """
    for argument in arguments:
        if is_ascii(encoding) and _MARKS.search(argument):
            raise InvalidConfig(
                f"the argument {argument!r} may not be what you wrote: Java, in a locale of ASCII "
                f"alone, has put ?? in place of other letters; {CURE}, or give the value in the "
                "configuration file"
            )
        if _REPLACEMENT in argument:
            raise InvalidConfig(
                f"the argument {argument!r} is not what you wrote: it was not in {encoding}, as "
                f"Java took it; write it in UTF-8 and {CURE}"
            )


def check_files(root: str, matchers: Sequence[Callable[[str], bool]], encoding: str) -> None:
    """Raise InvalidInput for a file under a folder that Java would leave out of a table.

    matchers: what the names at each level below `root` are to be, for a glob that leads on from
    there. Names that begin with _ or . are no part of a table, below these levels.
    """
    if (found := _lost(os.fsencode(root), matchers, encoding)) is None:
        return
    cure = CURE if is_ascii(encoding) else "rename it"
    raise InvalidInput(
        f"Java names files in {encoding} here, and would leave out {os.fsdecode(found)!r}; {cure}"
    )


def _lost(folder: bytes, matchers: Sequence[Callable[[str], bool]], encoding: str) -> bytes | None:
    """The path of a file under a folder, or at it, that Java cannot name; None without one."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a file, or nothing to read: as reading it will say
        return None
    for entry in entries:
        seen = entry.name.decode(encoding, "replace")
        if not (matchers[0](seen) if matchers else _in_table(seen)):
            continue
        if not _is_spelled(entry.name, encoding):
            return entry.path
        if entry.is_dir() and (found := _lost(entry.path, matchers[1:], encoding)):
            return found
    return None


def _in_table(name: str) -> bool:
    """Does Spark read what has this name, in the folder of a table?"""
    return "=" in name or not name.startswith(("_", "."))


def _is_spelled(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
