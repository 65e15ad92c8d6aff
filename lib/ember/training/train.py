"""`ember.train`: a head from DataFrames, without a table that is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pyspark.sql import DataFrame

from ember.settings.config import parse
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.settings.training import TrainOptions
from ember.spark.tables import select_embeddings
from ember.training.split import SHARES, Split, split_settings
from ember.training.training import check_options, fit_examples, refuse
from ember.training.training_table import gather, select_labels
from ember.worker.heads.head import Head

__all__ = ["train"]


def train(
    features: DataFrame | Sequence[DataFrame],
    labels: DataFrame,
    *,
    id: str = "id",
    embedding: str = "embedding",
    label: str = "label",
    min_rows: int = 1,
    head: Literal["logistic", "svm", "mlp", "similarity"] = "logistic",
    scaling: Literal["table", "feature"] = "table",
    table_weights: Literal["equal", "cross_validation"] | Sequence[float] = "equal",
    penalty: float | Literal["cross_validation"] = 1.0,
    folds: int = 5,
    class_weights: Literal["none", "balanced"] = "none",
    threshold: float | Literal["auto"] = 0.5,
    hidden: Sequence[int] = (128,),
    dimension: int = 128,
    iterations: int | None = None,
    split: Split = SHARES,
    seed: int = 0,
    group: str | None = None,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    worker_megabytes: float = 512,
) -> Head:
    """Train a head on the rows that features and labels share.

    Features up to `worker_megabytes` are trained on by one task, more by the cluster. The head is
    calibrated on the validation part, and judged on it and on the test part. The same rows give the
    same head, whatever the partitions.

    Args:
        features: one table of an id and a column array<float> or array<double>, or several, which
            are joined by id and concatenated; a row that lacks some of them counts as average
            there.
        labels: the same id, and a label, or a list of them for a multi-label head.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        label: the name of the column of the labels.
        min_rows: leave out labels that fewer rows than this have.
        head: logistic regression, a linear SVM, a small network (mlp), or a metric (similarity),
            which projects and gives no labels.
        scaling: whether features are scaled by table or one by one; they are centered first.
        table_weights: what the features of each table count for; cross_validation: halved for
            tables that tell less.
        penalty: on squared weights, 1/C in scikit-learn; cross_validation: the largest that does
            about as well as the best.
        folds: of the cross-validation.
        class_weights: whether rare labels count for more (balanced).
        threshold: for several labels a row, the score from which one holds; auto: by micro-F1 on
            the validation part.
        hidden: for mlp, the sizes of the hidden layers.
        dimension: for similarity, that of the projected vectors.
        iterations: steps of L-BFGS for mlp (None: 200), passes over the rows for similarity (None:
            100).
        split: shares of the rows to train, validate and test on, chosen by a hash of the id; or the
            column of the labels that says train, validation or test.
        seed: of that hash, and of what else is random.
        group: a column of the labels; rows of one group go to one part.
        max_failed_fraction: share of labeled rows that may be unusable: a null label, a vector of
            another length or with values that are not finite.
        worker_megabytes: features, as float32, that one worker trains on.

    Returns:
        A calibrated head: `scores(matrix)` takes (n, d) and gives (n, c) float32, `save(folder)`
        keeps it for `classify`, `about` says how it did on held-out rows and what was left out.

    Raises:
        InvalidInput: tables that do not go together, repeated ids, fewer than two labels.
        InvalidConfig: options that cannot be, or not together.
        TooManyFailures: more labeled rows than `max_failed_fraction` cannot be used.

    Example:
        >>> points = [(n, [float(n % 2), float(n)]) for n in range(100)]
        >>> features = spark.createDataFrame(points, "id int, embedding array<float>")
        >>> odd = [(n, "odd" if n % 2 else "even") for n in range(100)]
        >>> labels = spark.createDataFrame(odd, "id int, label string")
        >>> head = ember.train(features, labels, scaling="feature", penalty=0.01)
        >>> head.labels
        ('even', 'odd')
        >>> head.about["metrics"]["test"]["accuracy"]
        1.0
    """
    weights = table_weights if isinstance(table_weights, str) else [*map(float, table_weights)]
    options = {
        "head": head,
        "scaling": scaling,
        "table_weights": weights,
        "penalty": penalty,
        "folds": folds,
        "class_weights": class_weights,
        "threshold": threshold,
        "network": {"hidden": list(hidden), "dimension": dimension, "iterations": iterations},
        "split": split_settings(split, seed, group),
        "limits": {
            "max_failed_fraction": max_failed_fraction,
            "worker_megabytes": worker_megabytes,
        },
    }
    settings = parse(TrainOptions, options, "train")
    tables = [features] if isinstance(features, DataFrame) else list(features)
    check_options(settings, len(tables))
    examples = gather(
        [
            select_embeddings(table, id, embedding, f"features table {number + 1}")
            for number, table in enumerate(tables)
        ],
        select_labels(labels, id, label, settings.split),
        settings.split,
        min_rows=min_rows,
        max_failed_fraction=settings.limits.max_failed_fraction,
    )
    try:
        refuse(examples, settings.limits.max_failed_fraction)
        return fit_examples(examples, settings)
    finally:
        examples.forget()
