"""The configuration of every job, on one page; the keys are those of the YAML files in conf/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config

__all__ = [
    "ClassifyConfig",
    "EmbedConfig",
    "EmbeddingsConfig",
    "FinetuneConfig",
    "InputConfig",
    "JoinConfig",
    "LabelsConfig",
    "LimitsConfig",
    "ModelConfig",
    "NetworkConfig",
    "NewOutputConfig",
    "OutputConfig",
    "RejectsConfig",
    "SearchConfig",
    "SplitConfig",
    "TrainConfig",
    "TrainOptions",
]

Paths = Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


class InputConfig(Config):
    """A corpus. `unique_ids: true` has the run refuse an input with a repeated id."""

    path: Paths
    id: Name
    content: Name = "content"
    modality: Literal["image", "text"]
    unique_ids: bool = False


class ModelConfig(Config):
    """A model and what is taken from it. `layer: null` is avg_pool for images, mean for texts."""

    name: Name
    weights: Name = "imagenet"
    revision: Name | None = None
    layer: Literal["avg_pool", "fc1", "fc2", "mean", "cls", "pooler"] | None = None
    runtime: Literal["auto", "tensorflow", "torch", "openvino"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=65536)] = "auto"
    normalize: bool = False


class OutputConfig(Config):
    """Where the table goes, and what happens when one is there."""

    path: Name
    mode: Literal["fail", "overwrite", "resume"] = "fail"


class LimitsConfig(Config):
    """`rows_per_task` bounds the work that a killed task loses; auto: 1,000 images, 2,000 texts."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    rows_per_task: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class EmbedConfig(Config):
    """Configuration of the `embed` job."""

    input: InputConfig
    model: ModelConfig
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()


class EmbeddingsConfig(Config):
    """A table of embeddings, as `embed` writes it."""

    path: Paths
    id: Name
    embedding: Name = "embedding"


class ClassifyConfig(Config):
    """Configuration of the `classify` job: input and model, or features and head.

    `head: null` takes the model's own classes. `threshold: model` is each label's own, where
    several may hold at once.
    """

    input: InputConfig | None = None
    model: ModelConfig | None = None
    features: list[EmbeddingsConfig] | None = None
    head: Name | None = None
    top_k: Annotated[int, Field(ge=1)] = 3
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["model"] | None = None
    labels: Name | None = None
    output: OutputConfig
    limits: LimitsConfig = LimitsConfig()


class NewOutputConfig(Config):
    """Where a table goes that is made in one piece."""

    path: Name
    mode: Literal["fail", "overwrite"] = "fail"


class RejectsConfig(Config):
    """How many rows may have vectors that cannot be compared."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class SearchConfig(Config):
    """Configuration of the `search` job. `corpus: null` searches the queries in themselves."""

    queries: EmbeddingsConfig
    corpus: EmbeddingsConfig | None = None
    k: Annotated[int, Field(ge=1)] = 10
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    exclude_self: bool = False
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()


class JoinConfig(Config):
    """Configuration of the `join` job. `right: null` joins the left table with itself."""

    left: EmbeddingsConfig
    right: EmbeddingsConfig | None = None
    threshold: float
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()


class LabelsConfig(Config):
    """Labels by id; a list column makes the head multi-label.

    Labels that fewer than `min_rows` rows have are left out.
    """

    path: Paths
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
    """The hidden layers of `head: mlp`, and the L-BFGS iterations it is trained for."""

    hidden: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(default=[128])
    iterations: Annotated[int, Field(ge=1)] = 200


class TrainLimitsConfig(Config):
    """Features of up to `worker_megabytes` (as float32) are trained on by one worker."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    worker_megabytes: Annotated[float, Field(ge=0)] = 512


class TrainOptions(Config):
    """How a head is trained."""

    head: Literal["logistic", "svm", "mlp", "similarity"] = "logistic"
    scaling: Literal["table", "feature"] = "table"
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
