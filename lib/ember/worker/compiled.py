"""Functions compiled by numba, which run without the interpreter's lock.

Compiled code is kept beside its file or in the user's cache, whichever can be written
(NUMBA_CACHE_DIR names another place); else each process compiles it, in some seconds.

numba itself keeps compiled code until the function's own file changes, although the code holds
what it calls and reads from other files, too: an edited bounds.py would leave stale kernels. Here
it is kept until any module of the function's package changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import numba
from numba.core.caching import CacheImpl, CompileResultCacheImpl, FunctionCache

Function = TypeVar("Function", bound=Callable[..., object])


# For `fastmath`: sums in any order, whose errors bounds.py allows for.
ANY_ORDER = {"reassoc", "contract"}


def compiled(**options: object) -> Callable[[Function], Function]:
    """A decorator; options are those of numba.njit."""

    def decorated(function: Function) -> Function:
        made: Any = numba.njit(nogil=True, **options)(function)
        with suppress(RuntimeError):  # there is no place to keep it
            made._cache = _cache_of(function.__module__.rpartition(".")[0])(function)
        result: Function = made
        return result

    return decorated


@cache
def _package_hash(package: str) -> str:
    """SHA-256 of the sources of a package, which may be inside a zip file."""
    modules = [file for file in files(package).iterdir() if file.name.endswith(".py")]
    digest = hashlib.sha256()
    for file in sorted(modules, key=lambda file: file.name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def _cache_of(package: str) -> type:
    """Numba's cache, in which code is valid for these sources of the package only."""

    def stamped(locator: type) -> type:
        stamp = {"get_source_stamp": lambda _: _package_hash(package)}
        return type(locator.__name__, (locator,), stamp)

    locators = [stamped(each) for each in CacheImpl._locator_classes]
    kept = type("PackageCacheImpl", (CompileResultCacheImpl,), {"_locator_classes": locators})
    return type("PackageCache", (FunctionCache,), {"_impl_class": kept})
