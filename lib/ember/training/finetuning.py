"""Fine-tuning a backbone on a labeled corpus: rows checked by all tasks, trained on by a few."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from ember.errors import EmberError, InvalidConfig, InvalidInput
from ember.settings.training import FinetuneConfig
from ember.spark import classic, gpu, models, origins, tables
from ember.spark.ids import check_can_be_equal
from ember.spark.models import ModelFiles
from ember.spark.paths import literal
from ember.spark.session import is_local
from ember.spark.tables import Corpus
from ember.spark.tasks import task_resources, try_model
from ember.training import training_table
from ember.training.finetune_rows import (
    classes_of,
    count_unlabeled,
    labeled_rows,
    refuse_failures,
    row_checker,
)
from ember.training.model_output import ModelOutput
from ember.training.split import check_split
from ember.worker.finetune.augment import Augmentation
from ember.worker.finetune.learner import Tuning
from ember.worker.finetune.process import ROWS, TrainingJob, tune, tune_together
from ember.worker.finetune.rows import SCHEMA
from ember.worker.spec import ModelSpec

__all__ = ["Finetuning", "check_settings", "plan", "plan_tables", "summary", "tuning_of"]

_log = logging.getLogger(__name__)
_BATCH = {"image": 32, "text": 32}
_FULL_RATE = {"image": 1e-4, "text": 3e-5}
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Finetuning:
    """A labeled corpus and the model to be trained on it.

    labels: (id, label, part or null, group or null), see `examples.select_labels`.
    """

    corpus: Corpus
    labels: DataFrame
    spec: ModelSpec
    config: FinetuneConfig

    @property
    def identity(self) -> dict[str, str]:
        """What the model depends on beside the settings; see `ember.spark.identity`."""
        state = origins.state(self.corpus.rows, self.labels)
        return {
            "job": "finetune",
            "id": f"{self.corpus.id} {self.corpus.id_type.simpleString()}",
            "model": self.spec.fingerprint,
            "input": origins.fingerprint(self.corpus.rows.sparkSession, state),
        }

    def try_out(self) -> str:
        """Load the backbone in a task; the device. Raises what loading raises."""
        return try_model(self.corpus.rows.sparkSession, self.spec, self.corpus.paths)

    def stage_rows(self, model: ModelOutput) -> dict[str, Any]:
        """Join, split, check and stage the rows; their classes and counts.

        Rows that a killed run had staged are taken as they are.
        Raises InvalidInput when there is nothing to learn, and TooManyFailures.
        """
        if told := model.rows_staged:
            return dict(told)
        config = self.config
        joined = labeled_rows(self.corpus, self.labels, config.split)
        names, counts = classes_of(joined, self.labels, config.labels.min_rows)
        counts["unlabeled"] = count_unlabeled(self.corpus, self.labels)
        checker = row_checker(
            names,
            self.spec.modality,
            config.limits.max_pixels,
            config.limits.max_bytes,
            self.corpus.paths,
        )
        staged = joined.filter(F.col("label").isin(names))
        folder = f"{model.work}/{ROWS}"
        staged.mapInArrow(checker, from_arrow_schema(SCHEMA)).write.mode("overwrite").parquet(
            folder
        )
        written = joined.sparkSession.read.parquet(literal(folder))
        counts |= refuse_failures(
            written, model.output.keep_failures, config.limits.max_failed_fraction
        )
        told = {"labels": names, "counts": counts}
        model.keep_rows(told)
        return told

    def train(self, model: ModelOutput, names: list[str]) -> dict[str, Any]:
        """Train on the staged rows, in one task or in several processes; see `Trainer.run`.

        One process is a Spark task like any other. TorchDistributor, which several need to find
        one another, would start an interpreter of its own under torchrun: that takes as long as
        a small training, and of an error it passes on that there was one.
        """
        spark = self.corpus.rows.sparkSession
        files = models.distribute(spark, self.spec)
        tuning = tuning_of(self.config, names)
        make = partial(TrainingJob, tuning=tuning, folder=model.work)
        with _epochs_logged(model):
            if self.config.processes == 1:
                return _alone(spark, files, make)
            return _together(spark, files, make, self.config.processes)


def plan(spark: SparkSession, config: FinetuneConfig) -> Finetuning:
    """What the job is to do, checked and with the model at hand.

    Raises InvalidConfig and InvalidInput as `plan_tables` does.
    """
    check_settings(config)
    corpus = tables.read_corpus(spark, config.input)
    return plan_tables(corpus, tables.read_table(spark, config.labels), config)


def plan_tables(corpus: Corpus, labeled: DataFrame, config: FinetuneConfig) -> Finetuning:
    """What is to be done with the tables that the configuration stands for.

    Raises InvalidInput for columns or a model that cannot be used.
    """
    spark, given = labeled.sparkSession, config.labels
    labels = training_table.select_labels(labeled, given.id, given.label, config.split)
    kind = labels.schema["label"].dataType
    if kind.simpleString().startswith("array"):
        raise InvalidInput(
            f"the label column {config.labels.label} is {kind.simpleString()}; finetune learns one "
            "label a row. For several, embed the corpus and train a head"
        )
    of_labels = labels.schema["id"].dataType
    check_can_be_equal(corpus.id_type, of_labels, "the ids of the corpus and of the labels")
    tables.check_unique(labels, "id")
    tables.check_unique(corpus.rows, corpus.id)
    gpu.check(spark)
    chosen = config.model
    if chosen.name.startswith("keras:"):
        chosen = chosen.model_copy(update={"runtime": "tensorflow"})
    limits = config.limits
    spec = models.resolve(
        chosen,
        config.input.modality,
        limits.max_pixels,
        max_bytes=limits.max_bytes,
        gpu=gpu.scheduled(spark),
        alone=True,
    )
    return Finetuning(corpus, labels, spec, config)


def check_settings(config: FinetuneConfig) -> None:
    """Raise InvalidConfig for settings that do not go together."""
    check_split(config.split)
    model = config.model
    keras = model.name.startswith("keras:")
    if model.about_embeddings:
        raise InvalidConfig(
            "model.layer and model.normalize are about embeddings, and so are role, prompt and "
            "dimension; finetune trains the model's own classes"
        )
    known = ("float32",) if keras else ("float32", "bfloat16")
    if model.precision not in known:
        raise InvalidConfig(
            f"model.precision {model.precision} is not one to train {model.name} in; use "
            f"{' or '.join(known)}"
        )
    if keras and model.runtime not in ("auto", "tensorflow"):
        raise InvalidConfig(f"model.runtime {model.runtime} does not train; use tensorflow")
    if keras and config.processes > 1:
        raise InvalidConfig("processes: Keras models are trained by one; set it to 1")
    if not config.epochs.head + config.epochs.full:
        raise InvalidConfig("epochs.head and epochs.full are both 0: there is nothing to do")


def tuning_of(config: FinetuneConfig, names: Iterable[str]) -> Tuning:
    """The recipe of a configuration, for the workers."""
    modality, size, full = config.input.modality, config.model.batch_size, config.learning_rate.full
    augment = config.augment if modality == "image" else None
    return Tuning(
        labels=tuple(names),
        epochs={"head": config.epochs.head, "full": config.epochs.full},
        rates={"head": config.learning_rate.head, "full": full or _FULL_RATE[modality]},
        batch_size=_BATCH[modality] if size == "auto" else size,
        unfreeze=None if config.unfreeze == "all" else config.unfreeze,
        batch_norm=config.batch_norm,
        augmentation=Augmentation(**augment.model_dump()) if augment else None,
        patience=config.patience,
        seed=config.seed,
    )


def _alone(
    spark: SparkSession, files: ModelFiles, make: Callable[..., TrainingJob]
) -> dict[str, Any]:
    threads = _threads(spark, 1)

    def run(_: Iterable[Any]) -> Iterator[dict[str, Any]]:
        address, _own = task_resources()
        yield tune(make(spec=files.on_worker(), threads=threads), address)

    (told,) = classic.run_in_task(spark, run)
    return told


def _together(
    spark: SparkSession, files: ModelFiles, make: Callable[..., TrainingJob], processes: int
) -> dict[str, Any]:
    from pyspark.ml.torch.distributor import TorchDistributor

    local = is_local(spark)
    threads = _threads(spark, processes)

    def run() -> dict[str, Any]:
        return tune_together(make(spec=files.on_worker(), threads=threads))

    distributor = TorchDistributor(
        num_processes=processes, local_mode=local, use_gpu=gpu.scheduled(spark)
    )
    told: dict[str, Any] | None = distributor.run(run)
    if told is None:
        raise EmberError("the processes ended without a result; look at the log of their tasks")
    return told


def _threads(spark: SparkSession, processes: int) -> int:
    """Of each process: what the machine has, where all run on it; else the cores of a task."""
    if is_local(spark):
        return max(1, classic.cores(spark) // processes)
    return int(classic.setting(spark, "spark.task.cpus", "1"))


@contextmanager
def _epochs_logged(model: ModelOutput) -> Iterator[None]:
    """Log each epoch as its checkpoint appears."""
    ended = Event()
    shown = len(model.history())
    if shown:
        _log.info("going on after epoch %d", shown)

    def log(since: int) -> int:
        for each in model.history()[since:]:
            _log.info("%s", _line(each))
            since += 1
        return since

    def watch() -> None:
        since = shown
        while not ended.wait(_POLL_SECONDS):
            since = log(since)
        log(since)

    thread = Thread(target=watch, name="ember-epochs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _line(epoch: dict[str, Any]) -> str:
    text = f"epoch {epoch['epoch']} ({epoch['stage']}): loss {epoch['loss']:.4f}, accuracy "
    text += f"{epoch['accuracy']:.4f}"
    if epoch["validation_loss"] is not None:
        text += f"; validation {epoch['validation_loss']:.4f}, {epoch['validation_accuracy']:.4f}"
    return f"{text}; {epoch['seconds']:.1f} s"


def summary(told: dict[str, Any]) -> str:
    """A run in a few words."""
    best = told["best"]
    words = f"{len(told['history'])} epochs ({told['resumed_epochs']} of them resumed)"
    for part, accuracy in (
        ("validation", best["validation_accuracy"]),
        ("test", told["test_accuracy"]),
    ):
        if accuracy is not None:
            words += f", {part} accuracy {accuracy:.4f}"
    return words
