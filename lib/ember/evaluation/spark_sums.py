"""Sums on the cluster: every partition adds up its rows, the partial sums are merged by key.

The driver receives sums only: a vector of 1 + B numbers for each figure and slice, and three
figures for each class, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pyspark.sql import DataFrame

from ember.evaluation.slices import slices_of
from ember.spark import classic
from ember.worker.metrics.partial_sums import (
    GroupJudge,
    Held,
    Judge,
    add_rows,
    judge_groups,
    merge_into,
    merge_records,
    unpack,
)
from ember.worker.metrics.sums import ALL, CHUNK_ROWS

__all__ = ["Totals", "by_group", "sum_rows"]

_SCHEMA = "section string, slice string, item int, sums binary"


@dataclass(frozen=True)
class Totals:
    """What the cluster added up, on the sample and on each of B replicates.

    Attributes:
        sums: (K, 1 + B) int64 by section, slice and item.
        classes: what came under the section "class", float64, by item; of classes see
            `merge_records`.
    """

    replicates: int
    sums: Held = field(default_factory=dict)
    classes: dict[int, np.ndarray] = field(default_factory=dict)

    def slices(self) -> list[str]:
        """All rows first, then the slices by name."""
        names = {name for _, name, _ in self.sums} - {ALL}
        return [ALL, *sorted(names)]

    def of(self, section: str, name: str, values: int, item: int = 0) -> np.ndarray:
        """(values, 1 + B) int64; zeros where nothing was added."""
        empty = np.zeros((values, self.replicates + 1), np.int64)
        return self.sums.get((section, name, item), empty)


def sum_rows(
    rows: DataFrame, judge: Judge, replicates: int, chunk_rows: int = CHUNK_ROWS
) -> Totals:
    """Add up `judge` over all rows and replicates.

    rows: `key` long, a hash of the id; strings `slice_0`, `slice_1`, …; and what `judge` reads.
    judge: adds a chunk to the sums; see `merge_records` for what the section "class" is for.
    """
    # Few partial sums: a task takes as many partitions as it can.
    tasks = 2 * classic.cores(rows.sparkSession)
    adder = add_rows(judge, slices_of(rows), replicates, chunk_rows)
    partial = rows.coalesce(tasks).mapInArrow(adder, _SCHEMA)
    keys = ("section", "slice", "item")
    merged = partial.repartition(*keys).sortWithinPartitions(*keys)
    return _received(merged.mapInArrow(merge_records(replicates), _SCHEMA), replicates)


def by_group(rows: DataFrame, groups: Sequence[str], judge: GroupJudge, replicates: int) -> Totals:
    """Have `judge` see all rows of a group at once, in one task.

    The memory of that task bounds a group: the rows travel as they are, and are sorted there.
    judge: from the group's values and its rows to records, as `Sums.drain` yields them.
    """
    ordered = rows.repartition(*groups).sortWithinPartitions(*groups)
    records = ordered.mapInArrow(judge_groups(judge, groups, replicates), _SCHEMA)
    return _received(records, replicates)


def _received(records: DataFrame, replicates: int) -> Totals:
    """Collect records (section, slice, item, sums), and add those of one key."""
    totals = Totals(replicates)
    for row in records.collect():
        if row["section"] == "class":
            totals.classes[row["item"]] = np.frombuffer(row["sums"], np.float64)
        else:
            key = (row["section"], row["slice"], row["item"])
            merge_into(totals.sums, key, unpack(row["sums"], replicates))
    return totals
