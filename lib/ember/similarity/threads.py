"""Threads that take whole tiles, each with a single-threaded product.

There is no barrier inside a tile, so a core that is busy with something else delays one tile and
not all of them.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set (Spark sets it to the task's cores), else torch's choice."""
    import torch

    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else torch.get_num_threads()


def tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor that shares the array's memory, also when that is read-only (Arrow, mmap).

    torch has no read-only tensors; nothing here writes to what this returns.
    """
    import torch

    if not array.flags.writeable:
        array = np.asarray(_Writeable(array))
    return torch.from_numpy(array)


class _Writeable:
    def __init__(self, array: NDArray[Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._owner = array


def run_tiles(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int
) -> Iterator[Result]:
    """Results of ``work`` in the order of the tasks, at most ``threads`` + 1 of them in flight."""
    import torch

    own = torch.get_num_threads()
    with _full_precision(), ThreadPoolExecutor(
        threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # fmt: skip
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            # The setting is per thread, but also the default of threads that are yet to start.
            torch.set_num_threads(own)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Float32 products that are float32: no TF32 or bfloat16 inside, as bounds.py supposes."""
    import torch

    before = torch.get_float32_matmul_precision()
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        # Said once in a process, on first use: here, where it can be silenced for all threads.
        torch.zeros(1, 1).to_sparse_csr()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced
