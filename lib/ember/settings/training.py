"""The configuration of `classify`, `train` and `finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.embedding import ModelConfig
from ember.settings.limits import MAX_FAILED_FRACTION, LimitsConfig, VectorLimitsConfig
from ember.settings.names import LocalFile, Name, Share, Source
from ember.settings.outputs import NewOutputConfig, OutputConfig, RowsOutputConfig
from ember.settings.tables import EmbeddingsConfig, InputConfig, TableConfig

__all__ = [
    "AugmentConfig",
    "ClassifyConfig",
    "ClassifyOptions",
    "EpochsConfig",
    "FinetuneConfig",
    "LabelsConfig",
    "NetworkConfig",
    "RatesConfig",
    "SplitConfig",
    "TrainConfig",
    "TrainLimitsConfig",
    "TrainOptions",
]


class ClassifyOptions(Config):
    """What scores become labels, and which of them are written."""

    head: Source | None = Field(
        default=None,
        description="Folder of a head that train wrote; null: the model's own classes.",
    )
    top_k: Annotated[int, Field(ge=1)] = Field(
        default=3, description="How many labels to write for each row, best first."
    )
    threshold: Share | Literal["model"] | None = Field(
        default=None,
        description="Leave out labels that score less; model: each label's own threshold, where "
        "several may hold at once; null: none.",
    )
    labels: LocalFile | None = Field(
        default=None,
        description="File with the names of the classes: .json, .csv, or one in a line; null: "
        "those of the model or the head.",
    )


class ClassifyConfig(ClassifyOptions):
    """Configuration of the `classify` job: input and model, or features and head."""

    input: InputConfig | None = Field(
        default=None, description="The corpus to label, with model; null: give features and head."
    )
    model: ModelConfig | None = Field(
        default=None,
        description="The model whose classes are taken, or whose embedding the head is applied to.",
    )
    features: list[EmbeddingsConfig] | None = Field(
        default=None,
        description="In place of input and model, tables of embeddings, those that the head was "
        "trained on.",
    )
    output: RowsOutputConfig = Field(description="Where the table of predictions goes.")
    limits: VectorLimitsConfig = Field(
        default=VectorLimitsConfig(), description="Bounds of the run."
    )


class LabelsConfig(TableConfig):
    """Labels by id."""

    id: Name = Field(description="Column that names each row.")
    label: Name = Field(
        default="label",
        description="Column of the labels: numbers or strings; for train also a list of several.",
    )
    min_rows: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Leave out labels that fewer rows than this have."
    )


class SplitConfig(Config):
    """Which rows train, by a hash of the id and the seed, or as a column of the labels says."""

    train: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Share of the rows to learn from, chosen by a hash of the id."
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of the rows that settings are chosen and calibrated on."
    )
    test: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of the rows that the result is judged on."
    )
    seed: int = Field(default=0, description="Seed of the hash that divides the rows.")
    column: Name | None = Field(
        default=None,
        description="Column of the labels that says train, validation or test, in place of shares.",
    )
    group: Name | None = Field(
        default=None, description="Column of the labels; rows of one group go to one part."
    )


class NetworkConfig(Config):
    """The hidden layers of `head: mlp`, the output of `head: similarity`, how long both train."""

    hidden: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        default=[128], description="For head: mlp, the sizes of the hidden layers."
    )
    dimension: Annotated[int, Field(ge=1)] = Field(
        default=128, description="For head: similarity, the dimension of the projected vectors."
    )
    iterations: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Steps of L-BFGS for mlp, passes over the rows for similarity; null: 200 and "
        "100.",
    )


class TrainLimitsConfig(Config):
    """What training may leave out, and what one worker trains on."""

    max_failed_fraction: Share = Field(
        default=MAX_FAILED_FRACTION,
        description="Share of labeled rows that may be unusable; above it the run ends with exit "
        "code 3.",
    )
    worker_megabytes: Annotated[float, Field(ge=0)] = Field(
        default=512,
        description="Features, as float32, that one worker trains on, in about six times the "
        "memory; above it the cluster fits.",
    )


Weight = Annotated[float, Field(gt=0)]


class TrainOptions(Config):
    """How a head is trained."""

    head: Literal["logistic", "svm", "mlp", "similarity"] = Field(
        default="logistic",
        description="What to fit: logistic regression, a linear SVM, a small network, or a metric.",
    )
    scaling: Literal["table", "feature"] = Field(
        default="table",
        description="Whether features are scaled by table or one by one; they are centered first.",
    )
    table_weights: Literal["equal", "cross_validation"] | list[Weight] = Field(
        default="equal",
        description="What the features of each table count for; cross_validation: halved for "
        "tables that tell less.",
    )
    penalty: Annotated[float, Field(gt=0)] | Literal["cross_validation"] = Field(
        default=1.0,
        description="Penalty on squared weights, 1/C in scikit-learn; cross_validation: the "
        "largest that does about as well as the best.",
    )
    folds: Annotated[int, Field(ge=2, le=100)] = Field(
        default=5, description="Folds of the cross-validation."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="Whether rare labels count for more (balanced)."
    )
    threshold: Share | Literal["auto"] = Field(
        default=0.5,
        description="For several labels a row, the score from which one holds; auto: by micro-F1 "
        "on the validation part.",
    )
    network: NetworkConfig = Field(
        default=NetworkConfig(), description="Sizes and training of mlp and similarity heads."
    )
    split: SplitConfig = Field(
        default=SplitConfig(), description="Which rows train, validate and test."
    )
    limits: TrainLimitsConfig = Field(default=TrainLimitsConfig(), description="Bounds of the run.")


class TrainConfig(TrainOptions):
    """Configuration of the `train` job."""

    features: Annotated[list[EmbeddingsConfig], Field(min_length=1)] = Field(
        description="Tables of embeddings to learn from; several are joined by id and concatenated."
    )
    labels: LabelsConfig = Field(
        description="The labels; a list column makes the head multi-label."
    )
    output: NewOutputConfig = Field(description="Where the folder of the head goes.")


class EpochsConfig(Config):
    """How long each stage lasts at most."""

    head: Annotated[int, Field(ge=0)] = Field(
        default=10,
        description="Epochs at most of the new head alone, on the backbone as it is; 0: leave out.",
    )
    full: Annotated[int, Field(ge=0)] = Field(
        default=5,
        description="Epochs at most of the head and the backbone's last stages; 0: leave out.",
    )


class RatesConfig(Config):
    """The largest learning rate of each stage."""

    head: Annotated[float, Field(gt=0)] = Field(
        default=3e-3, description="Largest learning rate while the head alone trains."
    )
    full: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Largest learning rate with the backbone; null: 0.0001 for images, 0.00003 for "
        "texts.",
    )


class AugmentConfig(Config):
    """What is done to training images."""

    flip: bool = Field(
        default=True, description="Whether to mirror a training image every other time."
    )
    min_area: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.35,
        description="Share of a training image's area that a random crop has at least.",
    )


class FinetuneConfig(Config):
    """Configuration of the `finetune` job."""

    input: InputConfig = Field(description="The corpus to learn from.")
    labels: LabelsConfig = Field(description="The labels by id; may be the corpus itself.")
    model: ModelConfig = Field(description="The model to fine-tune.")
    split: SplitConfig = Field(
        default=SplitConfig(), description="Which rows train, validate and test."
    )
    epochs: EpochsConfig = Field(
        default=EpochsConfig(), description="How long each stage lasts at most."
    )
    learning_rate: RatesConfig = Field(
        default=RatesConfig(), description="How fast each stage learns."
    )
    unfreeze: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=1,
        description="How many last stages (ResNet) or layers (BERT) of the backbone to train.",
    )
    batch_norm: Literal["frozen", "trained"] = Field(
        default="frozen",
        description="Whether batch normalization keeps its statistics; trained: for a backbone "
        "trained from scratch.",
    )
    augment: AugmentConfig | None = Field(
        default=AugmentConfig(),
        description="Changes to training images in the second stage; null: they are shown as they "
        "are.",
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        default=3,
        description="A stage ends after so many epochs without a smaller validation loss.",
    )
    processes: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Processes that train together, for hf: models."
    )
    seed: int = Field(
        default=0, description="Seed of the new head, the order of rows and the crops."
    )
    output: OutputConfig = Field(description="Where the model folder goes.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Bounds of the run.")
