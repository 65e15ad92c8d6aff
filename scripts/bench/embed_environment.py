"""What another interpreter has installed: the environment of embed.py's contestants."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable

__all__ = ["importable", "versions"]

_PACKAGES = (
    "daft",
    "keras",
    "openvino",
    "optimum-intel",
    "pyarrow",
    "pyspark",
    "ray",
    "sentence-transformers",
    "tensorflow",
    "torch",
    "transformers",
)
_IMPORT = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    try:
        import_module(name)
        print(name)
    except ImportError:
        pass
"""
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def importable(python: str, modules: Iterable[str]) -> set[str]:
    """Those of the modules that the interpreter can import, all in one process.

    Afterwards the files of all of them are in the machine's cache, for the first run as for others.
    """
    return set(_said([python, "-c", _IMPORT, *sorted(modules)]).split()) & set(modules)


def versions(python: str) -> dict[str, str]:
    """The versions of the packages that matter, of those that the interpreter has."""
    return json.loads(_said([python, "-c", _VERSIONS, *_PACKAGES]))


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
