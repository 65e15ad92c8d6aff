"""Text into and out of a command, whatever the locale and whoever reads it."""

from __future__ import annotations

import codecs
import locale
import logging
import os
import sys
from pathlib import Path

__all__ = ["insist_on_unicode", "is_ascii", "let_java_have_unicode", "say"]

_log = logging.getLogger(__name__)


def insist_on_unicode() -> None:
    """Start this command anew in Python's UTF-8 mode where it could name ASCII files only.

    Python itself does so in the C and POSIX locales, unless PYTHONUTF8=0 keeps it from it. Does not
    return then; the process stays the same one, with its streams and its environment.
    """
    if is_ascii(sys.getfilesystemencoding()):
        os.environ["PYTHONUTF8"] = "1"  # for workers
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def let_java_have_unicode() -> None:
    """Have a Java that is started from here name files in UTF-8, where it could in ASCII only."""
    if is_ascii(locale.getencoding()):
        os.environ["LC_ALL"] = "C.UTF-8"


def is_ascii(encoding: str) -> bool:
    """Is this a name of ASCII, as ANSI_X3.4-1968 is?"""
    return codecs.lookup(encoding).name == "ascii"


def say(text: str, level: int = logging.WARNING) -> None:
    """Print a line or several; letters that stdout cannot show are escaped.

    What is done is done: a stdout that is closed, full or a broken pipe is no failure. level: at
    which the log notes it.
    """
    if sys.stdout is None:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except (OSError, ValueError) as error:
        _log.log(level, "stdout takes no more: %s", error)
        try:  # or Python fails at the end, when it flushes what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # till the process ends
