"""Sums over rows, for each bootstrap replicate, that can be merged in any order.

Everything added is a whole number, so the sums are exact and the order of adding does not show:
1, 7 or 200 partitions give the same figures to the last bit. Fractions are added as fixed-point
numbers of two limbs (`to_limbs`).

The last axis of sums and weights is always that of `column_weights`: the sample, B replicates, and
what is left without each of G groups, 1 + B + G.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ember.worker.metrics.weights import column_weights

__all__ = [
    "ALL",
    "CHUNK_ROWS",
    "Chunk",
    "Held",
    "Key",
    "Slicing",
    "Sums",
    "Weights",
    "codes_in",
    "flat",
    "from_limbs",
    "records",
    "slicings",
    "to_limbs",
]

ALL = "all"
Key = tuple[str, str, int]
Held = dict[Key, np.ndarray]
# Rows whose weights are in memory at a time: 10,000 x 1101 bytes = 11 MB. A batch of Spark has as
# many.
CHUNK_ROWS = 10_000
_LIMB = 1 << 30


@dataclass(frozen=True)
class Slicing:
    """One way to divide the rows of a chunk: row i belongs to the slice names[codes[i]]."""

    names: Sequence[str]
    codes: np.ndarray


class Weights:
    """The weights of a chunk of n rows, see `column_weights`: (n, 1 + B + G) uint8."""

    def __init__(self, keys: np.ndarray, replicates: int, groups: int = 0) -> None:
        self.matrix = column_weights(keys, range(1 + replicates + groups), replicates)

    def __len__(self) -> int:
        return len(self.matrix)


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


class _Section:
    """The sums of one section by (slice, item), in an array that grows: (h, K, 1 + B + G)."""

    def __init__(self, values: int, columns: int, kind: type) -> None:
        self.places: dict[tuple[str, int], int] = {}
        self.array: np.ndarray = np.zeros((1, values, columns), kind)

    def places_of(self, keys: list[tuple[str, int]]) -> np.ndarray:
        """Where the sums of each key are; new ones begin at 0."""
        places = [self.places.setdefault(key, len(self.places)) for key in keys]
        if len(self.places) > len(self.array):
            room = np.zeros((3 * len(self.places) // 2, *self.array.shape[1:]), self.array.dtype)
            room[: len(self.array)] = self.array
            self.array = room
        return np.array(places, np.int64)


class Sums:
    """Weighted sums by (section, slice, item): arrays (K, 1 + B + G) of whole numbers.

    Counts are held as int32, which two billion rows fill, and handed on as int64. A section
    is one kind of sum of a report (totals, classes, bins, …), an item its row.
    """

    def __init__(self, replicates: int, groups: int = 0) -> None:
        self.replicates = replicates
        self.groups = groups
        self._sections: dict[str, _Section] = {}

    @property
    def columns(self) -> int:
        return 1 + self.replicates + self.groups

    @property
    def nbytes(self) -> int:
        return sum(each.array[: len(each.places)].nbytes for each in self._sections.values())

    @property
    def held(self) -> Held:
        """What was added since the last `drain`, by (section, slice, item)."""
        return {
            (name, *key): section.array[place]
            for name, section in self._sections.items()
            for key, place in section.places.items()
        }

    def add(
        self,
        section: str,
        slicing: Slicing,
        items: np.ndarray,
        values: np.ndarray,
        weights: Weights,
        *,
        rows: np.ndarray | None = None,
    ) -> None:
        """Add m entries.

        items: (m,) int. values: (m, K): bool or int8; or int64 below 2^31 in size, which costs
        twice the time. A section takes values of one type. rows: (m,), the row of the chunk that
        each entry belongs to; by default the entries are the rows.
        """
        from ember.worker.metrics.loops import add_weighted  # numba, which the driver does not need

        if not len(items):
            return
        rows = np.arange(len(items)) if rows is None else rows
        span = int(items.max()) + 1
        groups, group = np.unique(slicing.codes[rows] * span + items, return_inverse=True)
        wide = values.dtype == np.int64
        held = self._section(section, values.shape[1], np.int64 if wide else np.int32)
        places = held.places_of([(slicing.names[g // span], g % span) for g in groups.tolist()])
        small = np.ascontiguousarray(values, np.int64 if wide else np.int8)
        add_weighted(places[group], rows.astype(np.int64), small, weights.matrix, held.array)

    def merge(self, section: str, name: str, item: int, sums: np.ndarray) -> None:
        """Add sums (K, 1 + B + G) int64 to those of a slice and an item."""
        held = self._section(section, len(sums), np.int64)
        (place,) = held.places_of([(name, item)])
        held.array[place] += sums

    def _section(self, name: str, values: int, kind: type) -> _Section:
        if name not in self._sections:
            self._sections[name] = _Section(values, self.columns, kind)
        return self._sections[name]

    def drain(self) -> Iterator[pa.RecordBatch]:
        """Yield all sums as batches (section, slice, item, sums) and start anew."""
        entries = sorted(self.held.items())
        self._sections = {}
        for start in range(0, len(entries), 256):
            part = entries[start : start + 256]
            yield records([(key, array.astype(np.int64)) for key, array in part])


def records(entries: Sequence[tuple[Key, np.ndarray]]) -> pa.RecordBatch:
    """Arrays of sums by their keys, as tasks hand them on: (section, slice, item, sums)."""
    keys = [key for key, _ in entries]
    return pa.RecordBatch.from_pydict(
        {
            "section": pa.array([section for section, _, _ in keys], pa.string()),
            "slice": pa.array([name for _, name, _ in keys], pa.string()),
            "item": pa.array([item for _, _, item in keys], pa.int32()),
            "sums": pa.array([sums.tobytes() for _, sums in entries], pa.binary()),
        }
    )


def slicings(batch: pa.RecordBatch, columns: Sequence[str]) -> list[Slicing]:
    """The whole of a batch, and its divisions by each of the string columns named."""
    found = [Slicing([ALL], np.zeros(batch.num_rows, np.int64))]
    for name in columns:
        encoded = batch.column(name).dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        found.append(Slicing(encoded.dictionary.to_pylist(), codes))
    return found


def to_limbs(values: np.ndarray) -> np.ndarray:
    """Numbers (n, K) in [-1, 1] as fixed-point numbers with a step of 2^-60: (n, 2K) int64."""
    scaled = values * float(_LIMB)
    high = np.floor(scaled)
    low = np.rint((scaled - high) * _LIMB)
    # Not -1 for the columns: there may be no rows.
    return np.stack([high, low], axis=-1).reshape(len(values), 2 * values.shape[1]).astype(np.int64)


def from_limbs(sums: np.ndarray) -> np.ndarray:
    """What sums of `to_limbs`, (2K, …) int64, stand for: (K, …) float64."""
    return sums[0::2] / _LIMB + sums[1::2] / _LIMB / _LIMB


def flat(lists: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """The values of a list column, and the row and the place in its list of each: (m,) int64."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lists)), lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return lists.flatten(), rows, places


def codes_in(values: pa.Array, names: pa.Array) -> np.ndarray:
    """The position of each value in `names`: (n,) int64, -1 for null and what is not there."""
    found = pc.index_in(values, names.cast(values.type)).fill_null(-1)
    codes: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
