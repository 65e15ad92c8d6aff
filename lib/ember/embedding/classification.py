"""Labeling a DataFrame: by the model's own classes, or by a head on its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pyspark.sql import DataFrame, SparkSession

from ember.embedding import labels as names
from ember.embedding.model_work import ModelWork, checked_model
from ember.embedding.options import BatchSize, chosen
from ember.embedding.row_work import RowWork
from ember.embedding.table_classifier import TableClassifier, described, digest
from ember.errors import InvalidConfig, InvalidInput
from ember.settings.embedding import Layer, ModelConfig, Role, Runtime
from ember.settings.limits import LimitsConfig, VectorLimitsConfig
from ember.settings.tables import ContentIs, EmbeddingsConfig, InputConfig
from ember.settings.training import ClassifyConfig, ClassifyOptions
from ember.spark import model_sources, tables
from ember.spark.heads import load_head
from ember.spark.samples import Sample
from ember.spark.tables import Corpus
from ember.worker.heads.head import Head
from ember.worker.results import Predictions
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Modality, ModelSpec, Precision, Task

__all__ = ["classify", "plan"]


def classify(
    df: DataFrame,
    model: str,
    *,
    id: str,
    content: str = "content",
    modality: Modality = "image",
    head: str | None = None,
    top_k: int = 3,
    threshold: float | Literal["model"] | None = None,
    labels: str | None = None,
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
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
    """Find the most likely labels of every row of a DataFrame of images or texts.

    The result is lazy, and a row that cannot be classified stays, with null predictions and the
    reason; write the result, and count as `ember.embed` says.

    Args:
        df: A column of ids and a column of content.
        model: `keras:NAME` or `hf:ID`, as for `ember.embed`.
        id: Column that names each row, of any atomic type. Name and type are kept.
        content: Column of the content, as for `ember.embed`.
        modality: What the content is, "image" or "text".
        head: Folder that `train` wrote; its head is applied to the model's embeddings. None takes
            the classes that the model itself was trained for.
        top_k: How many labels to give each row, best first. There are fewer where the model has
            fewer.
        threshold: Leaves out labels that score less, from 0 to 1. "model" stands for each label's
            own threshold, of models that give several labels at once.
        labels: File with the names of the classes in place of those of the model or the head: a
            `.json` list or mapping, a `.csv` of index and name, or a name in each line.
        content_is: What an image column holds, "bytes" or "paths", as for `ember.embed`.
        root: With paths, the folder or folders under which files may be read.
        weights: For `keras:` models, "imagenet", "random", or a file that Keras saved.
        revision: For `hf:` models, the branch, tag or commit of the hub's repository.
        layer: Layer that the head's embeddings are of, as for `ember.embed`. This and the next
            three, and `normalize`, go with `head` only: as they were when it was trained.
        role: "query" or "document", for models that have a prompt for each.
        prompt: Name of one of the model's prompts, or a text to put before every text.
        dimension: How many leading numbers of a text's vector the head takes. None: all.
        runtime: Library that runs the model, "tensorflow", "torch", "openvino" or "auto".
        precision: Number format of the model's computation, "float32", "bfloat16", "float16", or,
            on CPUs, "int8", calibrated on rows of `df`.
        batch_size: Rows of a batch, on average where lengths differ. "auto" goes by the device.
        normalize: Whether to scale each vector to length 1.
        max_pixels: Pixels of the largest image. A larger one fails without being decoded.
        max_bytes: Bytes of the largest image or text. A larger one fails.
        min_cosine: With precision "int8", the least cosine that a held-out row's vector may have
            with its vector at float32.

    Returns:
        One row for each row of `df`: the id, `predictions` array<struct<index int, label string,
        score float>> best first (of equal scores the lower index first), `status` ("ok" or
        "error"), and `error` (null, or a short reason). Scores are probabilities: a softmax over
        the classes, or a sigmoid for each label where several may hold at once.

    Raises:
        InvalidInput: A column, the model, the head or the labels cannot be used.
        InvalidConfig: An option has no such value, or does not go with another one.
        DeviceMissing: Spark assigns GPUs to tasks, and there is none.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
        >>> images = spark.createDataFrame([(1, file.getvalue())], "id int, content binary")
        >>> labeled = ember.classify(images, resnet, id="id", top_k=2)
        >>> labeled.selectExpr("id", "size(predictions) AS labels", "status").show()
        +---+------+------+
        | id|labels|status|
        +---+------+------+
        |  1|     2|    ok|
        +---+------+------+
        <BLANKLINE>
    """
    keywords = locals()  # by the names that the settings have
    config = chosen(ModelConfig, keywords, "classify", name=model)
    limits = chosen(VectorLimitsConfig, keywords, "classify")
    options = chosen(ClassifyOptions, keywords, "classify")
    corpus = tables.select_corpus(
        df, id, content, modality, "predictions", content_is=content_is, root=root
    )
    return _work(corpus, config, modality, limits, options).frame()


def plan(spark: SparkSession, config: ClassifyConfig) -> RowWork:
    """The work of the job, checked and with the model at hand. Raises as `classify` does."""
    if config.features is not None:
        return _table_classifier(spark, config, config.features)
    given, wanted = _corpus_sections(config)
    corpus = tables.read_corpus(spark, given, "predictions")
    return _work(corpus, wanted, given.modality, config.limits, config)


def _table_classifier(
    spark: SparkSession, config: ClassifyConfig, features: list[EmbeddingsConfig]
) -> TableClassifier:
    if config.input or config.model:
        raise InvalidConfig("features are given, and input or model as well; give one or the other")
    if config.head is None:
        raise InvalidConfig("head is missing; features are classified by a head that train wrote")
    head = load_head(spark, config.head)
    return TableClassifier.read(spark, features, head, _of_head(head, config))


def _corpus_sections(config: ClassifyConfig) -> tuple[InputConfig, ModelConfig]:
    if config.input is None or config.model is None:
        lacking = "input" if config.input is None else "model"
        raise InvalidConfig(f"{lacking} is missing; give input and model, or features and head")
    return config.input, config.model


def _work(
    corpus: Corpus,
    config: ModelConfig,
    modality: Modality,
    limits: LimitsConfig,
    options: ClassifyOptions,
) -> ModelWork:
    spark = corpus.rows.sparkSession
    if options.head is None and (keys := config.about_embeddings):
        raise InvalidConfig(
            f"model.{keys[0]} is about embeddings, and without `head` the model's own classes are "
            "taken; leave it out or give head"
        )
    head = load_head(spark, options.head) if options.head else None
    if head and len(head.parts) > 1:
        raise InvalidConfig(
            f"the head in {options.head} was trained on {len(head.parts)} tables of embeddings; "
            "give these under `features` in place of input and model"
        )
    task: Task = "embed" if head else "classify"
    spec = checked_model(
        spark, config, modality, limits, task=task, sample=Sample(corpus.rows, corpus.paths)
    )
    if head:
        predictions = _of_head(head, options, normalize=config.normalize)
    else:
        predictions = _of_classes(spec, config.weights, options)
    return ModelWork(
        job="classify",
        rows=corpus.rows,
        paths=corpus.paths,
        spec=spec,
        result=predictions,
        depends={"predictions": digest(predictions)},
        facts=described(predictions),
        rows_per_task=limits.rows_per_task,
    )


def _of_classes(spec: ModelSpec, weights: str, options: ClassifyOptions) -> Predictions:
    """What the scores of the model's own classes become."""
    at = str(model_sources.keras_file(weights)) if spec.family == "keras" else spec.path
    given = names.own_labels(spec, at, options.labels)
    own = (0.5,) * len(given) if names.is_multilabel(spec, at) else None
    return Predictions(given, options.top_k, _thresholds(options, len(given), own))


def _of_head(head: Head, options: ClassifyOptions, *, normalize: bool = False) -> Predictions:
    """What a head makes of embeddings.

    Raises InvalidInput for a head that gives no labels, and for another number of names.
    """
    if head.kind == "similarity":
        raise InvalidInput(
            "the head is a learned metric without labels; give one trained as logistic, svm or mlp"
        )
    given = names.read_labels(options.labels) if options.labels else head.labels
    if len(given) != len(head.labels):
        raise InvalidInput(
            f"labels: {options.labels} names {len(given)} classes and the head has "
            f"{len(head.labels)}"
        )
    own = tuple(map(float, head.thresholds)) if head.multilabel else None
    cuts = _thresholds(options, len(given), own)
    return Predictions(given, options.top_k, cuts, head, normalize)


def _thresholds(
    options: ClassifyOptions, count: int, own: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    """The least score of each label; None where all scores will do."""
    if options.threshold == "model":
        if own is None:
            raise InvalidConfig(
                "threshold: model is for models that give several labels at once, and this one "
                "gives one; leave it out, or give a number"
            )
        return own
    return None if options.threshold is None else (float(options.threshold),) * count
