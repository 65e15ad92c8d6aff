"""Sums over rows, for each bootstrap replicate, that can be merged in any order.

Everything added is a whole number, so the sums are exact and the order of adding does not show:
1, 7 or 200 partitions give the same figures to the last bit. Fractions are added as fixed-point
numbers of two limbs (`to_limbs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from ember.worker.metrics.weights import poisson_weights

__all__ = [
    "ALL",
    "CHUNK_ROWS",
    "Chunk",
    "Slicing",
    "Sums",
    "Weights",
    "codes_in",
    "flat",
    "from_limbs",
    "slicings",
    "to_limbs",
]

ALL = "all"
# Rows whose weights are in memory at a time: 2048 rows x 1001 replicates x 4 bytes = 8 MB.
CHUNK_ROWS = 2048
_LIMB = 1 << 30


@dataclass(frozen=True)
class Slicing:
    """One way to divide the rows of a chunk: row i belongs to the slice names[codes[i]]."""

    names: Sequence[str]
    codes: np.ndarray


class Weights:
    """The bootstrap weights of a chunk of n rows, replicate 0 being the sample: (n, 1 + B)."""

    def __init__(self, keys: np.ndarray, replicates: int) -> None:
        self.single = poisson_weights(keys, range(replicates + 1))

    @cached_property
    def double(self) -> np.ndarray:
        return self.single.astype(np.float64)

    def __len__(self) -> int:
        return len(self.single)


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


class Sums:
    """Weighted sums by (section, slice, item): arrays (K, 1 + B) of whole numbers.

    Counts are held as int32, which two billion rows fill, and handed on as int64. A section
    is one kind of sum of a report (totals, classes, bins, …), an item its row.
    """

    def __init__(self, replicates: int) -> None:
        self.replicates = replicates
        self.held: dict[tuple[str, str, int], np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.held.values())

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
        twice the time. rows: (m,), the row of the chunk that each entry belongs to; by default
        the entries are the rows.
        """
        if not len(items):
            return
        rows = np.arange(len(items)) if rows is None else rows
        # Sums of a chunk stay below 2^24, or 2^53, and so are exact.
        matrix = weights.double if values.dtype == np.int64 else weights.single
        span = int(items.max()) + 1
        groups, group = np.unique(slicing.codes[rows] * span + items, return_inverse=True)
        kind = np.int64 if values.dtype == np.int64 else np.int32
        added = np.zeros((len(groups), values.shape[1], matrix.shape[1]), kind)
        for position in np.flatnonzero(values.any(axis=0)):
            data = values[:, position].astype(matrix.dtype)
            shape = (len(groups), len(weights))
            added[:, position] = csr_array((data, (group, rows)), shape=shape) @ matrix
        for number, code in enumerate(groups.tolist()):
            key = (section, slicing.names[code // span], code % span)
            if key in self.held:
                self.held[key] += added[number]
            else:
                self.held[key] = added[number].copy()

    def drain(self) -> Iterator[pa.RecordBatch]:
        """Yield all sums as batches (section, slice, item, sums) and start anew."""
        entries = sorted(self.held.items())
        self.held = {}
        for start in range(0, len(entries), 256):
            part = entries[start : start + 256]
            packed = [array.astype(np.int64).tobytes() for _, array in part]
            yield pa.RecordBatch.from_pydict(
                {
                    "section": pa.array([key[0] for key, _ in part], pa.string()),
                    "slice": pa.array([key[1] for key, _ in part], pa.string()),
                    "item": pa.array([key[2] for key, _ in part], pa.int32()),
                    "sums": pa.array(packed, pa.binary()),
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
