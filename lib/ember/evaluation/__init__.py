"""Judging predictions, neighbors and scores: figures with intervals, tables, issues.

The arithmetic is in `ember.worker.metrics`. The functions here are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.evaluation.classification import judge_classification
    from ember.evaluation.comparing import compare
    from ember.evaluation.multilabel import judge_multilabel
    from ember.evaluation.result import Evaluation, Figure, Issue
    from ember.evaluation.retrieval import judge_retrieval
    from ember.evaluation.similarity import judge_similarity

__all__ = [
    "Evaluation",
    "Figure",
    "Issue",
    "compare",
    "judge_classification",
    "judge_multilabel",
    "judge_retrieval",
    "judge_similarity",
]

_HOMES = {
    "Evaluation": "result",
    "Figure": "result",
    "Issue": "result",
    "compare": "comparing",
    "judge_classification": "classification",
    "judge_multilabel": "multilabel",
    "judge_retrieval": "retrieval",
    "judge_similarity": "similarity",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ember.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ember.evaluation' has no attribute {name!r}")
