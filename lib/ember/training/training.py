"""Training a head on embeddings and labels, in one task where the data fits a worker."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import (
    StringType,
    StructField,
    StructType,
)

from ember.errors import InvalidConfig
from ember.settings.tables import EmbeddingsConfig
from ember.settings.training import TrainOptions
from ember.spark.column_types import TYPES
from ember.spark.failed_rows import refuse_failures
from ember.spark.publish import Output
from ember.spark.tables import same_column
from ember.training.spark_fit import fit_on_cluster
from ember.training.split import check_split
from ember.training.training_table import Examples
from ember.worker.heads.calibrate import calibrate, figures
from ember.worker.heads.fit import Recipe, fit_on_worker
from ember.worker.heads.head import Head
from ember.worker.heads.metric import fit_metric, same_label_figures
from ember.worker.heads.rows import Rows, read_features, read_rows
from ember.worker.results import Predictions

__all__ = [
    "check_options",
    "fit_examples",
    "held_out_predictions",
    "keep_failures",
    "refuse",
    "summary",
]

_VERSIONS = ("ember-spark", "numpy", "scipy", "scikit-learn")
# Few rows that calibrate and judge are of no use, however small a worker is said to be.
_LEAST_HELD_OUT = 10_000


def keep_failures(examples: Examples, output: Output, max_failed_fraction: float) -> None:
    """Write the rows that cannot be used beside the output; raise when they are too many."""
    if examples.failed:
        output.bad.keep(examples.failures.coalesce(1), output.bad.rejected)
    refuse(examples, max_failed_fraction, lambda: output.bad.rejected)


def refuse(
    examples: Examples, max_failed_fraction: float, keep: Callable[[], str] | None = None
) -> None:
    """Raise TooManyFailures when more labeled rows than this share cannot be used."""
    total = examples.failed + sum(examples.rows_by_part.values())
    reasons = ", ".join(f"{n} {reason}" for reason, n in examples.counts["failed"].items())
    told = f"labeled rows cannot be used ({reasons})"
    refuse_failures(examples.failed, total, max_failed_fraction, told, keep)


def fit_examples(
    examples: Examples, options: TrainOptions, sources: Sequence[EmbeddingsConfig] = ()
) -> Head:
    """Fit, calibrate and judge a head on the parts of `examples`.

    The features decide where: up to limits.worker_megabytes, all is done by one task on the rows in
    the order of their ids; above, the fit is done on the cluster (a learned metric: on the rows
    with the lowest draws), and calibration and figures take as many held-out rows as fit.
    sources: where the feature tables are from, for head.json.
    """
    recipe = _recipe(examples, options)
    most = int(options.limits.worker_megabytes * 2**20 / (4 * sum(examples.parts)))
    train = examples.rows.filter("part = 'train'")
    count = examples.rows_by_part["train"]
    if recipe.kind == "similarity":
        count = min(count, max(1, most))
        train = train.orderBy("draw", "id").limit(count)
    if count <= most:
        head = _in_one_task(train, recipe, _fitter(recipe))
    else:
        label_rows = np.array(examples.label_rows, np.float64)
        head = fit_on_cluster(train, recipe, label_rows, count)
    head = _judge(head, examples, recipe, options, max(most, _LEAST_HELD_OUT))
    about = {**head.about, "trained_on": "worker" if count <= most else "cluster"}
    return replace(head, about={**about, **_about(examples, options, sources)})


def held_out_predictions(head: Head, examples: Examples, id: str) -> DataFrame:
    """What the head says of validation and test rows, all labels of a row, best first.

    id: what the id is called in the result, unless another column there has the name.
    Returns the id, `predictions` array<struct<index, label, score>>, `status`,
    `error` (null), `split`.
    """
    rows = examples.rows.filter("part != 'train'")
    vectors = [f"f{number}" for number in range(len(examples.parts))]
    schema = StructType(
        [
            StructField("id", rows.schema["id"].dataType),
            *(StructField(name, TYPES[name]) for name in ("predictions", "status", "error")),
            StructField("split", StringType()),
        ]
    )

    every_label = Predictions(head.labels, len(head.labels))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            scores = head.scores(read_features(batch.columns[2:], list(head.parts)))
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column(0),
                    every_label.of_scores(scores, np.zeros(len(scores), bool)),
                    pa.array(["ok"] * len(scores), pa.string()),
                    pa.nulls(len(scores), pa.string()),
                    batch.column(1),
                ],
                names=schema.names,
            )

    predicted = rows.select("id", "part", *vectors).mapInArrow(run, schema)
    taken = same_column(rows.sparkSession, id, schema.names[1:])
    return predicted if taken else predicted.toDF(id, *schema.names[1:])


def summary(head: Head) -> str:
    """How well a head does on rows that it has not seen, in a few words."""
    metrics: dict[str, dict[str, float]] = head.about.get("metrics", {})
    part = next((part for part in ("test", "validation") if metrics.get(part)), None)
    if part is None:
        return f"{head.kind} head, not judged: there were no held-out rows"
    figures = {**metrics[part]}
    rows = figures.pop("rows")
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    return f"{shown} on {rows} {part} rows"


def check_options(options: TrainOptions, tables: int) -> None:
    """Raise InvalidConfig for options that do not go together, or not with so many tables."""
    check_split(options.split)
    if options.head == "similarity" and options.penalty == "cross_validation":
        raise InvalidConfig(
            "penalty: cross_validation judges labels; give head: similarity a number"
        )
    if options.table_weights == "cross_validation" and options.penalty != "cross_validation":
        raise InvalidConfig(
            "table_weights: cross_validation goes with penalty: cross_validation; give both, or "
            "table_weights a list of numbers"
        )
    if options.table_weights != "equal" and options.head == "similarity":
        raise InvalidConfig("table_weights: head: similarity takes the tables as equals")
    if isinstance(options.table_weights, list) and len(options.table_weights) != tables:
        raise InvalidConfig(
            f"table_weights has {len(options.table_weights)} numbers and features {tables} tables"
        )


def _recipe(examples: Examples, options: TrainOptions) -> Recipe:
    weights = () if options.table_weights == "equal" else options.table_weights
    return Recipe(
        kind=options.head,
        labels=examples.labels,
        multilabel=examples.multilabel,
        parts=examples.parts,
        indicators=examples.indicators,
        scaling=options.scaling,
        penalty=None if options.penalty == "cross_validation" else float(options.penalty),
        folds=options.folds,
        weights=None if weights == "cross_validation" else tuple(weights),
        balanced=options.class_weights == "balanced",
        hidden=tuple(options.network.hidden),
        iterations=options.network.iterations or (100 if options.head == "similarity" else 200),
        dimension=options.network.dimension,
        seed=options.split.seed,
    )


def _fitter(recipe: Recipe) -> Callable[[Rows], Head]:
    def fit(rows: Rows) -> Head:
        if not recipe.multilabel:
            rows = rows.take(rows.targets >= 0)
        return (
            fit_metric(rows, recipe) if recipe.kind == "similarity" else fit_on_worker(rows, recipe)
        )

    return fit


def _judge(
    head: Head, examples: Examples, recipe: Recipe, options: TrainOptions, most: int
) -> Head:
    """The head calibrated on validation rows, with figures of both held-out parts."""
    threshold = None if options.threshold == "auto" else options.threshold
    rows = examples.rows.filter("part != 'train'")
    count = sum(examples.rows_by_part.values()) - examples.rows_by_part["train"]
    if not count and recipe.kind == "similarity":
        return head
    if not count:
        nothing = read_rows([], recipe.labels, recipe.multilabel, list(recipe.parts))
        return calibrate(head, nothing, threshold)
    if count > most:
        rows = rows.orderBy("draw", "id").limit(most)

    def judge(held_out: Rows) -> Head:
        parts = {part: held_out.take(held_out.part == part) for part in ("validation", "test")}
        if recipe.kind == "similarity":
            fitted, told = head, same_label_figures
        else:
            fitted, told = calibrate(head, parts["validation"], threshold), figures
        metrics = {part: told(fitted, rows) for part, rows in parts.items()}
        return replace(fitted, about={**fitted.about, "metrics": metrics})

    return _in_one_task(rows, recipe, judge)


def _in_one_task(rows: DataFrame, recipe: Recipe, work: Callable[[Rows], Head]) -> Head:
    """What `work` makes, on a worker, of all rows in the order of their ids."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = read_rows(batches, recipe.labels, recipe.multilabel, list(recipe.parts))
        result = pa.array([pickle.dumps(work(found))], pa.binary())
        yield pa.RecordBatch.from_arrays([result], names=["head"])

    ordered = rows.coalesce(1).sortWithinPartitions("id").drop("id")
    (result,) = ordered.mapInArrow(run, "head binary").collect()
    head: Head = pickle.loads(result["head"])
    return head


def _about(
    examples: Examples, options: TrainOptions, sources: Sequence[EmbeddingsConfig]
) -> dict[str, Any]:
    """What head.json says of the run: what was asked for, of what tables, with which versions."""
    keys = {"head", "scaling", "class_weights", "split"}
    if options.head in ("mlp", "similarity"):
        keys.add("network")
    asked = options.model_dump(mode="json", include=keys)
    named = [source.model_dump(mode="json") for source in sources] or [{} for _ in examples.parts]
    tables = [{**name, "dimension": size} for name, size in zip(named, examples.parts, strict=True)]
    versions = {}
    for package in _VERSIONS:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {**asked, "features": tables, "counts": examples.counts, "versions": versions}
