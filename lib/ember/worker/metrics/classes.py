"""Figures of classes, from sums that can be merged: precision, recall, F1, calibration.

For a class c, over the judged rows: tp rows of c that were predicted c, `support` rows of c,
`predicted` rows predicted c. Then

    precision = tp / predicted      recall = tp / support      F1 = 2 tp / (support + predicted)

A denominator of zero gives 0, as scikit-learn's zero_division=0 (van Rijsbergen, Information
Retrieval, 1979; scikit-learn, precision_recall_fscore_support). Averages:

    macro     the mean over the classes that occur, in truth or prediction; in a bootstrap
              replicate, over those that occur in it
    weighted  the mean over the classes, weighted by support
    micro     the figure of the counts summed over the classes

Calibration is whether the scores of the answers are the frequencies with which they are right. The
scores of the first predictions are put into bins of equal width, ((i - 1)/m, i/m] for bin i of m, a
score of 0 into the first. With the rows, the accuracy and the mean score of each bin:

    ECE = sum over bins of rows / n * |accuracy - mean score|

(Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017, with m = 15;
Naeini, Cooper & Hauskrecht, AAAI 2015.) Empty bins add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ember.worker.metrics.sums import Chunk, Sums, codes_in, from_limbs, to_limbs

__all__ = [
    "FIGURES",
    "ClassSums",
    "averages",
    "bin_of",
    "calibration_error",
    "class_figures",
    "contributions",
    "micro",
    "ratio",
]

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


def bin_of(scores: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each score, from 0: (n,) int64; -1 for NaN and what lies outside 0 to 1."""
    inside = (scores >= 0) & (scores <= 1)
    edges = np.arange(1, bins) / bins
    return np.where(inside, np.searchsorted(edges, np.where(inside, scores, 0)), -1)


def calibration_error(rows: np.ndarray, hits: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """ECE from sums of each bin, (m, 1 + B) each: (1 + B,), NaN where there is no row."""
    gaps = np.abs(hits - scores).sum(axis=0)
    return ratio(gaps, rows.sum(axis=0))


@dataclass(frozen=True)
class ClassSums:
    """Sums over rows (truth, answer, place, score).

    truth, answer: labels, the answer null without a usable prediction. place: where the truth is
    among the labels predicted, from 1; 0 where it is not. score: of the answer.

    names: every label. top_k: for which k hits among the first k count. bins: of the confidence.
    """

    names: pa.Array
    top_k: tuple[int, ...]
    bins: int

    @property
    def counts(self) -> int:
        """Rows, answered rows, scores that are no probability, hits, hits in the first k."""
        return 4 + len(self.top_k)

    def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add a chunk to the sections "total", "class" and "bin".

        To "total" the counts; to "class" tp, support and predicted of each class; to "bin" the
        rows, the hits and the scores (in limbs) of each bin.
        """
        columns = (chunk.rows.column(name) for name in ("truth", "answer"))
        truth, answer = (codes_in(column, self.names) for column in columns)
        place, scores = chunk.numbers("place"), chunk.numbers("score")
        answered, hit = answer >= 0, (answer >= 0) & (answer == truth)
        bins = bin_of(scores, self.bins)
        improper = answered & (bins < 0)
        every = [np.ones(len(truth), bool), answered, improper, hit]
        every += [(place > 0) & (place <= k) for k in self.top_k]
        none = np.zeros(len(truth), bool)
        proper = np.flatnonzero(answered & (bins >= 0))
        binned = np.column_stack(
            [np.ones(len(proper), np.int64), hit[proper], to_limbs(scores[proper, None])]
        )
        zeros = np.zeros(len(truth), np.int64)
        rows = np.flatnonzero(answered)
        for slicing in chunk.slicings:
            weights = chunk.weights
            sums.add("total", slicing, zeros, np.stack(every, axis=1), weights)
            of_truth = np.stack([hit, every[0], none], axis=1)
            sums.add("class", slicing, truth, of_truth, weights)
            of_answer = np.stack([none, none, answered], axis=1)[rows]
            sums.add("class", slicing, answer[rows], of_answer, weights, rows=rows)
            sums.add("bin", slicing, bins[proper], binned, weights, rows=proper)
