"""Threads that take whole tiles, each with a single-threaded product.

There is no barrier inside a tile, so a core that is busy with something else delays one tile and
not all of them.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import threadpoolctl

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set (Spark sets it to the task's cores), else all cores."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else os.cpu_count() or 1


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array for compiled loops: of numpy's own class, and writeable.

    It shares the memory, also of an array that is read-only (Arrow, mmap), for which a loop would
    be compiled once more; no loop here writes to what this is used for.
    """
    return np.asarray(array if array.flags.writeable else _Writeable(array))


class _Writeable:
    def __init__(self, array: NDArray[Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._owner = array


def run_tiles(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of the tasks, at most 2 ``threads`` of them in flight."""
    with _one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_lock = threading.Lock()
_limits: list[Any] = []
"""One for each `run_tiles` that goes on, in whatever order they end; the first one limits."""


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    with _lock:
        _limits.append(_limits[0] if _limits else _blas().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _limits.pop()
            if not _limits:
                limit.restore_original_limits()


@lru_cache(maxsize=1)
def _blas() -> threadpoolctl.ThreadpoolController:
    """The libraries behind numpy's products and those of compiled loops (scipy's)."""
    import threadpoolctl

    import_module("scipy.linalg.cython_blas")  # only what is loaded can be limited
    return threadpoolctl.ThreadpoolController()
