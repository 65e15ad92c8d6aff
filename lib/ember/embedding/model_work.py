"""A model run on rows: what embed, classify and describe share once they know the model."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.embedding import row_work
from ember.embedding.row_work import Body
from ember.errors import InvalidConfig, RequirementNotMet
from ember.settings.embedding import ModelConfig
from ember.settings.limits import LimitsConfig, VectorLimitsConfig
from ember.spark import gpu, models, read_batches, tables, tasks
from ember.spark.accounting import Reports
from ember.spark.models import ModelFiles
from ember.spark.publish import Output
from ember.spark.samples import Sample
from ember.worker import task
from ember.worker.models.chunks import CHUNK_COLUMNS, Chunking
from ember.worker.results import Result
from ember.worker.row_paths import PathRules
from ember.worker.spec import Generation, Modality, ModelSpec, Task
from ember.worker.stats import TaskStats, WorkerRecord

__all__ = ["ModelWork", "checked_model"]

_log = logging.getLogger(__name__)
# So many times as fast as float32, or more, 8 bits have to be to be worth what they cost.
_WORTH = 1.1


@dataclass(frozen=True)
class ModelWork:
    """Rows, the model to run on them, and what its output becomes. See `row_work.RowWork`.

    job: "embed", "classify" or "describe".
    rows: (id, content), or for a model that writes texts (id, content, prompt, problem); see
        `ember.worker.models.generation`.
    paths: where the files may be that the content names; None where the content is the bytes.
    depends: what the output depends on besides settings, ids and model.
    facts: for the manifest, besides the model.
    chunking: how texts are cut; None: they are not.
    """

    job: str
    rows: DataFrame
    paths: PathRules | None
    spec: ModelSpec
    result: Result
    depends: Mapping[str, str | None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows_per_task: int | Literal["auto"] = "auto"
    chunking: Chunking | None = None

    @property
    def id(self) -> str:
        return str(self.rows.columns[0])

    @property
    def part(self) -> str | None:
        return CHUNK_COLUMNS[0] if self.chunking and not self.chunking.pool else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The output's columns after the id."""
        return (*(CHUNK_COLUMNS if self.part else ()), self.result.name, "status", "error")

    @property
    def identity(self) -> dict[str, str | None]:
        key = f"{self.id} {self.rows.schema[0].dataType.simpleString()}"
        return {"job": self.job, "id": key, "model": self.spec.fingerprint, **self.depends}

    def try_out(self) -> str:
        device = tasks.try_model(self.rows.sparkSession, self.spec, self.paths, self.chunking)
        return f"configuration, input and {self.spec.name} on {device} are fine"

    def spread(self, rows: DataFrame, total: int | None = None) -> tuple[DataFrame, int]:
        spec = self.spec
        return row_work.spread(rows, spec.modality, self.rows_per_task, spec.task, total)

    def run(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        if self.spec.task == "generate":  # random numbers come from the id
            key = tables.column(rows, self.id)
            rows = rows.select("*", F.xxhash64(key).alias("_ember_key"))
        files = models.distribute(rows.sparkSession, self.spec)
        body = _body(files, self.result, self.paths, self.chunking)
        return row_work.map_rows(rows, body, self.columns, reports)

    def frame(self) -> DataFrame:
        """The output for all rows, lazily, in a session that is the user's."""
        read_batches.advise(self.rows)
        return self.run(self.rows)

    def describe(self, output: Output) -> dict[str, Any]:
        told = {"model": self.spec.describe(), **self.facts}
        if self.spec.calibration:
            told["model"]["drift"] = models.drift(self.spec)
        if self.result.name == "embedding":
            told["dimension"] = output.vector_length()
        return told


def checked_model(
    spark: SparkSession,
    config: ModelConfig,
    modality: Modality,
    limits: LimitsConfig,
    *,
    task: Task = "embed",
    generation: Generation | None = None,
    sample: Sample | None = None,
) -> ModelSpec:
    """The model that `config` names, as this session's Spark tasks will run it.

    task, generation, sample: see `models.resolve`.

    Raises DeviceMissing when a GPU was asked for and is not there, InvalidConfig and InvalidInput
    as `gpu.check` and `models.resolve` do, and RequirementNotMet below `limits.min_cosine`.
    """
    gpu.check(spark)
    min_cosine = limits.min_cosine if isinstance(limits, VectorLimitsConfig) else None
    if min_cosine is not None and config.precision != "int8":
        raise InvalidConfig("limits.min_cosine is for model.precision int8; leave it out")
    spec = models.resolve(
        config,
        modality,
        limits.max_pixels,
        max_bytes=limits.max_bytes,
        gpu=gpu.scheduled(spark),
        task=task,
        generation=generation,
        sample=sample,
    )
    if spec.calibration:
        _check_drift(spec, min_cosine)
    return spec


def _check_drift(spec: ModelSpec, min_cosine: float | None) -> None:
    """Say how far vectors at 8 bits are from those at float32.

    Raises RequirementNotMet where one of the held-out rows is farther than it may be.
    """
    drift = models.drift(spec)
    cosine, speed = drift["cosine"], drift["times_as_fast"]
    _log.info(
        "int8: on %d held-out rows cosine %.4f on average, %.4f at least, with float32; %.1f times "
        "as fast",
        *(drift["rows"], cosine["mean"]["value"], cosine["least"], speed),
    )
    if speed < _WORTH:
        _log.warning("int8 is %.2f times as fast as float32 on this machine: no gain", speed)
    if min_cosine is not None and cosine["least"] < min_cosine:
        raise RequirementNotMet(
            f"a row's vector by {spec.name} at 8 bits has cosine {cosine['least']} with the one at "
            f"float32, below limits.min_cosine = {min_cosine:g}; nothing was written"
        )


def _body(
    files: ModelFiles, result: Result, paths: PathRules | None, chunking: Chunking | None
) -> Body:
    """What a worker does. Pickled by value, so that workers import nothing of the driver side."""

    def run(
        batches: Iterable[pa.RecordBatch], stats: TaskStats
    ) -> Generator[pa.RecordBatch, None, WorkerRecord]:
        address, threads = tasks.task_resources()
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
        return task.record(spec, paths=paths)

    return run
