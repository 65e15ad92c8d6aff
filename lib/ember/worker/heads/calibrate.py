"""Scores that mean what they say: temperature, Platt scaling, thresholds, held-out figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ember.worker.heads.head import Float32, Head
from ember.worker.heads.rows import Float64, Rows

__all__ = [
    "calibrate",
    "common_threshold",
    "figures",
    "negative_log_likelihood",
    "platt",
    "temperature",
]

# Fewer rows with (or without) a label do not carry a scaling of its own.
_PLATT_ROWS = 10
_LOWEST = 1e-12


def calibrate(head: Head, rows: Rows, threshold: float | None) -> Head:
    """The head with slope, offset and thresholds fitted on validation rows.

    One label a row: a temperature (Guo et al., On Calibration of Modern Neural Networks, 2017).
    Many labels: Platt scaling (Platt 1999, with his smoothed targets) of each label that at least
    10 rows have and 10 have not; the others share one scaling, fitted on all labels together.
    threshold: of a multi-label head; None: the one that gives the highest micro-F1 on `rows`.
    Without validation rows the scores stay as they are, and the threshold None becomes 0.5.
    """
    known = rows if head.multilabel else rows.take(rows.targets >= 0)
    if not len(known):
        fixed = np.full(len(head.labels), 0.5 if threshold is None else threshold, np.float32)
        about = {**head.about, "calibration": {"method": "none", "rows": 0}}
        return replace(head, thresholds=fixed, about=about)
    logits = head.logits(known.matrix).astype(np.float64)
    notes: dict[str, Any]
    if head.multilabel:
        slope, offset, own = _platt_all(logits, known.targets)
        notes = {"method": "platt", "labels_by_themselves": int(own.sum())}
    else:
        degrees = temperature(logits, known.targets)
        slope, offset = np.full(len(head.labels), 1 / degrees), np.zeros(len(head.labels))
        notes = {"method": "temperature", "temperature": round(degrees, 6)}
    fitted = replace(head, slope=slope.astype(np.float32), offset=offset.astype(np.float32))
    before, after = (
        negative_log_likelihood(each.scores(known.matrix), known.targets) for each in (head, fitted)
    )
    notes |= {"rows": len(known), "nll_before": round(before, 6), "nll": round(after, 6)}
    if head.multilabel:
        if threshold is None:
            threshold = common_threshold(fitted.scores(known.matrix), known.targets)
            notes["threshold"] = "highest micro-F1 on the validation rows"
        thresholds = np.full(len(head.labels), threshold, np.float32)
        fitted = replace(fitted, thresholds=thresholds)
    return replace(fitted, about={**head.about, "calibration": notes})


def temperature(logits: Float64, targets: NDArray[np.int64]) -> float:
    """T that minimizes the cross-entropy of softmax(logits / T), between 1/100 and 100."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    chosen = logits[np.arange(len(targets)), targets]

    def loss(log: float) -> float:
        warmth = np.exp(-log)
        return float((logsumexp(logits * warmth, axis=1) - chosen * warmth).mean())

    bounds = (-np.log(100), np.log(100))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def platt(logits: Float64, targets: NDArray[np.bool_]) -> tuple[float, float]:
    """(slope, offset) of a sigmoid over (n,) logits, slope above 0.

    The targets are smoothed as Platt has it: (n+ + 1) / (n+ + 2) and 1 / (n- + 2).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    present = int(targets.sum())
    absent = len(targets) - present
    smooth = np.where(targets, (present + 1) / (present + 2), 1 / (absent + 2))

    def loss(point: Float64) -> tuple[float, Float64]:
        slope = np.exp(point[0])
        z = slope * logits + point[1]
        error = expit(z) - smooth
        gradient = np.array([slope * (error @ logits), error.sum()]) / len(z)
        return float((np.logaddexp(0, z) - smooth * z).mean()), gradient

    bounds = [(-np.log(100), np.log(100)), (None, None)]
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return float(np.exp(found.x[0])), float(found.x[1])


def _platt_all(
    logits: Float64, targets: NDArray[np.bool_]
) -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """(slope, offset) of each label, and which labels have their own."""
    slope, offset = platt(logits.ravel(), targets.ravel())
    slopes, offsets = np.full(targets.shape[1], slope), np.full(targets.shape[1], offset)
    present = targets.sum(axis=0)
    own = np.minimum(present, len(targets) - present) >= _PLATT_ROWS
    for label in np.flatnonzero(own):
        slopes[label], offsets[label] = platt(logits[:, label], targets[:, label])
    return slopes, offsets, own


def common_threshold(scores: Float32, targets: NDArray[np.bool_]) -> float:
    """The score from which labels are given, for the highest micro-F1; 0.5 where none is true.

    With calibrated scores one threshold for all labels is the best there is (Lipton, Elkan and
    Narayanaswamy, Optimal Thresholding of Classifiers to Maximize F1, 2014).
    """
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked, right = scores.ravel()[order], targets.ravel()[order]
    if not right.any():
        return 0.5
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + right.sum())
    last = np.append(ranked[1:] < ranked[:-1], True)  # of equal scores all are given
    best = int(np.argmax(np.where(last, f1, -1)))
    below = float(ranked[best + 1]) if best + 1 < len(ranked) else 0.0
    return (float(ranked[best]) + below) / 2


def negative_log_likelihood(scores: Float32, targets: NDArray[Any]) -> float:
    """Mean over rows (of many labels: over rows and labels) of -log of the true outcome's score."""
    exact = scores.astype(np.float64)
    if targets.ndim == 1:
        likely = exact[np.arange(len(targets)), targets]
    else:
        likely = np.where(targets, exact, 1 - exact)
    return float(-np.log(np.maximum(likely, _LOWEST)).mean())


def figures(head: Head, rows: Rows) -> dict[str, Any]:
    """How well the head does on rows it has not seen; {} without rows.

    One label a row: accuracy; a label that the head does not know counts as a mistake. Many labels:
    micro-F1 at the thresholds, and the mean of average precision over the labels that occur, both
    as scikit-learn defines them. Both: the negative log-likelihood.
    """
    if not len(rows):
        return {}
    scores = head.scores(rows.matrix)
    if head.multilabel:
        from sklearn.metrics import average_precision_score, f1_score

        occurs = rows.targets.any(axis=0)
        given = scores >= head.thresholds
        out = {
            "micro_f1": f1_score(rows.targets, given, average="micro", zero_division=0),
            "nll": negative_log_likelihood(scores, rows.targets),
        }
        if occurs.any():
            true, ranked = rows.targets[:, occurs], scores[:, occurs]
            each = [average_precision_score(*pair) for pair in zip(true.T, ranked.T, strict=True)]
            out["mean_average_precision"] = np.mean(each)
    else:
        known = rows.targets >= 0
        out = {"accuracy": (scores.argmax(axis=1) == rows.targets).mean()}
        if known.any():
            out["nll"] = negative_log_likelihood(scores[known], rows.targets[known])
    return {"rows": len(rows), **{name: round(float(value), 6) for name, value in out.items()}}
