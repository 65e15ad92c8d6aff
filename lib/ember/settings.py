"""The configuration of every job, on one page; the keys are those of the YAML files in conf/."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.config import Config

__all__ = [
    "AugmentConfig",
    "BaselineConfig",
    "ClassifyConfig",
    "ComparisonLimits",
    "EmbedConfig",
    "EmbeddingsConfig",
    "EpochsConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FinetuneConfig",
    "GroupsConfig",
    "InputConfig",
    "JoinConfig",
    "JoinLimits",
    "LabelsConfig",
    "LimitsConfig",
    "ModelConfig",
    "NeighborsConfig",
    "NetworkConfig",
    "NewOutputConfig",
    "OutputConfig",
    "PairsConfig",
    "PredictionsConfig",
    "ProjectConfig",
    "RatesConfig",
    "RejectsConfig",
    "RelevanceConfig",
    "SearchConfig",
    "SplitConfig",
    "TrainConfig",
    "TrainLimitsConfig",
    "TrainOptions",
    "TruthConfig",
    "VectorsConfig",
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
    """How many rows may have vectors that cannot be used."""

    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class ComparisonLimits(RejectsConfig):
    """`rows_per_block` bounds the memory of a worker, and the work that a killed task loses.

    auto: 16 MiB of vectors.
    """

    rows_per_block: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class JoinLimits(ComparisonLimits):
    """The ceiling of a join: more pairs than `max_pairs` are counted and not written."""

    max_pairs: Annotated[int, Field(ge=1)] = 100_000_000


class GroupsConfig(Config):
    """Where near-duplicate groups go; null: nowhere."""

    path: Name | None = None


class SearchConfig(Config):
    """Configuration of the `search` job. `corpus: null` searches the queries in themselves.

    `recall` is for `mode: approximate`.
    """

    queries: EmbeddingsConfig
    corpus: EmbeddingsConfig | None = None
    k: Annotated[int, Field(ge=1)] = 10
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    mode: Literal["exact", "approximate"] = "exact"
    recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    exclude_self: bool = False
    within: list[Name] = Field(default=[])
    output: OutputConfig
    limits: ComparisonLimits = ComparisonLimits()


class JoinConfig(Config):
    """Configuration of the `join` job. `right: null` joins the left table with itself."""

    left: EmbeddingsConfig
    right: EmbeddingsConfig | None = None
    threshold: float
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    within: list[Name] = Field(default=[])
    groups: GroupsConfig = GroupsConfig()
    output: OutputConfig
    limits: JoinLimits = JoinLimits()


class VectorsConfig(Config):
    """A column of vectors whose length is all that is asked for."""

    path: Paths
    embedding: Name = "embedding"


class ProjectConfig(Config):
    """Configuration of the `project` job.

    One of `dimension`, `explained` (a share of the variance), `like` (the dimension of that table)
    and `projection` (a folder saved by an earlier run). `save: null` is `<output.path>.projection`.
    """

    input: EmbeddingsConfig
    dimension: Annotated[int, Field(ge=1)] | None = None
    explained: Annotated[float, Field(gt=0, le=1)] | None = None
    like: VectorsConfig | None = None
    projection: Name | None = None
    center: bool = True
    whiten: bool = False
    save: Name | None = None
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()


class ExportConfig(Config):
    """Configuration of the `export` job."""

    corpus: EmbeddingsConfig
    metric: Literal["cosine", "inner_product", "euclidean"] = "cosine"
    output: NewOutputConfig
    limits: RejectsConfig = RejectsConfig()


class PredictionsConfig(Config):
    """A table of predictions, as `classify` writes it."""

    path: Paths
    id: Name
    predictions: Name = "predictions"


class NeighborsConfig(Config):
    """Ranked lists, as `search` writes them. `rank: null` orders by score, highest first."""

    path: Paths
    query_id: Name = "query_id"
    neighbor_id: Name = "neighbor_id"
    rank: Name | None = "rank"
    score: Name = "score"


class PairsConfig(Config):
    """A table of scores. `id` may be several columns that name a row together."""

    path: Paths
    id: Name | Annotated[list[Name], Field(min_length=1)]
    score: Name = "score"


class TruthConfig(Config):
    """The truth: a label or labels for classes, a number or a boolean for similarity.

    `id: null` takes the name of the id in the table that is judged.
    """

    path: Paths
    id: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    label: Name = "label"


class RelevanceConfig(Config):
    """Which documents are relevant to which queries. `grade: null` makes every row relevant."""

    path: Paths
    query_id: Name = "query_id"
    neighbor_id: Name = "neighbor_id"
    grade: Name | None = None


class BaselineConfig(Config):
    """The other run of a comparison, in a table with the same column names."""

    path: Paths


Kind = Literal["classification", "multilabel", "retrieval", "similarity"]
Ranks = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class EvaluateConfig(Config):
    """Configuration of the `evaluate` job; which sections go with which kind is in conf/."""

    kind: Kind | Literal["compare"]
    of: Kind = "classification"
    predictions: PredictionsConfig | None = None
    neighbors: NeighborsConfig | None = None
    pairs: PairsConfig | None = None
    baseline: BaselineConfig | None = None
    truth: TruthConfig | None = None
    queries: TruthConfig | None = None
    relevance: RelevanceConfig | None = None
    slices: list[Name] = Field(default_factory=list)
    require: dict[str, float] = Field(default_factory=dict)
    classes: list[str] | list[int] | None = None
    top_k: Ranks = Field(default_factory=lambda: [5])
    at: Ranks = Field(default_factory=lambda: [1, 5, 10])
    threshold: float = 0.5
    exclude_self: bool = False
    bins: Annotated[int, Field(ge=1, le=1000)] = 15
    bootstrap: Annotated[int, Field(ge=0, le=10_000)] = 1000
    worst: Annotated[int, Field(ge=0, le=100_000)] = 100
    report: bool = True
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
