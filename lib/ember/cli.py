"""The console script: `ember embed …` is `python jobs/embed.py …`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the first argument names; its exit code."""
    from ember import console, jobs

    if arguments is None:
        console.insist_on_unicode()
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = sorted(module.name for module in pkgutil.iter_modules(jobs.__path__))
    if given and given[0] in known:
        return int(importlib.import_module(f"ember.jobs.{given[0]}").main(given[1:]))
    usage = f"usage: ember {{{','.join(known)}}} --config FILE [--set KEY=VALUE ...]"
    wanted_help = given[:1] in (["-h"], ["--help"])
    print(usage, file=sys.stdout if wanted_help else sys.stderr)
    return 0 if wanted_help else 2
