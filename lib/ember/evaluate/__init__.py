"""Judging predictions, neighbors and scores: figures with intervals, tables, issues.

The kernels (weights, sums, classes, calibration, ranking, curves) are numpy and run anywhere. The
functions here are the driver side; they are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.evaluate.classification import judge_classification
    from ember.evaluate.comparing import compare
    from ember.evaluate.multilabel import judge_multilabel
    from ember.evaluate.report import Evaluation, Figure, Issue
    from ember.evaluate.retrieval import judge_retrieval
    from ember.evaluate.similarity import judge_similarity

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
    "Evaluation": "report",
    "Figure": "report",
    "Issue": "report",
    "compare": "comparing",
    "judge_classification": "classification",
    "judge_multilabel": "multilabel",
    "judge_retrieval": "retrieval",
    "judge_similarity": "similarity",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ember.evaluate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ember.evaluate' has no attribute {name!r}")
