"""Classifying a DataFrame: by a model's own classes, or by a head on its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pyspark.sql import DataFrame, SparkSession

from ember.embedding import embedding, labels
from ember.embedding.table_classifier import PREDICTIONS, TableClassifier, described, digest
from ember.errors import InvalidConfig, InvalidInput
from ember.settings.config import parse
from ember.settings.embedding import EmbeddingsConfig, InputConfig, LimitsConfig, ModelConfig
from ember.settings.training import ClassifyConfig
from ember.spark import gpu, models, tables, tasks
from ember.spark.access import ContentIs
from ember.spark.accounting import Reports
from ember.spark.heads import load_head
from ember.spark.tables import Corpus, select_corpus
from ember.worker.heads.head import Head
from ember.worker.results import Predictions
from ember.worker.spec import Modality, ModelSpec

__all__ = ["Classifier", "CorpusClassifier", "classify", "plan", "predictions"]

Threshold = float | Literal["model"] | None


def classify(
    df: DataFrame,
    model: str,
    *,
    id: str,
    content: str = "content",
    modality: Modality = "image",
    head: str | None = None,
    top_k: int = 3,
    threshold: Threshold = None,
    labels: str | None = None,
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    **options: Any,
) -> DataFrame:
    """The most likely labels of every row of `df`.

    df, id, content, modality, model, content_is, root, options: as for `ember.embed`; without
        `head`, `layer`, `normalize`, `role`, `prompt` and `dimension` have no place.
    head: a folder that `train` wrote, applied to the model's embedding; None: the classes that
        the model itself was trained for.
    top_k: so many labels for each row, best first; all of them where there are fewer.
    threshold: leaves out labels that score less; "model": each label's own threshold, where
        several labels may hold at once.
    labels: a file with the names of the classes (see ember.embedding.labels.read_labels) in
        place of those that come with the model or the head.

    Returns one row for each row of `df`: the id, `predictions` array<struct<index int, label
    string, score float>> best first (of equal scores the lower index), `status` ("ok" or
    "error"), `error`. Scores are probabilities: a softmax over the classes, or a sigmoid for each
    label where several may hold at once. Lazy, as `ember.embed` is.

    Raises InvalidInput for columns, a model, a head or labels that cannot be used, InvalidConfig
    for options that do not exist or do not go together.
    """
    limits = embedding.take_limits(options, "classify")
    config = parse(ModelConfig, {"name": model, **options}, "classify")
    corpus = select_corpus(
        df, id, content, modality, "predictions", content_is=content_is, root=root
    )
    gpu.check(df.sparkSession)
    spec, chosen = _resolve(
        df.sparkSession,
        config,
        modality,
        limits,
        head=head,
        names=labels,
        top_k=top_k,
        threshold=threshold,
    )
    return CorpusClassifier(corpus, spec, chosen).predict(corpus.rows)


class Classifier(Protocol):
    """What the job does: rows, and how they become predictions."""

    @property
    def rows(self) -> DataFrame:
        """All rows, the id first."""
        ...

    @property
    def id(self) -> str:
        """The name of the id column."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """What the rows of the output depend on beside the settings; see `ember.spark.identity`."""
        ...

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        ...

    def try_out(self) -> str:
        """Load what is to be loaded in a task; a sentence on it. Raises what loading raises."""
        ...

    def spread(self, rows: DataFrame) -> tuple[DataFrame, int]:
        """`rows` in partitions that keep all cores busy, and how many there are."""
        ...

    def predict(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        """Classify some of the rows; see `classify` for the result."""
        ...


def plan(spark: SparkSession, config: ClassifyConfig) -> Classifier:
    """What the job is to do, checked and with the model at hand.

    Raises InvalidConfig and InvalidInput as `classify` does.
    """
    if config.features is not None:
        return _table_classifier(spark, config, config.features)
    given, wanted = _corpus_sections(config)
    corpus = tables.read_corpus(spark, given, "predictions")
    gpu.check(spark)
    spec, chosen = _resolve(
        spark,
        wanted,
        given.modality,
        config.limits,
        head=config.head,
        names=config.labels,
        top_k=config.top_k,
        threshold=config.threshold,
    )
    return CorpusClassifier(corpus, spec, chosen, config.limits.rows_per_task)


def _table_classifier(
    spark: SparkSession, config: ClassifyConfig, features: list[EmbeddingsConfig]
) -> TableClassifier:
    if config.input or config.model:
        raise InvalidConfig("features are given, and input or model as well; give one or the other")
    if config.head is None:
        raise InvalidConfig("head is missing; features are classified by a head that train wrote")
    head = load_head(spark, config.head)
    chosen = predictions(head, config.labels, config.top_k, config.threshold)
    return TableClassifier.read(spark, features, head, chosen)


def _corpus_sections(config: ClassifyConfig) -> tuple[InputConfig, ModelConfig]:
    if config.input is None or config.model is None:
        lacking = "input" if config.input is None else "model"
        raise InvalidConfig(f"{lacking} is missing; give input and model, or features and head")
    return config.input, config.model


@dataclass(frozen=True)
class CorpusClassifier:
    """A corpus, the model to run on it, and what is made of the model's output."""

    corpus: Corpus
    spec: ModelSpec
    predictions: Predictions
    rows_per_task: int | Literal["auto"] = "auto"

    @property
    def rows(self) -> DataFrame:
        return self.corpus.rows

    @property
    def id(self) -> str:
        return self.corpus.id

    @property
    def identity(self) -> dict[str, str]:
        key = f"{self.id} {self.corpus.id_type.simpleString()}"
        made = digest(self.predictions)
        return {"job": "classify", "id": key, "model": self.spec.fingerprint, "predictions": made}

    def describe(self) -> dict[str, Any]:
        return {"model": self.spec.describe(), **described(self.predictions)}

    def try_out(self) -> str:
        device = tasks.try_model(self.rows.sparkSession, self.spec, self.corpus.paths)
        return f"configuration, input and {self.spec.name} on {device} are fine"

    def spread(self, rows: DataFrame) -> tuple[DataFrame, int]:
        return embedding.spread(rows, self.spec.modality, self.rows_per_task)

    def predict(self, rows: DataFrame, reports: Reports | None = None) -> DataFrame:
        return embedding.run_model(
            rows, self.corpus.paths, self.spec, self.predictions, PREDICTIONS, reports=reports
        )


def _resolve(
    spark: SparkSession,
    config: ModelConfig,
    modality: Modality,
    limits: LimitsConfig,
    *,
    head: str | None,
    names: str | None,
    top_k: int,
    threshold: Threshold,
) -> tuple[ModelSpec, Predictions]:
    if head is None and (keys := config.about_embeddings):
        raise InvalidConfig(
            f"model.{keys[0]} is about embeddings, and without `head` the model's own classes are "
            "taken; leave it out or give head"
        )
    loaded = load_head(spark, head) if head else None
    if loaded and len(loaded.parts) > 1:
        raise InvalidConfig(
            f"the head in {head} was trained on {len(loaded.parts)} tables of embeddings; give "
            "these under `features` in place of input and model"
        )
    spec = models.resolve(
        config,
        modality,
        limits.max_pixels,
        max_bytes=limits.max_bytes,
        gpu=gpu.scheduled(spark),
        task="embed" if loaded else "classify",
    )
    if loaded:
        return spec, predictions(loaded, names, top_k, threshold, normalize=config.normalize)
    at = str(models.keras_file(config.weights)) if spec.family == "keras" else spec.path
    given = labels.own_labels(spec, at, names)
    own = (0.5,) * len(given) if labels.is_multilabel(spec, at) else None
    return spec, Predictions(given, top_k, _thresholds(threshold, len(given), own))


def predictions(
    head: Head,
    names: str | None,
    top_k: int,
    threshold: Threshold,
    *,
    normalize: bool = False,
) -> Predictions:
    """What is made of embeddings by a head. names: a file of labels in place of the head's.

    Raises InvalidInput for a head that gives no labels, and for another number of names.
    """
    if head.kind == "similarity":
        raise InvalidInput(
            "the head is a learned metric without labels; give one trained as logistic, svm or mlp"
        )
    given = labels.read_labels(names) if names else head.labels
    if len(given) != len(head.labels):
        raise InvalidInput(
            f"labels: {names} names {len(given)} classes and the head has {len(head.labels)}"
        )
    own = tuple(map(float, head.thresholds)) if head.multilabel else None
    cuts = _thresholds(threshold, len(given), own)
    return Predictions(given, top_k, cuts, head, normalize)


def _thresholds(
    threshold: Threshold, count: int, own: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    if threshold == "model":
        if own is None:
            raise InvalidConfig(
                "threshold: model is for models that give several labels at once, and this one "
                "gives one; leave it out, or give a number"
            )
        return own
    return None if threshold is None else (float(threshold),) * count
