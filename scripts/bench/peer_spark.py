"""Spark's own ways: `predict_batch_udf`, and the two pandas UDFs of Daft's published comparison."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from peer_images import BATCH, SIZE, KerasImages, image_processor, images
from peer_task import CORES, Task, picture
from peer_texts import sentences

# Rows of a call to sentence-transformers, which sorts them by length and cuts batches itself.
_SENTENCES = 512


def table_of(task: Task, arrow_rows: int) -> Any:
    """The input as a DataFrame of a session with settings like those that Ember gives itself.

    Two partitions a core, as Spark's tuning guide has it, and the threads that Spark gives the
    libraries (OMP_NUM_THREADS = spark.task.cpus).
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    settings = {
        "spark.driver.memory": f"{min(8, max(1, gib // 4))}g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(arrow_rows),
    }
    builder = SparkSession.builder.master(f"local[{CORES}]").appName(task.peer)
    spark = builder.config(map=settings).getOrCreate()
    return spark.read.parquet(task.input).select(task.id, task.content).repartition(2 * CORES)


def finish(task: Task, table: Any, column: Any, name: str = "embedding") -> None:
    table.select(task.id, column.alias(name)).write.parquet(task.output)
    table.sparkSession.stop()


def predict_batch_udf_images(task: Task) -> None:
    """The documented recipe: a first pandas UDF makes flat arrays, which are reshaped by Spark."""
    import pandas as pd
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import ArrayType, FloatType

    table = table_of(task, arrow_rows=128)
    keras = "keras" in task.about

    @pandas_udf("array<float>")
    def decode(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        prepare = decoding(task)
        for column in batches:
            yield column.map(lambda data: prepare(data).reshape(-1))

    def make_predict_fn() -> Callable[[np.ndarray], np.ndarray]:
        encode = images(task)
        # Keras scales the colors beside the model, as its recipe has it.
        return lambda pixels: encode(encode.preprocess(pixels) if keras else pixels)

    embed = predict_batch_udf(
        make_predict_fn,
        return_type=ArrayType(FloatType()),
        batch_size=BATCH,
        input_tensor_shapes=[[SIZE, SIZE, 3] if keras else [3, SIZE, SIZE]],
    )
    finish(task, table, embed(decode(table[task.content])))


def decoding(task: Task) -> Callable[[bytes], np.ndarray]:
    """One encoded image to float32, without the model."""
    if "keras" in task.about:
        return KerasImages.pixels
    processor = image_processor(task.model)
    return lambda data: processor(picture(data), return_tensors="np")["pixel_values"][0]


def predict_batch_udf_texts(task: Task) -> None:
    """predict_batch_udf with sentence-transformers, which sorts each call's texts by length."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    table = table_of(task, arrow_rows=10_000)

    def make_predict_fn() -> Callable[[np.ndarray], np.ndarray]:
        model = sentences(task)
        return lambda texts: model.encode(texts.tolist(), batch_size=BATCH)

    embed = predict_batch_udf(
        make_predict_fn, return_type=ArrayType(FloatType()), batch_size=_SENTENCES
    )
    finish(task, table, embed(table[task.content]))


def two_udfs(task: Task) -> None:
    """Daft's published Spark notebook: decoded pixels go through Arrow between two pandas UDFs.

    100 rows an Arrow batch, lists of floats, the model kept in a global of the worker.
    """
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    table = table_of(task, arrow_rows=100)
    labels = task.labels

    @pandas_udf("array<float>")
    def decode(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        prepare = decoding(task)
        for column in batches:
            yield pd.Series([prepare(data).flatten().tolist() for data in column])

    @pandas_udf("string")
    def classify(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        encode = images(task)
        for column in batches:
            pixels = np.vstack(column.tolist()).reshape(-1, 3, SIZE, SIZE).astype(np.float32)
            best = encode(pixels).argmax(axis=1)
            yield pd.Series([labels[index] for index in best])

    pixels = table.withColumn("pixels", decode(table[task.content]))
    pixels = pixels.filter(pixels["pixels"].isNotNull())
    finish(task, pixels, classify(pixels["pixels"]), "label")
