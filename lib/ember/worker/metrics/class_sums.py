"""What a row with one label adds to the sums of a classification report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ember.worker.metrics.calibration import bin_of
from ember.worker.metrics.partial_sums import Chunk
from ember.worker.metrics.sums import Sums, codes_in, to_limbs

__all__ = ["ClassSums"]


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
