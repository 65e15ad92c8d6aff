"""The figures of scores of pairs against a truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ember.worker.metrics.curves import correlations, precision_recall, rank_against
from ember.worker.metrics.partial_sums import record
from ember.worker.metrics.sums import ALL, Sums

__all__ = ["PAIR_FIGURES", "judge_pairs"]

PAIR_FIGURES = (
    "pearson",
    "spearman",
    "roc_auc",
    "average_precision",
    "best_f1",
    "best_threshold",
)


def judge_pairs(
    binary: bool, group: tuple[str], rows: pa.Table, sums: Sums
) -> Iterator[pa.RecordBatch]:
    """The figures of a slice, as float64 bits in place of sums; its rows in place of an item.

    binary: whether the truth is 0 and 1, which the last four figures need. rows: (score, truth,
    key). Under "class", the points of the curve of the whole.
    """
    scores, truth, keys = (rows.column(name).to_numpy() for name in ("score", "truth", "key"))
    # 0.0 and -0.0 are one score.
    scores, truth = scores + 0.0, truth + 0.0
    found = correlations(scores, truth, keys, sums.replicates, sums.groups)
    values = [found["pearson"], found["spearman"]]
    if binary:
        ranked = rank_against(scores, truth == 1, keys, sums.replicates, groups=sums.groups)
        if group[0] == ALL:
            yield record("class", ALL, 0, precision_recall(scores, truth == 1))
        values += [ranked.roc_auc, ranked.average_precision, ranked.best_f1, ranked.best_threshold]
    else:
        values += [np.full(sums.columns, np.nan)] * 4
    yield record("figures", group[0], len(scores), np.stack(values).view(np.int64))
