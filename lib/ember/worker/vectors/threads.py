"""Threads that take whole tiles, each with a single-threaded product.

There is no barrier inside a tile, so a core that is busy with something else delays one tile and
not all of them.
"""

from __future__ import annotations

import os
import sys
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
    import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set (Spark sets it to the task's cores), else all cores."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else os.cpu_count() or 1


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array for compiled loops and torch: of numpy's own class, and writeable.

    It shares the memory, also of an array that is read-only (Arrow, mmap); neither torch, which has
    no read-only tensors, nor any loop here writes to what this is used for.
    """
    return np.asarray(array if array.flags.writeable else _Writeable(array))


def tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor that shares the array's memory; see `plain`."""
    import torch

    return torch.from_numpy(plain(array))


def load_torch() -> None:
    """For tiles that use it, before `run_tiles`, which sets up the torch that is there."""
    import_module("torch")


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
    with (
        _torch_alone() as alone,
        _one_blas_thread(),
        ThreadPoolExecutor(threads, initializer=alone) as pool,
    ):
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


@contextmanager
def _torch_alone() -> Iterator[Callable[[], None]]:
    """What gives a thread one of torch's threads; and float32 products that are float32.

    No TF32 or bfloat16 inside, as bounds.py supposes. Where torch is not loaded it is not needed:
    see `load_torch`.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield lambda: None
        return
    own, before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        # The setting is per thread, but also the default of threads that are yet to start.
        torch.set_num_threads(own)
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced
