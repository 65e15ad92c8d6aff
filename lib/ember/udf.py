"""Embedding models as functions of a column, for `withColumn` and SQL.

They give the `embedding` of `ember.embed`, and null for a row that cannot be embedded; use
`ember.embed` where the reasons matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession, functions
from pyspark.sql.types import BinaryType, StringType, StructField

from ember.embedding.model_work import checked_model
from ember.embedding.options import BatchSize, chosen
from ember.errors import InvalidInput
from ember.settings.embedding import Layer, ModelConfig, Role, Runtime
from ember.settings.limits import LimitsConfig
from ember.settings.tables import ContentIs
from ember.spark import models
from ember.spark.access import path_rules
from ember.spark.models import ModelFiles
from ember.spark.samples import Sample
from ember.spark.tasks import task_resources
from ember.worker import task
from ember.worker.row_paths import PathRules
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Modality, Precision

__all__ = ["embed_images", "embed_texts"]

# Spark's own annotations of the two decorators are overloads that no iterator function matches.
_functions: Any = functions

Kind = Literal["auto", "arrow", "pandas"]


def embed_images(
    model: str,
    *,
    content_is: ContentIs = "bytes",
    root: str | Sequence[str] | None = None,
    kind: Kind = "auto",
    weights: str = "imagenet",
    revision: str | None = None,
    layer: Layer = "auto",
    runtime: Runtime = "auto",
    precision: Precision = "float32",
    batch_size: BatchSize = "auto",
    normalize: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Make a function that embeds a column of images.

    The model's files reach the executors through the active session, so make the function in each
    session anew. A row that cannot be embedded becomes null.

    Args:
        model: `keras:NAME` or `hf:ID`, as for `ember.embed`.
        content_is: What the column holds: encoded images ("bytes", binary), or paths or URIs of
            image files ("paths", string).
        root: With paths, the folder or folders under which files may be read.
        kind: "arrow" for an iterator Arrow UDF (Spark 4.1 or newer; several times faster on the way
            back), "pandas" for an iterator pandas UDF, "auto" for arrow where Spark has it.
        weights: For `keras:` models, "imagenet", "random", or a file that Keras saved.
        revision: For `hf:` models, the branch, tag or commit of the hub's repository.
        layer: Layer that vectors are taken from, as for `ember.embed`.
        runtime: Library that runs the model, "tensorflow", "torch", "openvino" or "auto".
        precision: Number format of the model's computation, "float32", "bfloat16" or "float16".
        batch_size: Rows of a batch. "auto" goes by the device.
        normalize: Whether to scale each vector to length 1.
        max_pixels: Pixels of the largest image. A larger one becomes null without being decoded.
        max_bytes: Bytes of the largest image. A larger one becomes null.

    Returns:
        A UDF from binary or string to array<float> of the model's dimension. It takes and gives
        columns; `spark.udf.register` gives it a name in SQL.

    Raises:
        InvalidInput: There is no active session, or the model cannot be used.
        InvalidConfig: An option has no such value, or does not go with another one.
        DeviceMissing: Spark assigns GPUs to tasks, and there is none.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
        >>> images = spark.createDataFrame([(1, file.getvalue())], "id int, content binary")
        >>> embed_image = ember.udf.embed_images(resnet, normalize=True)
        >>> embedded = images.withColumn("embedding", embed_image("content"))
        >>> embedded.selectExpr("id", "size(embedding) AS dimension").collect()
        [Row(id=1, dimension=24)]
    """
    keywords = locals()  # by the names that the settings have
    return _make(model, "image", (content_is, root), kind, keywords)


def embed_texts(
    model: str,
    *,
    kind: Kind = "auto",
    revision: str | None = None,
    layer: Layer = "auto",
    role: Role = None,
    prompt: str | None = None,
    dimension: int | None = None,
    runtime: Runtime = "auto",
    precision: Precision = "float32",
    batch_size: BatchSize = "auto",
    normalize: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Make a function that embeds a column of texts.

    It is to texts what `embed_images` is to images: make it in each session anew, and count on
    null for a row that cannot be embedded.

    Args:
        model: `hf:ID`, as for `ember.embed`.
        kind: As for `embed_images`.
        revision: Branch, tag or commit of the hub's repository.
        layer: Layer that vectors are taken from, as for `ember.embed`.
        role: "query" or "document", for models that have a prompt for each.
        prompt: Name of one of the model's prompts, or a text to put before every text.
        dimension: How many leading numbers of each vector to keep (Matryoshka). None: all.
        runtime: Library that runs the model, "torch" or "auto".
        precision: Number format of the model's computation, "float32", "bfloat16" or "float16".
        batch_size: Rows of an average batch. "auto" goes by the device.
        normalize: Whether to scale each vector to length 1.
        max_bytes: Bytes of the largest text. A larger one becomes null.

    Returns:
        A UDF from string, or binary in UTF-8, to array<float> of the model's dimension.

    Raises:
        InvalidInput: There is no active session, or the model cannot be used.
        InvalidConfig: An option has no such value, or does not go with another one.
        DeviceMissing: Spark assigns GPUs to tasks, and there is none.

    Example:
        >>> embed_text = ember.udf.embed_texts(bert, normalize=True)
        >>> _ = spark.udf.register("embed_text", embed_text)
        >>> spark.sql("SELECT size(embed_text('a cat')) AS dimension").collect()
        [Row(dimension=32)]
    """
    keywords = locals()  # by the names that the settings have
    return _make(model, "text", ("bytes", None), kind, keywords)


def _make(
    model: str,
    modality: Modality,
    content: tuple[ContentIs, str | Sequence[str] | None],
    kind: Kind,
    keywords: dict[str, Any],
) -> Any:
    session = SparkSession.getActiveSession()
    if session is None:
        raise InvalidInput("there is no active Spark session; start one before making the UDF")
    limits = chosen(LimitsConfig, keywords, "udf")
    config = chosen(ModelConfig, keywords, "udf", name=model)
    column = StructField("content", StringType() if content[0] == "paths" else BinaryType())
    paths = path_rules(session, column, modality, *content)
    spec = checked_model(session, config, modality, limits, sample=Sample())
    embed = _embed_arrays(models.distribute(session, spec), paths)
    if kind == "pandas" or (kind == "auto" and not hasattr(_functions, "arrow_udf")):
        return _pandas(embed)
    return _arrow(embed)


Embed = Callable[[Iterator[pa.Array]], Iterator[pa.Array]]


def _embed_arrays(files: ModelFiles, paths: PathRules | None) -> Embed:
    def embed(arrays: Iterator[pa.Array]) -> Iterator[pa.Array]:
        address, threads = task_resources()
        batches = (
            pa.RecordBatch.from_arrays([pa.nulls(len(array)), array], names=["id", "content"])
            for array in arrays
        )
        embedded = task.embed_batches(
            batches, files.on_worker(), address=address, threads=threads, paths=paths
        )
        for batch in embedded:
            yield batch.column("embedding")

    return embed


def _arrow(embed: Embed) -> Any:
    def udf(arrays: Iterator[pa.Array]) -> Iterator[pa.Array]:
        return embed(arrays)

    return _functions.arrow_udf(udf, "array<float>")


def _pandas(embed: Embed) -> Any:
    def udf(columns: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for vectors in embed(pa.Array.from_pandas(column) for column in columns):
            yield vectors.to_pandas()

    return _functions.pandas_udf(udf, "array<float>")
