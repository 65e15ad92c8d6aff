"""Sums of a task's rows, and sums of sums, as Arrow batches: what the cluster does to judge rows.

A task adds up its rows and hands on records (section, slice, item, sums); records of one key are
added in a second step, wherever they meet. See `ember.worker.metrics.sums` for why neither the
order nor the partitions show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ember.worker.metrics.classes import class_figures, contributions
from ember.worker.metrics.intervals import interval
from ember.worker.metrics.sums import ALL, Chunk, Held, Key, Sums, Weights, records, slicings

__all__ = [
    "Batches",
    "GroupJudge",
    "Judge",
    "add_rows",
    "judge_groups",
    "merge_into",
    "merge_records",
    "record",
    "unpack",
]

# What a task holds before it hands its sums on; 10,000 classes and 1,000 replicates are 120 MB.
_HELD_BYTES = 256 << 20


Batches = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Judge = Callable[[Chunk, Sums], None]
GroupJudge = Callable[[tuple[Any, ...], pa.Table, Sums], Iterable[pa.RecordBatch]]


def add_rows(
    judge: Judge, columns: Sequence[str], replicates: int, chunk_rows: int, groups: int = 0
) -> Batches:
    """From rows to records: `judge` adds each chunk. columns: those that hold a slice's name."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = Sums(replicates, groups)
        for batch in batches:
            for start in range(0, batch.num_rows, chunk_rows):
                rows = batch.slice(start, chunk_rows)
                keys = rows.column("key").to_numpy(zero_copy_only=False)
                weights = Weights(keys, replicates, groups)
                judge(Chunk(rows, weights, slicings(rows, columns)), sums)
            if sums.nbytes > _HELD_BYTES:
                yield from sums.drain()
        yield from sums.drain()

    return run


def merge_records(replicates: int, groups: int = 0) -> Batches:
    """From records in order of their keys to one record a key.

    Sums of the section "class" are tp, support and predicted of a class. They become, under
    "macro", sums of `contributions` for each slice, and of the whole a summary: (12,) float64, the
    counts, then precision, recall and F1, each with the ends of its interval.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        macro = Sums(replicates, groups)
        for (section, name, item), sums in _merged(batches, 1 + replicates + groups):
            if section == "class":
                macro.merge("macro", name, 0, contributions(sums))
                if name == ALL:
                    yield record(section, name, item, _summary(sums, groups))
            else:
                yield record(section, name, item, sums)
        yield from macro.drain()

    return run


def judge_groups(
    judge: GroupJudge, columns: Sequence[str], replicates: int, groups: int = 0
) -> Batches:
    """From rows in order of `columns` to records: `judge` sees all rows of a group at once."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = Sums(replicates, groups)
        for key, table in _groups(batches, columns):
            yield from judge(key, table, sums)
        yield from sums.drain()

    return run


def record(section: str, name: str, item: int, sums: np.ndarray) -> pa.RecordBatch:
    """One array of sums, as tasks hand it on."""
    return records([((section, name, item), sums)])


def unpack(packed: bytes | pa.Buffer, replicates: int, groups: int = 0) -> np.ndarray:
    """The sums of a record: (K, 1 + B + G) int64."""
    return np.frombuffer(packed, np.int64).reshape(-1, 1 + replicates + groups)


def merge_into(held: Held, key: Key, sums: np.ndarray) -> None:
    """Add `sums` to those of `key`."""
    if key in held:
        held[key] += sums
    else:
        held[key] = sums.copy()


def _merged(batches: Iterable[pa.RecordBatch], columns: int) -> Iterator[tuple[Key, np.ndarray]]:
    """Sums of records that come in order of their keys."""
    held: Held = {}
    for batch in batches:
        keys = zip(*(batch.column(place).to_pylist() for place in range(3)), strict=True)
        for key, packed in zip(keys, batch.column(3), strict=True):
            if held and key not in held:
                yield held.popitem()
            merge_into(held, key, unpack(packed.as_buffer(), columns - 1))
    if held:
        yield held.popitem()


def _summary(sums: np.ndarray, groups: int) -> np.ndarray:
    """See `merge_records`: (12,) float64 of tp, support and predicted, (3, 1 + B + G)."""
    figures = class_figures(sums)
    ends = [(each[0], *interval(each, groups, within=(0.0, 1.0))) for each in figures]
    return np.concatenate([sums[:, 0].astype(np.float64), *ends])


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
