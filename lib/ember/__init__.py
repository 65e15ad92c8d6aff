"""Ember: batch embedding, similarity and evaluation of image and text corpora on Apache Spark.

The functions here are the driver side. They are imported on first use, so that the executor side
(`ember.engine`, `ember.similarity`) runs where there is no pyspark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.classification import classify
    from ember.comparison import similarity_join, top_k
    from ember.embedding import embed

__all__ = ["classify", "embed", "similarity_join", "top_k"]

_HOMES = {
    "classify": "ember.classification",
    "embed": "ember.embedding",
    "similarity_join": "ember.comparison",
    "top_k": "ember.comparison",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ember' has no attribute {name!r}")
