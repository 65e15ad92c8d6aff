"""Embedding a DataFrame: a vector for each image or text, or for each window of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from ember.embedding.model_work import ModelWork, checked_model
from ember.embedding.options import BatchSize, chosen
from ember.errors import InvalidConfig
from ember.settings.config import parse
from ember.settings.embedding import ChunkConfig, EmbedConfig, Layer, ModelConfig, Role, Runtime
from ember.settings.limits import LimitsConfig, VectorLimitsConfig
from ember.settings.tables import ContentIs
from ember.spark import tables
from ember.spark.samples import Sample
from ember.spark.tables import Corpus
from ember.worker import task
from ember.worker.models.chunks import CHUNK_COLUMNS, Chunking
from ember.worker.results import Embedding
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Modality, Precision

__all__ = ["embed", "plan"]


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
    weights: str = "imagenet",
    revision: str | None = None,
    layer: Layer = "auto",
    role: Role = None,
    prompt: str | None = None,
    dimension: int | None = None,
    runtime: Runtime = "auto",
    precision: Precision = "float32",
    batch_size: BatchSize = "auto",
    normalize: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_cosine: float | None = None,
) -> DataFrame:
    """Embed every row of a DataFrame of images or texts.

    The result is lazy: the model runs each time the result is written, counted or collected, so
    write it once and go on with what was written. A row that cannot be embedded stays, with a
    null vector and the reason; `written.groupBy("status", "error").count()` counts the failed rows,
    which a job compares with its `limits.max_failed_fraction`.

    Args:
        df: A column of ids and a column of content.
        model: `keras:NAME` for a model of keras.applications (images), or `hf:ID` for a model of
            the Hugging Face hub or a folder (images and texts).
        id: Column that names each row, of any atomic type. Name and type are kept.
        content: Column of the content: encoded images (binary), paths or URIs of image files
            (string, with `content_is="paths"`), or texts (string, or binary in UTF-8).
        modality: What the content is, "image" or "text".
        content_is: What an image column holds, "bytes" or "paths". None stands for bytes, and
            refuses a column of strings.
        root: With paths, the folder or folders under which files may be read. A row that names
            a file elsewhere fails.
        chunk: Cuts long texts into windows of tokens: `tokens` (256) and `overlap` (32) in tokens,
            `pool` ("mean" for one vector a text, None for one a window). None cuts no text.
        weights: For `keras:` models, "imagenet", "random", or a file that Keras saved.
        revision: For `hf:` models, the branch, tag or commit of the hub's repository.
        layer: Where vectors are taken from: "avg_pool", "fc1" and "fc2" (VGG), "mean", "cls" or
            "pooler". "auto" and None stand for what the model's folder says, else "avg_pool" for
            images and "mean" for texts.
        role: "query" or "document", for models that have a prompt for each.
        prompt: Name of one of the model's prompts, or a text to put before every text. "" is no
            prompt.
        dimension: How many leading numbers of a text's vector to keep (Matryoshka). None keeps all.
        runtime: Library that runs the model, "tensorflow", "torch" or "openvino". "auto" chooses
            by model and device.
        precision: Number format of the model's computation, "float32", "bfloat16", "float16", or,
            on CPUs, "int8", calibrated on rows of `df`.
            The vectors are float32 whatever it is.
        batch_size: Rows of a batch, on average where lengths differ. "auto" goes by the device.
        normalize: Whether to scale each vector to length 1.
        max_pixels: Pixels of the largest image. A larger one fails without being decoded.
        max_bytes: Bytes of the largest image or text. A larger one fails.
        min_cosine: With precision "int8", the least cosine that a held-out row's vector may have
            with its vector at float32.

    Returns:
        One row for each row of `df`: the id, `embedding` array<float> of the model's dimension,
        `status` ("ok" or "error"), and `error` (null, or a short reason). With `chunk` and no
        `pool`, one row for each window, with `chunk` int (from 0), `start` and `end` int
        (characters of the text) after the id; a row without text is one window without start and
        end.

    Raises:
        InvalidInput: A column or the model cannot be used.
        InvalidConfig: An option has no such value, or does not go with another one.
        DeviceMissing: Spark assigns GPUs to tasks, and there is none.

    Example:
        >>> rows = [(1, "a cat"), (2, "a dog"), (3, None)]
        >>> texts = spark.createDataFrame(rows, "id int, text string")
        >>> embedded = ember.embed(texts, bert, id="id", content="text", modality="text")
        >>> embedded.write.parquet(f"{folder}/embedded")
        >>> written = spark.read.parquet(f"{folder}/embedded")
        >>> written.columns
        ['id', 'embedding', 'status', 'error']
        >>> written.groupBy("status", "error").count().orderBy("count").show()
        +------+------------+-----+
        |status|       error|count|
        +------+------------+-----+
        | error|null content|    1|
        |    ok|        NULL|    2|
        +------+------------+-----+
        <BLANKLINE>
    """
    keywords = locals()  # by the names that the settings have
    config = chosen(ModelConfig, keywords, "embed", name=model)
    limits = chosen(VectorLimitsConfig, keywords, "embed")
    chunking = None
    if chunk is not None:
        chunking = _chunking(parse(ChunkConfig, dict(chunk), "embed", "chunk."), modality)
    corpus = tables.select_corpus(
        df, id, content, modality, *_columns(chunking), content_is=content_is, root=root
    )
    return _work(corpus, config, modality, limits, chunking).frame()


def plan(spark: SparkSession, config: EmbedConfig) -> ModelWork:
    """The work of the job, checked and with the model at hand. Raises as `embed` does."""
    modality = config.input.modality
    chunking = _chunking(config.chunk, modality)
    corpus = tables.read_corpus(spark, config.input, *_columns(chunking))
    return _work(corpus, config.model, modality, config.limits, chunking)


def _work(
    corpus: Corpus,
    config: ModelConfig,
    modality: Modality,
    limits: LimitsConfig,
    chunking: Chunking | None,
) -> ModelWork:
    spark = corpus.rows.sparkSession
    spec = checked_model(spark, config, modality, limits, sample=Sample(corpus.rows, corpus.paths))
    return ModelWork(
        job="embed",
        rows=corpus.rows,
        paths=corpus.paths,
        spec=spec,
        result=Embedding(spec.normalize or task.normalizes_means(spec, chunking)),
        depends={"chunk": _said(chunking)},
        rows_per_task=limits.rows_per_task,
        chunking=chunking,
    )


def _chunking(config: ChunkConfig | None, modality: Modality) -> Chunking | None:
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


def _columns(chunking: Chunking | None) -> tuple[str, ...]:
    """The output's columns whose names no id may have, besides status and error."""
    numbered = chunking is not None and chunking.pool is None
    return ("embedding", *CHUNK_COLUMNS) if numbered else ("embedding",)


def _said(chunking: Chunking | None) -> str | None:
    """Chunking as an identity has it."""
    if chunking is None:
        return None
    pooled = f", {chunking.pool} of them" if chunking.pool else ""
    return f"{chunking.tokens} tokens, overlap {chunking.overlap}{pooled}"
