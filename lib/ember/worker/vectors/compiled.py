"""Functions compiled by numba, which run without the interpreter's lock.

Compiled code is kept beside its file or in the user's cache, whichever can be written
(NUMBA_CACHE_DIR names another place); else each process compiles it, in some seconds. It is kept
until its own file changes: touch that when something changes that it calls from another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])


# For `fastmath`: sums in any order, whose errors bounds.py allows for.
ANY_ORDER = {"reassoc", "contract"}


def compiled(**options: object) -> Callable[[Function], Function]:
    """A decorator; options are those of numba.njit."""

    def decorated(function: Function) -> Function:
        try:
            made: Function = numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # there is no place to keep it
            made = numba.njit(nogil=True, **options)(function)
        return made

    return decorated
