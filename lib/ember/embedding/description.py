"""Describing a DataFrame: texts that a model writes from prompts, from images, or from both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from ember.embedding import embedding, prompts
from ember.errors import InvalidConfig
from ember.settings.config import parse
from ember.settings.description import DescribeConfig, GenerationConfig, PromptConfig, WriterConfig
from ember.settings.embedding import LimitsConfig, ModelConfig
from ember.spark import gpu, models, tables, tasks
from ember.spark.access import ContentIs
from ember.spark.accounting import Reports
from ember.spark.models import ModelFiles
from ember.spark.storage import Storage
from ember.worker import task
from ember.worker.garbage import spare_modules
from ember.worker.models.generation import Description, ask_slot
from ember.worker.row_paths import PathRules
from ember.worker.spec import Generation, Modality, ModelSpec, Sampling
from ember.worker.stats import TaskStats

__all__ = ["Work", "describe", "plan"]

# A text takes a model as long as some dozens of embeddings.
_ROWS_PER_TASK = 200
_GPU_FACTOR = 16


def describe(
    df: DataFrame,
    model: str,
    *,
    id: str,
    content: str | None = None,
    modality: Modality = "text",
    prompt: str | None = None,
    columns: Mapping[str, str] | None = None,
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    **options: Any,
) -> DataFrame:
    """Have a model write a text for every row of `df`.

    df: an id column of any atomic type, and what the model is to go on from: with modality "text"
        a column of prompts (string, or binary in UTF-8), or the columns that `prompt` names; with
        modality "image" a column of encoded image bytes (binary) or paths (string).
    model: `hf:<hub id or folder>`: a causal language model for texts; for images a
        VisionEncoderDecoderModel or another that AutoModelForImageTextToText makes.
    content: that column, by default "content".
    content_is, root: as for `ember.embed`.
    prompt: a template such as "A photo of {label}:" whose names are columns of `df`, or those that
        `columns` gives for them; a column of predictions stands for its best label.
    options: the other keys of the configuration's `model` and `generation` sections (precision,
        max_new_tokens, sampling={"seed": 1}, …), `max_pixels` and `max_bytes`.

    Returns one row for each row of `df`: the id, `description` string (what the model wrote, the
    prompt left out), `status` ("ok" or "error"), `error`. Lazy, as `ember.embed` is.

    Raises InvalidInput for columns or a model that cannot be used, InvalidConfig for options that
    do not exist or do not go together.
    """
    limits = embedding.take_limits(options, "describe")
    generation = {key: options.pop(key) for key in GenerationConfig.model_fields if key in options}
    writer = parse(WriterConfig, {"name": model, **options}, "describe")
    how = parse(GenerationConfig, generation, "describe")
    template = None
    if prompt is not None or columns:
        given = {"template": prompt or "", "columns": dict(columns or {})}
        template = parse(PromptConfig, given, "describe")
    select = partial(tables.select_corpus, content_is=content_is, root=root)
    rows, paths = _rows(df, id, content, modality, template, select=select)
    spark = df.sparkSession
    gpu.check(spark)
    spec = _resolve(spark, writer, modality, how, limits)
    return Work(rows, paths, spec, template).describe(rows)


def plan(spark: SparkSession, config: DescribeConfig) -> Work:
    """What the job is to do, checked and with the model at hand.

    Raises InvalidConfig and InvalidInput as `describe` does.
    """
    given = config.input
    content = given.content if "content" in given.model_fields_set else None
    table = tables.read_table(spark, given)
    rows, paths = _rows(
        table,
        given.id,
        content,
        given.modality,
        config.prompt,
        select=tables.corpus_selector(spark, given),
    )
    if given.unique_ids:
        tables.check_unique(rows, rows.columns[0])
    gpu.check(spark)
    limits = config.limits
    spec = _resolve(spark, config.model, given.modality, config.generation, limits)
    # Of the prompt's own tables.
    joined = sorted(set(tables.files(rows)) - set(tables.files(table)))
    return Work(rows, paths, spec, config.prompt, limits.rows_per_task, joined)


@dataclass(frozen=True)
class Work:
    """Rows (id, content, prompt, problem), see ember.worker.models.generation.Ask, and the model.

    joined: files of the tables that the prompts are filled from, beside the input's own.
    """

    rows: DataFrame
    paths: PathRules | None
    spec: ModelSpec
    prompt: PromptConfig | None
    rows_per_task: int | Literal["auto"] = "auto"
    joined: Sequence[str] = ()

    @property
    def id(self) -> str:
        """The name of the id column."""
        return str(self.rows.columns[0])

    @property
    def identity(self) -> dict[str, str]:
        """What the rows of the output depend on beside the settings; see `ember.spark.identity`."""
        kind = self.rows.schema[0].dataType.simpleString()
        said = self.prompt.model_dump_json() if self.prompt else "content"
        if self.joined:
            said += Storage(self.rows.sparkSession).fingerprint(self.joined)
        return {
            "job": "describe",
            "id": f"{self.id} {kind}",
            "model": self.spec.fingerprint,
            "prompt": hashlib.sha256(said.encode()).hexdigest(),
        }

    def try_out(self) -> str:
        """Load the model in a task; a sentence on it. Raises what loading raises."""
        device = tasks.try_model(self.rows.sparkSession, self.spec, self.paths)
        return f"configuration, input and {self.spec.name} on {device} are fine"

    def spread(self, rows: DataFrame) -> tuple[DataFrame, int]:
        """`rows` in partitions that keep all cores busy, and how many there are."""
        bound = self.rows_per_task
        if bound == "auto":
            on_gpu = gpu.scheduled(rows.sparkSession)
            bound = _ROWS_PER_TASK * (_GPU_FACTOR if on_gpu else 1)
        return embedding.spread(rows, self.spec.modality, bound)

    def describe(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        """Describe some of the rows; see `describe` for the result."""
        files = models.distribute(rows.sparkSession, self.spec)
        # Under plain names meanwhile: mapInArrow takes no column with a dot or a backtick.
        plain = rows.toDF("id", "content", "prompt", "problem")
        keyed = plain.withColumn("key", F.xxhash64("id"))
        schema = embedding.result_schema(rows, "description", StringType())
        done = keyed.mapInArrow(_runner(files, self.paths, reports), schema)
        return done.toDF(self.id, "description", "status", "error")


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


def _resolve(
    spark: SparkSession,
    writer: WriterConfig,
    modality: Modality,
    how: GenerationConfig,
    limits: LimitsConfig,
) -> ModelSpec:
    config = ModelConfig(**writer.model_dump())
    generation = _generation(how)
    return models.resolve(
        config,
        modality,
        limits.max_pixels,
        max_bytes=limits.max_bytes,
        gpu=gpu.scheduled(spark),
        task="generate",
        generation=generation,
    )


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


def _runner(
    files: ModelFiles, paths: PathRules | None, reports: Reports | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that Spark runs in a worker for each partition."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        address, threads = tasks.task_resources()
        stats = TaskStats()
        spec = files.on_worker()
        yield from task.run_batches(
            batches,
            spec,
            Description(),
            address=address,
            threads=threads,
            paths=paths,
            stats=stats,
            slot_of=partial(ask_slot, stats=stats),
        )
        context = TaskContext.get()
        if reports is not None and context is not None and stats.rows:
            reports.add(stats.report(context.partitionId(), task.record(spec, paths=paths)))
        spare_modules()

    return run
