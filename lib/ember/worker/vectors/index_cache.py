"""The blocks of a kept index on a node: prepared when the index was made, mapped where they lie.

A file has one row (ember.comparison.vector_store): `ids`, (id, hash, source) as an Arrow IPC
stream, and the arrays of a `Block` but for its ids. What was added later lies behind what was
there, so that rows are not in the order of their ids, by which ties are broken. That order is kept
beside the blocks, in files whose rows have `places`, int64, where the rows lie in the order of
their ids, and `firsts`, int64, the number in that order of the first row with each one's id, where
some repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ember.worker.vectors.arrays import Int64
from ember.worker.vectors.basis import Basis
from ember.worker.vectors.block import Block
from ember.worker.vectors.block_cache import (
    MappedBlocks,
    from_ipc,
    ids_at_places,
    made_once,
    stored_rows,
)

__all__ = ["ARRAYS", "IndexCache", "restored", "stored"]

# What is stored of a block, by the type of its values; rows have that of the table.
ARRAYS: Mapping[str, type[np.generic] | None] = {
    "rows": None,
    "norms": np.float64,
    "prefix": np.float32,
    "tails": np.float32,
    "lengths": np.float64,
    "pivot": np.int32,
    "scaled": np.float32,
    "sizes": np.float64,
}
_MATRICES = ("rows", "prefix", "tails", "scaled")


def stored(block: Block) -> dict[str, pa.Buffer | None]:
    """A block's arrays as binary values; None for one that is another one."""
    made = block.arrays()
    return {
        name: pa.py_buffer(np.ascontiguousarray(made[name])) if name in made else None
        for name in ARRAYS
    }


def restored(row: pa.RecordBatch, basis: Basis, kind: str, numbers: Int64, own: Int64) -> Block:
    """The block of a row with what `stored` gave; the arrays share the row's memory.

    kind: of the values of its rows, float32 or float64. numbers: (n,), its ids.
    """
    arrays: dict[str, NDArray[Any]] = {"ids": numbers, "own": own}
    for name, of in ARRAYS.items():
        value = row.column(name)[0]
        if value.is_valid:
            flat = np.frombuffer(value.as_buffer(), of or np.dtype(kind))
            arrays[name] = flat.reshape(len(numbers), -1) if name in _MATRICES else flat
    return Block.of(basis, arrays)


@dataclass(frozen=True)
class IndexCache:
    """What `BlockCache` is of a table that a run packs.

    Attributes:
        files: local path of each block.
        firsts: the place of each block's first row.
        rows: of all blocks.
        order: local paths of the files of the order of the ids.
        name: of this state of the index, which no other has.
        folder: holds what this node makes of the order.
    """

    files: Sequence[str]
    firsts: Sequence[int]
    rows: int
    order: Sequence[str]
    basis: Basis
    kind: str
    name: str
    folder: str

    def block(self, number: int) -> Block:
        """A block, mapped; its ids are the numbers of its rows in the order of the table's ids."""
        places = self._places(number)
        numbers, own = self._order("numbers")[places], self._order("own")[places]
        (row,) = stored_rows(self.files[number])
        return restored(row, self.basis, self.kind, numbers, own)

    def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """Some blocks, each mapped when it is taken, so that few are at a time."""
        return MappedBlocks(self, numbers)

    def ids(self, number: int) -> pa.Array:
        """The id column of a block, mapped."""
        (row,) = stored_rows(self.files[number])
        return from_ipc(row.column("ids")[0].as_buffer())

    def own(self, number: int) -> Int64:
        """(n,) the number of the first row in the table that has each row's id."""
        return self._order("own")[self._places(number)]

    def ids_at(self, numbers: Int64) -> pa.Array:
        """Ids of rows by their numbers in the table, (n,) int64, n > 0, in the same order."""
        return ids_at_places(self, self._order("places")[numbers])

    def groups(self, number: int) -> pa.Array:
        """There are none in an index."""
        raise NotImplementedError

    def ready(self, numbers: Iterable[int]) -> None:
        """Have this node know the order of the ids."""
        self._order("places")

    def _places(self, number: int) -> slice:
        return slice(self.firsts[number], [*self.firsts, self.rows][number + 1])

    def _order(self, what: str) -> Int64:
        folder = Path(self.folder, self.name)
        made_once(folder, self._make_order)
        found: Int64 = np.load(folder / f"{what}.npy", mmap_mode="c")
        return found

    def _make_order(self, folder: Path) -> None:
        """places: (n,), by number; numbers and own: (n,), by place. Mapped: n may be large."""
        names = ("places", "numbers", "own")
        if not self.rows:
            for name in names:
                np.save(folder / f"{name}.npy", np.empty(0, np.int64))
            return
        places, numbers, own = (
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.int64, (self.rows,))
            for name in names
        )
        before = 0
        for file in self.order:
            for row in stored_rows(file):
                some = np.frombuffer(row.column("places")[0].as_buffer(), np.int64)
                each = np.arange(before, before + len(some))
                places[each] = some
                numbers[some] = own[some] = each
                if (firsts := row.column("firsts")[0]).is_valid:
                    own[some] = np.frombuffer(firsts.as_buffer(), np.int64) + before
                before += len(some)
        for array in (places, numbers, own):
            array.flush()
