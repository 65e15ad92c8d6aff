"""Ember: batch embedding, similarity and evaluation of image and text corpora on Apache Spark.

The functions here are the driver side. They are imported on first use, so that the executor side
(`ember.worker`, `ember.worker.vectors`) runs where there is no pyspark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.embedding.classification import classify
    from ember.embedding.description import describe
    from ember.embedding.embedding import embed
    from ember.similarity.alignment import fit_alignment
    from ember.similarity.approximate import approximate_top_k
    from ember.similarity.export import export_faiss
    from ember.similarity.join import similarity_join
    from ember.similarity.projection import fit_projection, project
    from ember.similarity.search import top_k
    from ember.training.training import train

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
    "approximate_top_k": "ember.similarity.approximate",
    "classify": "ember.embedding.classification",
    "describe": "ember.embedding.description",
    "embed": "ember.embedding.embedding",
    "export_faiss": "ember.similarity.export",
    "fit_alignment": "ember.similarity.alignment",
    "fit_projection": "ember.similarity.projection",
    "project": "ember.similarity.projection",
    "similarity_join": "ember.similarity.join",
    "top_k": "ember.similarity.search",
    "train": "ember.training.training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ember' has no attribute {name!r}")
