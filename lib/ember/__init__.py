"""Ember: batch embedding, similarity and evaluation of image and text corpora on Apache Spark.

The verbs are those of the jobs: `embed`, `describe`, `classify`, `search`, `join`, `dedup`,
`project`, `train`, `finetune`, `evaluate`, `export`. They take and give DataFrames; `ember.udf` has
the models as functions of columns. All errors are `EmberError`s.

All of it is imported on first use, so that `import ember` is quick and the executor side
(`ember.worker`) runs where there is no pyspark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, what `_HOMES` says; a test holds the two together
    from ember import errors as errors
    from ember import udf as udf
    from ember.comparison.aliases import approximate_top_k as approximate_top_k
    from ember.comparison.aliases import export_faiss as export_faiss
    from ember.comparison.aliases import similarity_join as similarity_join
    from ember.comparison.aliases import top_k as top_k
    from ember.comparison.alignment import fit_alignment as fit_alignment
    from ember.comparison.dataframes import join as join
    from ember.comparison.dataframes import project as project
    from ember.comparison.dataframes import search as search
    from ember.comparison.export import export as export
    from ember.comparison.projection import fit_projection as fit_projection
    from ember.comparison.projection import load_projection as load_projection
    from ember.comparison.projection import save_projection as save_projection
    from ember.comparison.results import JoinResult as JoinResult
    from ember.comparison.results import ProjectResult as ProjectResult
    from ember.comparison.results import Recall as Recall
    from ember.comparison.results import SearchResult as SearchResult
    from ember.deduplication.dedup import DedupResult as DedupResult
    from ember.deduplication.dedup import dedup as dedup
    from ember.embedding.classification import classify as classify
    from ember.embedding.description import describe as describe
    from ember.embedding.embedding import embed as embed
    from ember.errors import DeviceMissing as DeviceMissing
    from ember.errors import EmberError as EmberError
    from ember.errors import InvalidConfig as InvalidConfig
    from ember.errors import InvalidInput as InvalidInput
    from ember.errors import OtherSettings as OtherSettings
    from ember.errors import RequirementNotMet as RequirementNotMet
    from ember.errors import TooManyFailures as TooManyFailures
    from ember.errors import TooManyPairs as TooManyPairs
    from ember.evaluation.evaluate import evaluate as evaluate
    from ember.evaluation.result import Evaluation as Evaluation
    from ember.evaluation.result import Figure as Figure
    from ember.evaluation.result import Issue as Issue
    from ember.training.finetune import finetune as finetune
    from ember.training.train import train as train
    from ember.worker.heads.head import Head as Head
    from ember.worker.vectors.projection import Projection as Projection

    __version__: str

# Where each public name is defined.
_HOMES = {
    "DedupResult": "ember.deduplication.dedup",
    "DeviceMissing": "ember.errors",
    "EmberError": "ember.errors",
    "Evaluation": "ember.evaluation.result",
    "Figure": "ember.evaluation.result",
    "Head": "ember.worker.heads.head",
    "InvalidConfig": "ember.errors",
    "InvalidInput": "ember.errors",
    "Issue": "ember.evaluation.result",
    "JoinResult": "ember.comparison.results",
    "OtherSettings": "ember.errors",
    "ProjectResult": "ember.comparison.results",
    "Projection": "ember.worker.vectors.projection",
    "Recall": "ember.comparison.results",
    "RequirementNotMet": "ember.errors",
    "SearchResult": "ember.comparison.results",
    "TooManyFailures": "ember.errors",
    "TooManyPairs": "ember.errors",
    "classify": "ember.embedding.classification",
    "dedup": "ember.deduplication.dedup",
    "describe": "ember.embedding.description",
    "embed": "ember.embedding.embedding",
    "evaluate": "ember.evaluation.evaluate",
    "export": "ember.comparison.export",
    "finetune": "ember.training.finetune",
    "fit_alignment": "ember.comparison.alignment",
    "fit_projection": "ember.comparison.projection",
    "join": "ember.comparison.dataframes",
    "load_projection": "ember.comparison.projection",
    "project": "ember.comparison.dataframes",
    "save_projection": "ember.comparison.projection",
    "search": "ember.comparison.dataframes",
    "train": "ember.training.train",
}
# Names of before, which warn when they are called.
_ALIASES = dict.fromkeys(
    ("approximate_top_k", "export_faiss", "similarity_join", "top_k"), "ember.comparison.aliases"
)

__all__ = ["errors", "udf", *_HOMES]  # noqa: PLE0604  # one list of them is enough


def __getattr__(name: str) -> Any:
    if name in ("errors", "udf"):
        return import_module(f"ember.{name}")
    if name == "__version__":
        return _version()
    home = _HOMES.get(name) or _ALIASES.get(name)
    if home is None:
        raise AttributeError(f"module 'ember' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _version() -> str:
    """That of the installed package; of a checkout or a zip sent to executors, unknown."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ember-spark")
    except PackageNotFoundError:
        return "0+unknown"
