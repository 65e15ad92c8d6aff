"""The engine as vectorized UDFs, for `withColumn` and SQL.

    from ember.udf import embed_images
    df.withColumn("embedding", embed_images("keras:ResNet50")("content"))
    spark.udf.register("embed_image", embed_images("keras:ResNet50"))

They give the `embedding` of the job, and null for a row that cannot be processed; use
`ember.embed` where the reasons matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession, functions
from pyspark.sql.types import BinaryType, StringType, StructField

from ember.embedding.embedding import take_limits
from ember.errors import InvalidInput
from ember.settings.config import parse
from ember.settings.embedding import ModelConfig
from ember.spark import gpu, models
from ember.spark.access import ContentIs, path_rules
from ember.spark.models import ModelFiles
from ember.spark.tasks import task_resources
from ember.worker import task
from ember.worker.row_paths import PathRules
from ember.worker.spec import Modality

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
    **options: Any,
) -> Any:
    """A UDF from encoded image bytes (binary), or paths (string), to array<float>.

    content_is, root: as for `ember.embed`.

    model, options: as for `ember.embed`.
    kind: "arrow" (an iterator Arrow UDF, Spark 4.1 or newer; several times faster on the way
        back), "pandas" (an iterator pandas UDF), or "auto": arrow where Spark has it.

    Needs an active session, through which the model's files reach the executors.
    Raises InvalidInput and InvalidConfig as `ember.embed` does.
    """
    return _make(model, "image", (content_is, root), kind, options)


def embed_texts(model: str, *, kind: Kind = "auto", **options: Any) -> Any:
    """A UDF from text (string, or binary in UTF-8) to array<float>; see `embed_images`.

    With `role="query"` or `role="document"` the texts have the model's prompt for it.
    """
    return _make(model, "text", ("bytes", None), kind, options)


def _make(
    model: str,
    modality: Modality,
    content: tuple[ContentIs, str | Sequence[str] | None],
    kind: Kind,
    options: dict[str, Any],
) -> Any:
    session = SparkSession.getActiveSession()
    if session is None:
        raise InvalidInput("there is no active Spark session; start one before making the UDF")
    limits = take_limits(options, "udf")
    config = parse(ModelConfig, {"name": model, **options}, "udf")
    column = StructField("content", StringType() if content[0] == "paths" else BinaryType())
    paths = path_rules(session, column, modality, *content)
    spec = models.resolve(
        config, modality, limits.max_pixels, max_bytes=limits.max_bytes, gpu=gpu.scheduled(session)
    )
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
