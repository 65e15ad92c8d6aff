"""Describing a DataFrame: texts that a model writes from prompts, from images, or from both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.embedding import prompts
from ember.embedding.model_work import ModelWork, checked_model
from ember.embedding.options import BatchSize, chosen
from ember.errors import InvalidConfig
from ember.settings.config import parse
from ember.settings.description import DescribeConfig, GenerationConfig, PromptConfig, WriterConfig
from ember.settings.embedding import ModelConfig
from ember.settings.limits import LimitsConfig
from ember.settings.tables import ContentIs
from ember.spark import origins, read_batches, tables
from ember.worker.models.generation import Description
from ember.worker.row_paths import PathRules
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Generation, Modality, ModelSpec, Precision, Sampling

__all__ = ["describe", "plan"]


def describe(
    df: DataFrame,
    model: str,
    *,
    id: str,
    content: str | None = None,
    modality: Modality = "text",
    prompt: str | None = None,
    columns: Mapping[str, str] | None = None,
    top: int = 1,
    separator: str = ", ",
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    revision: str | None = None,
    precision: Precision = "float32",
    batch_size: BatchSize = "auto",
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    stop: Sequence[str] = (),
    sampling: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> DataFrame:
    """Have a model write a text for every row of a DataFrame.

    The result is lazy, and a row that cannot be described stays, with a null text and the reason;
    write the result, and count as `ember.embed` says.

    Args:
        df: A column of ids, and what the model is to go on from.
        model: `hf:ID` for a model of the Hugging Face hub or a folder: a causal language model
            for texts, a VisionEncoderDecoderModel or an image-text-to-text model for images.
        id: Column that names each row, of any atomic type. Name and type are kept.
        content: Column of the content: images as for `ember.embed`, or prompts (string, or binary
            in UTF-8). None stands for "content". With `prompt`, texts have no content.
        modality: What the content is, "image" or "text".
        prompt: Template such as "A photo of {label}:", whose names are columns of `df`. A column
            of lists, such as predictions, stands for its first values or labels.
        columns: Columns of `df` by the names that the template has for them, where these differ.
        top: How many values of a list a prompt takes.
        separator: What stands between them.
        content_is: What an image column holds, "bytes" or "paths", as for `ember.embed`.
        root: With paths, the folder or folders under which files may be read.
        revision: Branch, tag or commit of the hub's repository.
        precision: Number format of the model's computation, "float32", "bfloat16" or "float16".
            With 16 bits a text may depend on its batch.
        batch_size: Rows of an average batch. "auto" goes by the device.
        max_new_tokens: Tokens of the longest text. A prompt that leaves no room for them loses its
            beginning.
        min_new_tokens: Tokens of the shortest text.
        stop: Strings that end a text, and are not part of it.
        sampling: Draws tokens at random: `temperature` (1.0), `top_k` (50), `top_p` (1.0), `seed`
            (0). A row's text depends on the seed and its id. None takes the best token each time.
        max_pixels: Pixels of the largest image. A larger one fails without being decoded.
        max_bytes: Bytes of the largest image or prompt. A larger one fails.

    Returns:
        One row for each row of `df`: the id, `description` string (what the model wrote, without
        the prompt), `status` ("ok" or "error"), and `error` (null, or a short reason).

    Raises:
        InvalidInput: A column or the model cannot be used.
        InvalidConfig: An option has no such value, or does not go with another one.
        DeviceMissing: Spark assigns GPUs to tasks, and there is none.

    Example:
        >>> animals = spark.createDataFrame([(1, "cat"), (2, None)], "id int, animal string")
        >>> told = ember.describe(animals, gpt2, id="id", prompt="The {animal}", max_new_tokens=4)
        >>> told.select("id", "status", "error").orderBy("id").show(truncate=False)
        +---+------+-----------------------+
        |id |status|error                  |
        +---+------+-----------------------+
        |1  |ok    |NULL                   |
        |2  |error |missing value: {animal}|
        +---+------+-----------------------+
        <BLANKLINE>
    """
    keywords = locals()  # by the names that the settings have
    writer = chosen(WriterConfig, keywords, "describe", name=model)
    how = chosen(GenerationConfig, keywords, "describe")
    limits = chosen(LimitsConfig, keywords, "describe")
    template = None
    if prompt is not None or columns:
        given: dict[str, Any] = {"template": prompt or "", "columns": dict(columns or {})}
        given |= {"top": top, "separator": separator}
        template = parse(PromptConfig, given, "describe")
    select = partial(tables.select_corpus, content_is=content_is, root=root)
    rows, paths = _rows(df, id, content, modality, template, select=select)
    spec = _model(df.sparkSession, writer, modality, how, limits)
    return _work(rows, paths, spec, template).frame()


def plan(spark: SparkSession, config: DescribeConfig) -> ModelWork:
    """The work of the job, checked and with the model at hand. Raises as `describe` does."""
    given = config.input
    content = given.content if "content" in given.model_fields_set else None
    table = tables.read_table(spark, given)
    select = tables.corpus_selector(spark, given)
    rows, paths = _rows(table, given.id, content, given.modality, config.prompt, select=select)
    read_batches.fit(rows)
    if given.unique_ids:
        tables.check_unique(rows, rows.columns[0])
    joined = sorted(set(origins.state(rows)) - set(origins.state(table)))
    spec = _model(spark, config.model, given.modality, config.generation, config.limits)
    work = _work(rows, paths, spec, config.prompt, joined)
    return replace(work, rows_per_task=config.limits.rows_per_task)


def _rows(
    table: DataFrame,
    id: str,
    content: str | None,
    modality: Modality,
    prompt: PromptConfig | None,
    *,
    select: Callable[..., tables.Corpus],
) -> tuple[DataFrame, PathRules | None]:
    """Rows (id, content, prompt, problem), and where the files may be that the content names.

    Of texts the prompt is the content. select: makes the corpus, as `tables.select_corpus` does.
    """
    if modality == "text" and prompt is not None and content is not None:
        raise InvalidConfig(
            "prompt.template and input.content are given, and a text has one prompt; leave out "
            f"content, and write {{{content}}} in the template where it belongs"
        )
    given = content or "content"
    names = (table.select(tables.column(table, id)).columns[0], "_content", "_prompt", "_problem")
    tables.check_result_name(table, *names)
    if modality == "text" and prompt is not None:
        filled = prompts.fill(table, id, prompt).select("id", "prompt", "content", "problem")
        rows = filled.toDF(*names)
        tables.select_corpus(rows, names[0], names[1], "text", "description")  # checks the id
        return rows, None
    corpus = select(table, id, given, modality, "description")
    if prompt is not None:
        return prompts.fill(table, id, prompt, given).toDF(*names), corpus.paths
    nothing = F.lit(None).cast("string")
    rows = corpus.rows.toDF("id", "content").select("*", nothing.alias("a"), nothing.alias("b"))
    return rows.toDF(*names), corpus.paths


def _model(
    spark: SparkSession,
    writer: WriterConfig,
    modality: Modality,
    how: GenerationConfig,
    limits: LimitsConfig,
) -> ModelSpec:
    config = ModelConfig(**writer.model_dump())
    generation = _generation(how)
    return checked_model(spark, config, modality, limits, task="generate", generation=generation)


def _work(
    rows: DataFrame,
    paths: PathRules | None,
    spec: ModelSpec,
    prompt: PromptConfig | None,
    joined: Sequence[str] = (),
) -> ModelWork:
    """joined: the state of the tables that the prompts are filled from, besides the input's own."""
    said = prompt.model_dump_json() if prompt else "content"
    if joined:
        said += origins.fingerprint(rows.sparkSession, joined)
    depends = {"prompt": hashlib.sha256(said.encode()).hexdigest()}
    return ModelWork("describe", rows, paths, spec, Description(), depends)


def _generation(how: GenerationConfig) -> Generation:
    if how.min_new_tokens > how.max_new_tokens:
        raise InvalidConfig(
            f"generation.min_new_tokens is {how.min_new_tokens}, over max_new_tokens = "
            f"{how.max_new_tokens}"
        )
    sampling = None
    if how.sampling is not None:
        drawn = how.sampling
        top_p = None if drawn.top_p == 1 else drawn.top_p
        sampling = Sampling(drawn.temperature, drawn.top_k, top_p, drawn.seed)
    return Generation(how.max_new_tokens, how.min_new_tokens, tuple(how.stop), sampling)
