"""What a row with several labels adds to the sums of a multi-label report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ember.worker.metrics.curves import precision_recall, rank_against
from ember.worker.metrics.intervals import interval
from ember.worker.metrics.partial_sums import record
from ember.worker.metrics.ranking import label_ranking_precision, precision_at
from ember.worker.metrics.sums import ALL, Chunk, Sums, codes_in, flat, to_limbs

__all__ = ["COUNTS", "LabelSums", "rank_label"]

COUNTS = 6


@dataclass(frozen=True)
class LabelSums:
    """Sums over rows (truth, labels, scores), all lists; labels null without a usable prediction.

    names: every label. top_k: for which k precision@k is taken. threshold: the score from which a
    listed label is predicted.
    """

    names: pa.Array
    top_k: tuple[int, ...]
    threshold: float

    @property
    def values(self) -> int:
        """Six counts, and LRAP and each precision@k in limbs."""
        return COUNTS + 2 * (1 + len(self.top_k))

    def add(self, chunk: Chunk, sums: Sums) -> None:
        """Add a chunk to the sections "total" and "class".

        To "total" rows, rows right as a whole, labels wrong, then tp, support and predicted of all
        labels, then the ranks; to "class" tp, support and predicted of each label.
        """
        rows = chunk.rows.num_rows
        truth = np.zeros((rows, len(self.names)), bool)
        scores = np.full(truth.shape, -np.inf)
        order = np.full((rows, max(self.top_k)), -1)
        labels, row, _ = flat(chunk.rows.column("truth"))
        truth[row, codes_in(labels, self.names)] = True
        labels, row, place = flat(chunk.rows.column("labels"))
        codes = codes_in(labels, self.names)
        scores[row, codes] = flat(chunk.rows.column("scores"))[0].to_numpy(zero_copy_only=False)
        first = place < order.shape[1]
        order[row[first], place[first]] = codes[first]
        predicted = (scores >= self.threshold) & (scores > -np.inf)
        answered = chunk.rows.column("labels").is_valid().to_numpy(zero_copy_only=False)
        wrong = (truth != predicted).sum(axis=1)
        hit = truth & predicted
        counts = [np.ones(rows), answered & (wrong == 0), wrong]
        counts += [cells.sum(axis=1) for cells in (hit, truth, predicted)]
        ranks = [label_ranking_precision(scores, truth)]
        ranks += [precision_at(order, truth, k) for k in self.top_k]
        values = np.column_stack([np.stack(counts, axis=1), to_limbs(np.stack(ranks, axis=1))])
        zeros = np.zeros(rows, np.int64)
        for slicing in chunk.slicings:
            sums.add("total", slicing, zeros, values.astype(np.int64), chunk.weights)
            for cells, of_truth in ((truth, True), (predicted, False)):
                row, item = np.nonzero(cells)
                counted = np.full(len(row), of_truth)
                entries = np.stack([hit[row, item] & of_truth, counted, ~counted], axis=1)
                sums.add("class", slicing, item, entries, chunk.weights, rows=row)


def rank_label(
    everything: dict[str, np.ndarray],
    codes: dict[Any, int],
    group: tuple[str, Any],
    rows: pa.Table,
    sums: Sums,
) -> Iterator[pa.RecordBatch]:
    """Average precision of a label in a slice, and what it adds to the mean.

    everything: (1 + B,) by slice, how many rows it has. codes: the position of each label. group:
    the slice and the label. rows: (score, positive, key), where the label is listed or true.
    Adds whether it is defined, and its value in limbs, to "mean". Yields, for the whole, under
    "class" the average precision, the ends of its interval, and points of its curve.
    """
    name, label = group
    scores, positive, keys = (
        rows.column(column).to_numpy() for column in ("score", "positive", "key")
    )
    total = everything[name].astype(np.float64)
    values = rank_against(
        scores, positive.astype(bool), keys, sums.replicates, total, groups=sums.groups
    )
    precision = values.average_precision
    defined = ~np.isnan(precision)
    limbs = to_limbs(np.where(defined, precision, 0)[:, None]).T
    sums.merge("mean", name, 0, np.concatenate([[defined.astype(np.int64)], limbs]))
    if name == ALL:
        ends = [precision[0], *interval(precision, sums.groups, within=(0.0, 1.0))]
        curve = precision_recall(scores, positive.astype(bool))
        yield record("class", name, codes[label], np.array([*ends, *curve.ravel()]))
