"""Daft and Ray Data, each as its documentation has it for a model on CPUs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from peer_images import BATCH, images
from peer_task import CORES, Task, columns
from peer_texts import sentences

_SENTENCES = 256


def daft_images(task: Task) -> None:
    """Daft decodes on its own threads, beside a class UDF that prepares and calls the model.

    One instance with all cores: pictures that are decoded stay in Daft's process, whatever
    `use_process` says; encoded ones to an instance in a process for each core took longer.
    """
    import daft

    # Daft would import it to see whether a picture is one of its tensors; a user of torch has none.
    sys.modules["tensorflow"] = None
    kind = daft.DataType.string() if task.labels else daft.DataType.list(daft.DataType.float32())

    @daft.cls(max_concurrency=1)
    class Model:
        def __init__(self) -> None:
            self.encode = images(task)

        @daft.method.batch(return_dtype=kind, batch_size=BATCH)
        def __call__(self, pictures: daft.Series) -> Any:
            found = self.encode(self.encode.prepare(pictures.to_pylist()))
            (column,) = columns(task, found).values()
            return daft.Series.from_arrow(column)

    daft.set_runner_native()
    table = daft.read_parquet(task.input)
    decoded = daft.functions.decode_image(table[task.content], mode=daft.ImageMode.RGB)
    name = "label" if task.labels else "embedding"
    table.select(task.id, Model()(decoded).alias(name)).write_parquet(task.output)


def daft_texts(task: Task) -> None:
    """`embed_text` with its provider `transformers`, which is sentence-transformers."""
    import daft
    from daft.functions import embed_text

    daft.set_runner_native()
    table = daft.read_parquet(task.input)
    vectors = embed_text(table[task.content], provider="transformers", model=task.model)
    kind = daft.DataType.list(daft.DataType.float32())
    table.select(task.id, vectors.cast(kind).alias("embedding")).write_parquet(task.output)


def ray_data(task: Task, encode: type, rows: int) -> None:
    """map_batches with a pool of actors, one a core, each with one thread of its library.

    Ray counts CPUs as slots. An actor holds its slot to the end, so that reading and writing get
    one more; with as many slots as cores nothing would be left for them.
    """
    import ray

    ray.init(num_cpus=CORES + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    table = ray.data.read_parquet(task.input, override_num_blocks=4 * CORES)
    table.map_batches(
        encode,
        fn_constructor_args=(task,),
        batch_size=rows,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=CORES),
    ).write_parquet(task.output)


def ray_images(task: Task) -> None:
    ray_data(task, RayImages, BATCH)


def ray_texts(task: Task) -> None:
    ray_data(task, RayTexts, _SENTENCES)


class RayImages:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.encode = images(task, threads=1)

    def __call__(self, batch: Any) -> Any:
        found = self.encode(self.encode.prepare(batch[self.task.content].to_pylist()))
        return answer(self.task, batch, found)


class RayTexts:
    """sentence-transformers, which sorts each batch by length."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = sentences(task, threads=1)

    def __call__(self, batch: Any) -> Any:
        texts = batch[self.task.content].to_pylist()
        return answer(self.task, batch, self.model.encode(texts, batch_size=32))


def answer(task: Task, batch: Any, found: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.table({task.id: batch[task.id], **columns(task, found)})
