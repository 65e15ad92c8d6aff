"""Sums on the cluster: every partition adds up its rows, the partial sums are merged by key.

The driver receives sums only: a vector of 1 + B numbers for each figure and slice, and three
figures for each class, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from ember.spark import classic
from ember.worker.metrics.classes import class_figures, contributions
from ember.worker.metrics.sums import ALL, CHUNK_ROWS, Slicing, Sums, Weights, slicings
from ember.worker.metrics.weights import interval

__all__ = ["Chunk", "Totals", "by_group", "receive", "record", "sum_rows"]

_SCHEMA = "section string, slice string, item int, sums binary"
# What a task holds before it hands its sums on; 10,000 classes and 1,000 replicates are 120 MB.
_HELD_BYTES = 256 << 20


@dataclass(frozen=True)
class Chunk:
    """Rows of a partition with their weights and their divisions into slices."""

    rows: pa.RecordBatch
    weights: Weights
    slicings: Sequence[Slicing]

    def numbers(self, name: str) -> np.ndarray:
        """The column `name`, nulls as NaN, where it has any."""
        values: np.ndarray = self.rows.column(name).to_numpy(zero_copy_only=False)
        return values


Judge = Callable[[Chunk, Sums], None]
GroupJudge = Callable[[tuple[Any, ...], pa.Table, Sums], Iterable[pa.RecordBatch]]


@dataclass(frozen=True)
class Totals:
    """What the cluster added up.

    sums: (K, 1 + B) int64 by section, slice and item. classes: by class, the counts tp, support,
    predicted and then precision, recall, F1, each with the ends of its interval: (12,) float64.
    """

    sums: dict[tuple[str, str, int], np.ndarray]
    classes: dict[int, np.ndarray]

    def slices(self) -> list[str]:
        """All rows first, then the slices by name."""
        names = {name for _, name, _ in self.sums} - {ALL}
        return [ALL, *sorted(names)]

    def of(
        self, section: str, name: str, values: int, replicates: int, item: int = 0
    ) -> np.ndarray:
        """(values, 1 + B) int64; zeros where nothing was added."""
        empty = np.zeros((values, replicates + 1), np.int64)
        return self.sums.get((section, name, item), empty)


def sum_rows(
    rows: DataFrame, judge: Judge, replicates: int, chunk_rows: int = CHUNK_ROWS
) -> Totals:
    """Add up `judge` over all rows and replicates.

    rows: `key` long, a hash of the id; strings `slice_0`, `slice_1`, …; and what `judge` reads.
    judge: adds a chunk to the sums. What it adds under the section "class" must be tp, support
        and predicted of a class; those are turned into `Totals.classes` for the whole, and into
        sums of `contributions` under "macro" for every slice, on the cluster.
    """
    columns = [name for name in rows.columns if name.startswith("slice_")]
    # Few partial sums: a task takes as many partitions as it can.
    tasks = 2 * classic.cores(rows.sparkSession)
    partial = rows.coalesce(tasks).mapInArrow(
        _adder(judge, columns, replicates, chunk_rows), _SCHEMA
    )
    keys = ("section", "slice", "item")
    merged = partial.repartition(*keys).sortWithinPartitions(*keys)
    totals = Totals({}, {})
    receive(merged.mapInArrow(_merger(replicates), _SCHEMA), totals, replicates)
    return totals


def receive(records: DataFrame, totals: Totals, replicates: int) -> None:
    """Add records (section, slice, item, sums) to `totals`, sums of one key together."""
    for row in records.collect():
        if row["section"] == "class":
            totals.classes[row["item"]] = np.frombuffer(row["sums"], np.float64)
            continue
        key = (row["section"], row["slice"], row["item"])
        _merge_into(totals.sums, key, _unpack(row["sums"], replicates))


def by_group(rows: DataFrame, groups: Sequence[str], judge: GroupJudge, replicates: int) -> Totals:
    """Have `judge` see all rows of a group at once, in one task.

    The memory of that task bounds a group: the rows travel as they are, and are sorted there.
    judge: from the group's values and its rows to records, as `Sums.drain` yields them.
    """
    ordered = rows.repartition(*groups).sortWithinPartitions(*groups)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = Sums(replicates)
        for key, table in _groups(batches, groups):
            yield from judge(key, table, sums)
        yield from sums.drain()

    totals = Totals({}, {})
    receive(ordered.mapInArrow(run, _SCHEMA), totals, replicates)
    return totals


def _groups(
    batches: Iterable[pa.RecordBatch], names: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """The groups of rows that come one after the other."""
    held: list[pa.RecordBatch] = []
    key: tuple[Any, ...] | None = None
    for batch in batches:
        changed = np.zeros(max(0, batch.num_rows - 1), bool)
        for name in names:
            values = batch.column(name)
            differs = pc.not_equal(values[1:], values[:-1]) if len(values) else []
            changed |= np.asarray(differs, bool)
        bounds = [0, *(np.flatnonzero(changed) + 1).tolist(), batch.num_rows]
        for start, stop in pairwise(bounds):
            if start == stop:
                continue
            part = batch.slice(start, stop - start)
            found = tuple(part.column(name)[0].as_py() for name in names)
            if held and found != key:
                yield key or (), pa.Table.from_batches(held)
                held = []
            key = found
            held.append(part)
    if held:
        yield key or (), pa.Table.from_batches(held)


def _adder(
    judge: Judge, columns: Sequence[str], replicates: int, chunk_rows: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = Sums(replicates)
        for batch in batches:
            for start in range(0, batch.num_rows, chunk_rows):
                rows = batch.slice(start, chunk_rows)
                keys = rows.column("key").to_numpy(zero_copy_only=False)
                judge(Chunk(rows, Weights(keys, replicates), slicings(rows, columns)), sums)
            if sums.nbytes > _HELD_BYTES:
                yield from sums.drain()
        yield from sums.drain()

    return run


def _merger(replicates: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        macro = Sums(replicates)
        for (section, name, item), sums in _merged(batches, replicates):
            if section == "class":
                _merge_into(macro.held, ("macro", name, 0), contributions(sums))
                if name == ALL:
                    yield record(section, name, item, _summary(sums))
            else:
                yield record(section, name, item, sums)
        yield from macro.drain()

    return run


def _merged(
    batches: Iterable[pa.RecordBatch], replicates: int
) -> Iterator[tuple[tuple[str, str, int], np.ndarray]]:
    """Sums of records that come in order of their keys."""
    held: dict[tuple[str, str, int], np.ndarray] = {}
    for batch in batches:
        keys = zip(*(batch.column(place).to_pylist() for place in range(3)), strict=True)
        for key, packed in zip(keys, batch.column(3), strict=True):
            if held and key not in held:
                yield held.popitem()
            _merge_into(held, key, _unpack(packed.as_buffer(), replicates))
    if held:
        yield held.popitem()


def _summary(sums: np.ndarray) -> np.ndarray:
    figures = class_figures(sums)
    ends = [(values[0], *interval(values)) for values in figures]
    return np.concatenate([sums[:, 0].astype(np.float64), *ends])


def _merge_into(
    held: dict[tuple[str, str, int], np.ndarray], key: tuple[str, str, int], sums: np.ndarray
) -> None:
    if key in held:
        held[key] += sums
    else:
        held[key] = sums.copy()


def _unpack(packed: bytes | pa.Buffer, replicates: int) -> np.ndarray:
    return np.frombuffer(packed, np.int64).reshape(-1, replicates + 1)


def record(section: str, name: str, item: int, sums: np.ndarray) -> pa.RecordBatch:
    """One array of sums, as tasks hand it on."""
    return pa.RecordBatch.from_pydict(
        {
            "section": pa.array([section], pa.string()),
            "slice": pa.array([name], pa.string()),
            "item": pa.array([item], pa.int32()),
            "sums": pa.array([sums.tobytes()], pa.binary()),
        }
    )
