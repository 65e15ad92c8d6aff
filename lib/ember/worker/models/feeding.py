"""Arrays to where a torch model is, and its results back, beside what the device computes.

On a GPU two batches are under way at a time, each on a stream of its own: its copy there, the
model, and the copy of the results back follow each other in the stream, and the streams run side
by side, but for what has to be in order. So one batch is copied and launched while the other
computes, and what a model asks the device for in between (transformers looks whether any token is
masked) waits for its own batch only.

Both copies are from and to pinned memory, without which they would hold up the calling thread;
torch keeps what was pinned for the next batch, and gives it out when the copy is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Feed", "OverlappingFeed", "feed_for"]

Matrix = npt.NDArray[np.float32]


def feed_for(device: Any) -> Feed:
    """The feed of a torch device."""
    return OverlappingFeed(device) if device.type == "cuda" else Feed(device)


class Feed:
    """Of a device that computes while its caller waits, as a CPU does.

    `in_flight` is how many batches may be under way at a time.
    """

    in_flight = 1

    def __init__(self, device: Any) -> None:
        self.device = device

    def batch(self) -> AbstractContextManager[None]:
        """Around all that is done on the device for one batch."""
        return nullcontext()

    def place(self, array: npt.NDArray[Any]) -> Any:
        """The array as a tensor on the device."""
        import torch

        return torch.from_numpy(array).to(self.device)

    def stack(self, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """Arrays of one shape and type as one tensor on the device."""
        return self.place(np.stack(arrays))

    def in_order(self) -> None:
        """Have the rest of a batch computed after all of the one before. Inside `batch`.

        A model that keeps tensors from one call to the next could otherwise read some that are not
        written yet.
        """

    def fetch(self, result: Any) -> Callable[[], Matrix]:
        """A function that waits for a result (n, d) float32, and returns it. Inside `batch`."""
        made: Matrix = result.cpu().numpy()
        return lambda: made


class OverlappingFeed(Feed):
    """Of a GPU, which computes beside its caller."""

    in_flight = 2

    def __init__(self, device: Any) -> None:
        import torch

        super().__init__(device)
        self._torch = torch
        self._streams = [torch.cuda.Stream(device) for _ in range(self.in_flight)]
        self._last: Any = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        stream = self._streams.pop(0)
        self._streams.append(stream)
        # The weights were copied, and the model was tried, on the stream that is there by default.
        stream.wait_stream(self._torch.cuda.default_stream(self.device))
        with self._torch.cuda.stream(stream):
            yield

    def in_order(self) -> None:
        if self._last is not None:
            self._torch.cuda.current_stream(self.device).wait_event(self._last)

    def place(self, array: npt.NDArray[Any]) -> Any:
        pinned = self._pinned(array.shape, self._kind(array))
        pinned.numpy()[...] = array
        return pinned.to(self.device, non_blocking=True)

    def stack(self, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        pinned = self._pinned((len(arrays), *arrays[0].shape), self._kind(arrays[0]))
        np.stack(arrays, out=pinned.numpy())
        # As it is: a copy into another type goes by way of memory that is not pinned.
        return pinned.to(self.device, non_blocking=True)

    def fetch(self, result: Any) -> Callable[[], Matrix]:
        pinned = self._pinned(result.shape, result.dtype)
        pinned.copy_(result, non_blocking=True)
        # Without `blocking` the thread that waits would take a core from those that decode.
        done = self._torch.cuda.Event(blocking=True)
        done.record()
        self._last = done

        def wait() -> Matrix:
            done.synchronize()
            made: Matrix = pinned.numpy()
            return made

        return wait

    def _kind(self, array: npt.NDArray[Any]) -> Any:
        return self._torch.from_numpy(np.empty(0, array.dtype)).dtype

    def _pinned(self, shape: Sequence[int], kind: Any) -> Any:
        return self._torch.empty(tuple(shape), dtype=kind, pin_memory=True)
