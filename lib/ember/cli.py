"""The console script: `ember embed …` is `python jobs/embed.py …`.

What it says of itself comes without an import of any job, and of what jobs import.
"""

from __future__ import annotations

import ast
import importlib
import logging
import pkgutil
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec

__all__ = ["main"]

_WIDTH = 100
_SHOWN = 100
_HELP = (
    "usage: ember JOB --config FILE [--set KEY=VALUE ...]",
    "       ember JOB --help          list the keys of the job's configuration",
    "       ember JOB --print-config  print a configuration to start from",
    "       ember --version",
    "",
    "jobs:",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the first argument names; its exit code."""
    from ember.spark import console

    if arguments is None:
        console.insist_on_unicode()
    given = list(sys.argv[1:] if arguments is None else arguments)
    jobs = _jobs()
    first = given[0] if given else ""
    if first in jobs:
        return int(importlib.import_module(f"ember.jobs.{first}").main(given[1:]))
    if first in ("-h", "--help"):
        console.say(_help(jobs), logging.DEBUG)
        return 0
    if first == "--version":
        console.say(f"ember {version('ember-spark')}", logging.DEBUG)
        return 0
    print(_unknown(first, jobs) if given else _help(jobs), file=sys.stderr)
    return 2


def _jobs() -> dict[str, str]:
    """The jobs by name, each with the first line of what its module says of itself."""
    from ember import jobs

    names = sorted(module.name for module in pkgutil.iter_modules(jobs.__path__))
    return {name: _first_line(f"{jobs.__name__}.{name}") for name in names}


def _first_line(module: str) -> str:
    """Of a module's docstring, which is read and not run; "" where its source is not there."""
    spec = find_spec(module)
    read = getattr(spec and spec.loader, "get_source", None)
    said = ast.get_docstring(ast.parse((read and read(module)) or ""))
    return (said or "").partition("\n")[0]


def _usage(jobs: Mapping[str, str]) -> str:
    return f"usage: ember {{{','.join(jobs)}}} --config FILE [--set KEY=VALUE ...]"


def _help(jobs: Mapping[str, str]) -> str:
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    margin = max(map(len, jobs)) + 4
    listed = [
        textwrap.fill(f"  {name:{margin - 2}}{about}", width, subsequent_indent=" " * margin)
        for name, about in jobs.items()
    ]
    return "\n".join([*_HELP, *listed])


def _unknown(name: str, jobs: Mapping[str, str]) -> str:
    what = "option" if name.startswith("-") else "job"
    known = ["--help", "--version"] if what == "option" else list(jobs)
    near = get_close_matches(name.lower(), known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"ember: there is no {what} {name[:_SHOWN]!r}{hint}\n{_usage(jobs)}"
