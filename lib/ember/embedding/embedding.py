"""Embedding a DataFrame: rows to the workers as Arrow batches, vectors back.

How a model is run on rows (`run_model`, `spread`) serves classification as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from ember.errors import InvalidConfig
from ember.settings.config import parse
from ember.settings.embedding import ChunkConfig, LimitsConfig, ModelConfig
from ember.spark import classic, gpu, models, read_batches
from ember.spark.access import ContentIs
from ember.spark.accounting import Reports
from ember.spark.models import ModelFiles
from ember.spark.tables import Corpus, column, select_corpus
from ember.spark.tasks import task_resources
from ember.worker import task
from ember.worker.garbage import spare_modules
from ember.worker.models.chunks import CHUNK_COLUMNS, Chunking
from ember.worker.results import Embedding, Result
from ember.worker.row_paths import PathRules
from ember.worker.spec import Modality, ModelSpec
from ember.worker.stats import TaskStats

__all__ = [
    "chunking_of",
    "columns_of",
    "embed",
    "embed_corpus",
    "identity",
    "result_schema",
    "run_model",
    "spread",
    "take_limits",
]

_ROWS_PER_TASK = {"image": 1000, "text": 2000}
# A GPU does in a second what a core does in a minute.
_GPU_FACTOR = 16
_TASKS_PER_CORE = 4


def embed(
    df: DataFrame,
    model: str,
    *,
    id: str,
    content: str = "content",
    modality: Modality = "image",
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    chunk: Mapping[str, Any] | None = None,
    **options: Any,
) -> DataFrame:
    """Embed every row of `df`.

    df: an id column of any atomic type, and a content column: encoded image bytes (binary), paths
        or URIs of images (string, with `content_is`), or text (string, or binary in UTF-8).
    content_is: "paths" where the content names image files; they are read where they lie under
        `root`, a folder or URI or several, and are error rows elsewhere.
    model: `keras:<name>` or `hf:<hub id or folder>`.
    chunk: cuts long texts into windows: `tokens` (256), `overlap` (32), `pool` (None or "mean");
        see `ember.settings.embedding.ChunkConfig`.
    options: the other keys of the configuration's `model` section (weights, layer, precision, role,
        prompt, dimension, …), `max_pixels` and `max_bytes`.

    Returns one row for each row of `df`: the id, `embedding` array<float>, `status` ("ok" or
    "error"), `error` (null, or a short reason). With `chunk` and no `pool` a row for each chunk,
    with `chunk` int (from 0), `start` and `end` int (characters of the text) after the id; a row
    that has no text is one chunk without start and end. Lazy: the rows are embedded when the result
    is written or counted.

    Raises InvalidInput for columns or a model that cannot be used, InvalidConfig for options that
    do not exist or do not go together.
    """
    limits = take_limits(options, "embed")
    config = parse(ModelConfig, {"name": model, **options}, "embed")
    chunking = None
    if chunk is not None:
        chunking = chunking_of(parse(ChunkConfig, dict(chunk), "embed", "chunk."), modality)
    corpus = select_corpus(
        df, id, content, modality, *columns_of(chunking), content_is=content_is, root=root
    )
    read_batches.advise(corpus.rows)
    spark = df.sparkSession
    gpu.check(spark)
    spec = models.resolve(
        config, modality, limits.max_pixels, max_bytes=limits.max_bytes, gpu=gpu.scheduled(spark)
    )
    return embed_corpus(corpus.rows, corpus.paths, spec, chunking=chunking)


def chunking_of(config: ChunkConfig | None, modality: Modality) -> Chunking | None:
    """How texts are cut. Raises InvalidConfig for images, and where nothing of a window is new."""
    if config is None:
        return None
    if modality != "text":
        raise InvalidConfig("chunk is for texts, and input.modality is image; leave it out")
    if config.overlap >= config.tokens:
        raise InvalidConfig(
            f"chunk.overlap is {config.overlap} of chunk.tokens = {config.tokens}; give less"
        )
    return Chunking(config.tokens, config.overlap, config.pool)


def columns_of(chunking: Chunking | None) -> tuple[str, ...]:
    """The columns of the output between the id and the status."""
    numbered = chunking is not None and chunking.pool is None
    return ("embedding", *CHUNK_COLUMNS) if numbered else ("embedding",)


def take_limits(options: dict[str, Any], source: str) -> LimitsConfig:
    """Take the limits of a row out of the options of a library function."""
    known = ("max_pixels", "max_bytes")
    given = {name: options.pop(name) for name in known if name in options}
    return parse(LimitsConfig, given, source)


def embed_corpus(
    rows: DataFrame,
    paths: PathRules | None,
    spec: ModelSpec,
    reports: Reports | None = None,
    chunking: Chunking | None = None,
) -> DataFrame:
    """Embed rows (id, content) with a resolved model; see `embed` for the result.

    paths: where the files may be that the content names, if it does. reports: receives the stats
    of each task.
    """
    vectors = ArrayType(FloatType())
    result = Embedding(spec.normalize or task.normalizes_means(spec, chunking))
    return run_model(rows, paths, spec, result, vectors, reports=reports, chunking=chunking)


def run_model(
    rows: DataFrame,
    paths: PathRules | None,
    spec: ModelSpec,
    result: Result,
    kind: DataType,
    *,
    reports: Reports | None = None,
    chunking: Chunking | None = None,
) -> DataFrame:
    """Run a resolved model on rows (id, content): id, the result's column, status, error.

    result: what the model's output for a row becomes, and the name of its column, of type `kind`.
    chunking: of texts; see `embed` for the columns after the id.
    """
    files = models.distribute(rows.sparkSession, spec)
    # Under plain names meanwhile: mapInArrow takes no column with a dot or a backtick in its name.
    plain = rows.toDF("id", "content")
    schema = result_schema(rows, result.name, kind)
    if chunking is not None and chunking.pool is None:
        numbers = [StructField(name, IntegerType()) for name in CHUNK_COLUMNS]
        schema = StructType([schema.fields[0], *numbers, *schema.fields[1:]])
    done = plain.mapInArrow(_runner(files, result, paths, reports, chunking), schema)
    return done.toDF(rows.schema[0].name, *schema.names[1:])


def result_schema(rows: DataFrame, name: str, kind: DataType) -> StructType:
    """What comes back from the workers; `id` has the type of the first column of `rows`."""
    key = rows.schema[0]
    return StructType(
        [
            StructField("id", key.dataType, key.nullable),
            StructField(name, kind),
            StructField("status", StringType()),
            StructField("error", StringType()),
        ]
    )


def identity(
    corpus: Corpus, spec: ModelSpec, chunking: Chunking | None = None
) -> dict[str, str | None]:
    """What the rows of the output depend on beside the settings; see `ember.spark.identity`."""
    cut = None
    if chunking is not None:
        pooled = f", {chunking.pool} of them" if chunking.pool else ""
        cut = f"{chunking.tokens} tokens, overlap {chunking.overlap}{pooled}"
    return {
        "job": "embed",
        "id": f"{corpus.id} {corpus.id_type.simpleString()}",
        "model": spec.fingerprint,
        "chunk": cut,
    }


def spread(
    rows: DataFrame, modality: Modality, rows_per_task: int | Literal["auto"]
) -> tuple[DataFrame, int]:
    """Rows (id, content, …) in partitions that keep all cores busy and lose little when killed.

    Also returns how many rows there are.

    Left as it is when its partitions are small and even enough; else shuffled by id and size of
    the content, which does not depend on how the input was partitioned and spreads repeated ids.
    """
    session = rows.sparkSession
    bound = _ROWS_PER_TASK[modality] if rows_per_task == "auto" else rows_per_task
    if rows_per_task == "auto" and gpu.scheduled(session):
        bound *= _GPU_FACTOR
    cores = classic.cores(session)
    parts = rows.groupBy(F.spark_partition_id()).count().agg(F.sum("count"), F.max("count"))
    total, largest = parts.collect()[0]
    if not total:
        return rows, 0
    tasks = max(-(-total // bound), min(total, _TASKS_PER_CORE * cores))
    if largest <= min(bound, -(-2 * total // tasks)):
        return rows, total
    key, content = (column(rows, name) for name in rows.columns[:2])
    return rows.repartition(tasks, key, F.length(content)), total


def _runner(
    files: ModelFiles,
    result: Result,
    paths: PathRules | None,
    reports: Reports | None,
    chunking: Chunking | None,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that Spark runs in a worker for each partition."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        address, threads = task_resources()
        stats = TaskStats()
        spec = files.on_worker()
        yield from task.run_batches(
            batches,
            spec,
            result,
            address=address,
            threads=threads,
            paths=paths,
            stats=stats,
            chunking=chunking,
        )
        context = TaskContext.get()
        if reports is not None and context is not None and stats.rows:
            reports.add(stats.report(context.partitionId(), task.record(spec, paths=paths)))
        spare_modules()

    return run
