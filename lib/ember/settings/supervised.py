"""The configuration of `classify`, `train` and `finetune`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import (
    EmbeddingsConfig,
    InputConfig,
    LimitsConfig,
    LocalFile,
    ModelConfig,
    Name,
    NewOutputConfig,
    OutputConfig,
    Source,
    TableConfig,
)

__all__ = [
    "AugmentConfig",
    "ClassifyConfig",
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


class ClassifyConfig(Config):
    """Configuration of the `classify` job: input and model, or features and head.

    `head: null` takes the model's own classes. `threshold: model` is each label's own, where
    several may hold at once.
    """

    input: InputConfig | None = None
    model: ModelConfig | None = None
    features: list[EmbeddingsConfig] | None = None
    head: Source | None = None
    top_k: Annotated[int, Field(ge=1)] = 3
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["model"] | None = None
    labels: LocalFile | None = None
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()


class LabelsConfig(TableConfig):
    """Labels by id; a list column makes the head multi-label.

    Labels that fewer than `min_rows` rows have are left out.
    """

    id: Name
    label: Name = "label"
    min_rows: Annotated[int, Field(ge=1)] = 1


class SplitConfig(Config):
    """Which rows train, by a hash of the id and the seed, or as a column of the labels says.

    `group`: a column of the labels; rows of one group go to one part.
    """

    train: Annotated[float, Field(gt=0, le=1)] = 0.8
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: int = 0
    column: Name | None = None
    group: Name | None = None


class NetworkConfig(Config):
    """The hidden layers of `head: mlp`, the output of `head: similarity`, how long both train.

    `iterations`: of L-BFGS for mlp, passes over the rows for similarity; null: 200 and 100.
    """

    hidden: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(default=[128])
    dimension: Annotated[int, Field(ge=1)] = 128
    iterations: Annotated[int, Field(ge=1)] | None = None


class TrainLimitsConfig(Config):
    """Features of up to `worker_megabytes` (as float32) are trained on by one worker."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    worker_megabytes: Annotated[float, Field(ge=0)] = 512


Weight = Annotated[float, Field(gt=0)]


class TrainOptions(Config):
    """How a head is trained. `table_weights`: what the features of each table count for."""

    head: Literal["logistic", "svm", "mlp", "similarity"] = "logistic"
    scaling: Literal["table", "feature"] = "table"
    table_weights: Literal["equal", "cross_validation"] | list[Weight] = "equal"
    penalty: Annotated[float, Field(gt=0)] | Literal["cross_validation"] = 1.0
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    class_weights: Literal["none", "balanced"] = "none"
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.5
    network: NetworkConfig = NetworkConfig()
    split: SplitConfig = SplitConfig()
    limits: TrainLimitsConfig = TrainLimitsConfig()


class TrainConfig(TrainOptions):
    """Configuration of the `train` job."""

    features: Annotated[list[EmbeddingsConfig], Field(min_length=1)]
    labels: LabelsConfig
    output: NewOutputConfig


class EpochsConfig(Config):
    """How long each stage lasts at most; 0 leaves it out."""

    head: Annotated[int, Field(ge=0)] = 10
    full: Annotated[int, Field(ge=0)] = 5


class RatesConfig(Config):
    """The largest learning rate of each stage. `full: null` is 1e-4 for images, 3e-5 for texts."""

    head: Annotated[float, Field(gt=0)] = 3e-3
    full: Annotated[float, Field(gt=0)] | None = None


class AugmentConfig(Config):
    """Of training images: mirrored every other time; a crop of at least `min_area` of the area."""

    flip: bool = True
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.35


class FinetuneConfig(Config):
    """Configuration of the `finetune` job. `augment: null` shows every picture as it is."""

    input: InputConfig
    labels: LabelsConfig
    model: ModelConfig
    split: SplitConfig = SplitConfig()
    epochs: EpochsConfig = EpochsConfig()
    learning_rate: RatesConfig = RatesConfig()
    unfreeze: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    batch_norm: Literal["frozen", "trained"] = "frozen"
    augment: AugmentConfig | None = AugmentConfig()
    patience: Annotated[int, Field(ge=1)] = 3
    processes: Annotated[int, Field(ge=1)] = 1
    seed: int = 0
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()
