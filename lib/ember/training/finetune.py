"""Fine-tuning on DataFrames: the verb of the public API, in the words of the job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pyspark.sql import DataFrame

from ember.settings.config import parse
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.settings.tables import ContentIs
from ember.settings.training import FinetuneConfig
from ember.spark import places, read_batches
from ember.spark.origins import files
from ember.spark.publish import Output
from ember.spark.storage import Storage
from ember.spark.tables import select_corpus
from ember.training.finetuning import check_settings, plan_tables
from ember.training.model_output import GROWS_IN, ModelOutput
from ember.training.split import SHARES, Split, split_settings
from ember.worker.rows import MAX_BYTES, MAX_PIXELS
from ember.worker.spec import Modality

__all__ = ["finetune"]


def finetune(
    df: DataFrame,
    labels: DataFrame,
    model: str,
    path: str,
    *,
    id: str = "id",
    content: str = "content",
    modality: Modality = "image",
    content_is: ContentIs | None = None,
    root: str | Sequence[str] | None = None,
    labels_id: str | None = None,
    label: str = "label",
    min_rows: int = 1,
    weights: str = "imagenet",
    revision: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    batch_size: int | Literal["auto"] = "auto",
    split: Split = SHARES,
    split_seed: int = 0,
    group: str | None = None,
    head_epochs: int = 10,
    full_epochs: int = 5,
    head_rate: float = 3e-3,
    full_rate: float | None = None,
    unfreeze: int | Literal["all"] = 1,
    batch_norm: Literal["frozen", "trained"] = "frozen",
    augment: bool = True,
    flip: bool = True,
    min_area: float = 0.35,
    patience: int = 3,
    processes: int = 1,
    seed: int = 0,
    mode: Literal["fail", "overwrite"] = "fail",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """Fine-tune a backbone on a labeled corpus: a model folder for `embed` and `classify`.

    First the new head alone is trained, then the head and the backbone's last stages. The model of
    the least validation loss is kept, and published whole or not at all. A training that may be
    killed is one for the job, which goes on after its last epoch with `output.mode: resume`.

    Args:
        df: an id column of any atomic type, and a content column: encoded image bytes (binary),
            paths or URIs of images (string, with `content_is`), or text (string, or binary in
            UTF-8).
        labels: the id and one label a row; may be `df` itself.
        model: `keras:<name>` or `hf:<hub id or folder>`.
        path: the model folder to write.
        id: the name of the id column.
        content: the name of the content column.
        modality: image or text.
        content_is: for images, bytes, or paths of files under `root`; None: bytes, of a binary
            column.
        root: the folders or URIs under which files may be read.
        labels_id: the name of the id column in `labels`; None: as `id`.
        label: the name of the column of the labels.
        min_rows: leave out labels that fewer rows than this have.
        weights: for keras: models, imagenet, random, or a file that Keras saved.
        revision: for hf: models, the branch, tag or commit of the hub's repository.
        precision: number format in which the model computes; bfloat16 for hf: models.
        batch_size: rows of a batch; auto: 32.
        split: shares of the rows to train, validate and test on, chosen by a hash of the id; or the
            column of the labels that says train, validation or test.
        split_seed: of that hash.
        group: a column of the labels; rows of one group go to one part.
        head_epochs: epochs at most of the new head alone; 0: leave them out.
        full_epochs: epochs at most of the head and the backbone's last stages; 0: leave them out.
        head_rate: the largest learning rate while the head alone trains.
        full_rate: the largest learning rate with the backbone; None: 0.0001 for images, 0.00003
            for texts.
        unfreeze: how many last stages (ResNet) or layers (BERT) of the backbone to train.
        batch_norm: whether batch normalization keeps its statistics.
        augment: whether training images are changed in the second stage.
        flip: where they are, whether to mirror one every other time.
        min_area: where they are, the share of an image's area that a random crop has at least.
        patience: a stage ends after so many epochs without a smaller validation loss.
        processes: processes that train together, for hf: models.
        seed: of the new head, the order of rows and the crops.
        mode: fail where there is something at `path`, or overwrite what a fine-tuning wrote.
        max_failed_fraction: share of labeled rows whose content may not be usable; above it they
            are kept in `<path>.failures`.
        max_pixels: pixels of an image; a larger one is a failed row.
        max_bytes: bytes of a row's content; a larger one is a failed row.

    Returns:
        What the manifest says: `labels`, `counts` (rows by part, failed rows by reason, …),
        `history` of the epochs, `best`, `test_accuracy`.

    Raises:
        InvalidConfig: options that cannot be, or not together.
        InvalidInput: columns, a model or a place that cannot be used; repeated ids; fewer than two
            labels.
        TooManyFailures: more labeled rows than `max_failed_fraction` cannot be used; nothing was
            trained.
        DeviceMissing: a GPU was asked for and is not there.

    Example:
        >>> rows = [(n, "a cat sat" if n % 2 else "dogs run in the house") for n in range(40)]
        >>> texts = spark.createDataFrame(rows, "id int, content string")
        >>> labels = texts.selectExpr("id", "if(id % 2 = 1, 'cat', 'dog') as label")
        >>> told = ember.finetune(texts, labels, bert, f"{folder}/model", modality="text",
        ...                       head_epochs=1, full_epochs=0)
        >>> told["labels"], sum(told["counts"]["rows"].values()), len(told["history"])
        (['cat', 'dog'], 40, 1)
        >>> predictions = ember.classify(texts, f"hf:{folder}/model", id="id", modality="text")
    """
    spark = df.sparkSession
    corpus_section = {"id": id, "content": content, "modality": modality}
    label_section = {"id": labels_id or id, "label": label, "min_rows": min_rows}
    settings = {
        "input": {"path": _places(df), **corpus_section},
        "labels": {"path": _places(labels), **label_section},
        "model": {
            "name": model,
            "weights": weights,
            "revision": revision,
            "precision": precision,
            "batch_size": batch_size,
        },
        "split": split_settings(split, split_seed, group),
        "epochs": {"head": head_epochs, "full": full_epochs},
        "learning_rate": {"head": head_rate, "full": full_rate},
        "unfreeze": unfreeze,
        "batch_norm": batch_norm,
        "augment": {"flip": flip, "min_area": min_area} if augment else None,
        "patience": patience,
        "processes": processes,
        "seed": seed,
        "output": {"path": path, "mode": mode},
        "limits": {
            "max_failed_fraction": max_failed_fraction,
            "max_pixels": max_pixels,
            "max_bytes": max_bytes,
        },
    }
    config = parse(FinetuneConfig, settings, "finetune")
    check_settings(config)
    places.check_config(Storage(spark), config)
    corpus = select_corpus(df, id, content, modality, content_is=content_is, root=root)
    read_batches.advise(corpus.rows)
    work = plan_tables(corpus, labels, config)
    output = Output(spark, path, mode, {"job": "finetune"}, job="finetune", new=GROWS_IN)
    output.check()
    grown = ModelOutput(output)
    with grown.attempt():
        staged = work.stage_rows(grown)
        told = {**staged, **work.train(grown, staged["labels"])}
        output.publish({"model": work.spec.describe(), **told})
    return told


def _places(table: DataFrame) -> list[str]:
    """Where a table is from, so that no output can harm it; some words where it is from no file."""
    return files(table) or ["a DataFrame"]
