"""Ember: batch embedding, similarity and evaluation of image and text corpora on Apache Spark.

The functions here are the driver side. They are imported on first use, so that the executor side
(`ember.engine`, `ember.similarity`) runs where there is no pyspark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.compare.alignment import fit_alignment
    from ember.compare.approximate import approximate_top_k
    from ember.compare.export import export_faiss
    from ember.compare.join import similarity_join
    from ember.compare.projection import fit_projection, project
    from ember.compare.search import top_k
    from ember.description import describe
    from ember.embedding import embed
    from ember.supervised.classification import classify
    from ember.supervised.training import train

__all__ = [
    "approximate_top_k",
    "classify",
    "describe",
    "embed",
    "export_faiss",
    "fit_alignment",
    "fit_projection",
    "project",
    "similarity_join",
    "top_k",
    "train",
]

_HOMES = {
    "approximate_top_k": "ember.compare.approximate",
    "classify": "ember.supervised.classification",
    "describe": "ember.description",
    "embed": "ember.embedding",
    "export_faiss": "ember.compare.export",
    "fit_alignment": "ember.compare.alignment",
    "fit_projection": "ember.compare.projection",
    "project": "ember.compare.projection",
    "similarity_join": "ember.compare.join",
    "top_k": "ember.compare.search",
    "train": "ember.supervised.training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ember' has no attribute {name!r}")
