"""What every contestant of embed_peers.py stands on: its task, reading, batches, writing.

Nothing of Ember is imported here or by the contestants, so that they run in an environment of
their own (scripts/bench/peers).
"""

from __future__ import annotations

import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

A = TypeVar("A")
B = TypeVar("B")

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Task:
    """A row of the table of contestants and what it is run on.

    folder: what embed_models.py made: `model/`, `openvino.xml`, `about.json`, …
    """

    case: str
    peer: str
    input: str
    output: str
    id: str
    content: str
    folder: str

    @property
    def model(self) -> str:
        """The folder of the model, or the file of Keras weights."""
        return str(Path(self.folder, "model.weights.h5" if self.about.get("keras") else "model"))

    @property
    def about(self) -> dict[str, Any]:
        return json.loads(Path(self.folder, "about.json").read_text("utf-8"))

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes where the task is to classify; None where it is to embed."""
        return self.about.get("labels")


def read(task: Task) -> tuple[pa.ChunkedArray, list[Any]]:
    """Ids, and the contents (bytes or str) in their order."""
    table = pq.read_table(task.input, columns=[task.id, task.content])
    return table.column(task.id), table.column(task.content).to_pylist()


def write(task: Task, ids: pa.ChunkedArray, found: np.ndarray) -> None:
    """Vectors (n, d) as `embedding`, or scores of classes (n, classes) as `label`."""
    table = pa.table({task.id: ids, **columns(task, found)})
    pq.write_table(table, task.output)


def columns(task: Task, found: np.ndarray) -> dict[str, pa.Array]:
    """The column that a contestant adds, by its name."""
    if task.labels:
        return {"label": pa.array([task.labels[best] for best in found.argmax(axis=1)])}
    found = np.ascontiguousarray(found, np.float32)
    offsets = np.arange(len(found) + 1, dtype=np.int32) * found.shape[1]
    return {"embedding": pa.ListArray.from_arrays(pa.array(offsets), pa.array(found.reshape(-1)))}


def in_batches(values: Sequence[A], rows: int) -> list[Sequence[A]]:
    return [values[start : start + rows] for start in range(0, len(values), rows)]


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int = 2) -> Iterator[B]:
    """`function` of each item in order, made by a thread while the caller uses an earlier one."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def picture(data: bytes) -> Image.Image:
    """Encoded image to RGB; upright by its EXIF tag, as Ember takes it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def openvino_queue(model: str) -> tuple[Any, dict[int, np.ndarray]]:
    """The documented way to throughput: the hint, and a queue of asynchronous requests.

    float32 is asked for, since OpenVINO takes bfloat16 by itself where the processor has it.
    Returns the queue, and the outputs that its callback keeps, by the request's number.
    """
    import openvino as ov

    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", hints)
    queue = ov.AsyncInferQueue(compiled)
    outputs: dict[int, np.ndarray] = {}

    def keep(request: Any, number: int) -> None:
        outputs[number] = request.get_output_tensor(0).data.copy()

    queue.set_callback(keep)
    return queue, outputs
