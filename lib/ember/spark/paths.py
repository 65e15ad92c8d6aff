"""Paths as a user writes them: literal names, globs, and what is neither.

Spark takes every path that it reads for a glob, so a folder named `set[1]` is not found unless its
brackets are escaped. What it writes, and what Storage opens, is taken by name.
"""

from __future__ import annotations

import re

from ember.errors import InvalidInput

__all__ = ["check", "is_glob", "literal"]

# See org.apache.hadoop.fs.GlobPattern and GlobExpander; the backslash escapes.
_SPECIAL = re.compile(r"[\\{}\[\]*?]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def literal(path: str) -> str:
    """`path` escaped, so that Spark, which expects a glob, reads the file of that literal name."""
    return _SPECIAL.sub(r"\\\g<0>", path)


def is_glob(path: str) -> bool:
    """May `path` stand for several files, or for one of another name?"""
    return bool(_SPECIAL.search(path))


def check(path: str) -> None:
    """Raise InvalidInput for a text that is no path on any file system.

    Hadoop takes what stands before the first colon for a scheme, unless a slash comes first.
    """
    if not path or "\0" in path:
        raise InvalidInput(f"{path!r} is no path: it is empty, or has a NUL character")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"{path!r} is no path that Spark can take: it is not Unicode") from None
    before, colon, after = path.partition(":")
    if not colon or "/" in before:
        return
    if not _SCHEME.fullmatch(before) or not after.startswith("/"):
        raise InvalidInput(
            f"{path!r} is neither a path nor a URI such as file:/data/x; for a file of this name "
            f"write {'./' + path!r}"
        )
