"""Random labeled rows, and recipes for them."""

from __future__ import annotations

import numpy as np

from ember.worker.heads.fit import Recipe
from ember.worker.heads.rows import Rows


def labeled(n=150, d=6, c=3, seed=0, multilabel=False):
    """Rows around a center for each label; not separable."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(c, d))
    if multilabel:
        targets = rng.random((n, c)) < [0.5, 0.3, 0.1][:c]
        matrix = targets @ centers + rng.normal(size=(n, d))
    else:
        targets = rng.choice(c, n, p=[0.6, 0.3, 0.1][:c] if c == 3 else None)
        matrix = centers[targets] + rng.normal(size=(n, d))
    matrix = (3 + 5 * matrix).astype(np.float32)
    return Rows(matrix, targets, rng.random(n), np.full(n, "train"))


def recipe(rows, **changes):
    multilabel = rows.targets.ndim == 2
    c = rows.targets.shape[1] if multilabel else rows.targets.max() + 1
    given = {
        "kind": "logistic",
        "labels": tuple(map(str, range(c))),
        "multilabel": multilabel,
        "parts": (rows.matrix.shape[1],),
        "scaling": "feature",
    }
    return Recipe(**{**given, **changes})
