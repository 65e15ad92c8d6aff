"""Precision, recall and F1 of classes, and their averages, from counts that can be merged.

For a class c, over the judged rows: tp rows of c that were predicted c, `support` rows of c,
`predicted` rows predicted c. Then

    precision = tp / predicted      recall = tp / support      F1 = 2 tp / (support + predicted)

A denominator of zero gives 0, as scikit-learn's zero_division=0 (van Rijsbergen, Information
Retrieval, 1979; scikit-learn, precision_recall_fscore_support). Averages:

    macro     the mean over the classes that occur, in truth or prediction; in a bootstrap
              replicate, over those that occur in it
    weighted  the mean over the classes, weighted by support
    micro     the figure of the counts summed over the classes
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ember.worker.metrics.sums import from_limbs, to_limbs

__all__ = ["FIGURES", "averages", "class_figures", "contributions", "micro", "ratio"]

FIGURES = ("precision", "recall", "f1")


def ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Numerator / denominator, elementwise, in float64; `empty` where the denominator is 0."""
    result = np.full(np.broadcast(numerator, denominator).shape, empty, np.float64)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) != 0)
    return result


def class_figures(sums: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 from (3, …) counts tp, support, predicted: (3, …) float64."""
    tp, support, predicted = sums
    return np.stack(
        [ratio(tp, predicted, 0), ratio(tp, support, 0), ratio(2 * tp, support + predicted, 0)]
    )


def contributions(sums: np.ndarray) -> np.ndarray:
    """What a class adds to the averages, as whole numbers: (14, 1 + B) int64 from (3, 1 + B).

    Whether it occurs, its support, its figures in limbs, and those times its support.
    """
    support = sums[1]
    occurs = (sums[1] + sums[2] > 0).astype(np.int64)
    limbs = to_limbs(class_figures(sums).T).T
    return np.concatenate([[occurs, support], limbs, limbs * support])


def averages(total: np.ndarray) -> dict[str, np.ndarray]:
    """Macro and weighted averages from the sum of `contributions`: (1 + B,) for each name.

    NaN where no class occurs.
    """
    occurs, support = total[0], total[1]
    plain, weighted = from_limbs(total[2:8]), from_limbs(total[8:14])
    return {
        **{f"macro_{name}": ratio(plain[k], occurs) for k, name in enumerate(FIGURES)},
        **{f"weighted_{name}": ratio(weighted[k], support) for k, name in enumerate(FIGURES)},
    }


def micro(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Micro averages from tp, support and predicted summed over classes; 0 / 0 is 0 for each."""
    figures = class_figures(np.stack([counts[name] for name in ("tp", "support", "predicted")]))
    return {f"micro_{name}": figures[k] for k, name in enumerate(FIGURES)}
