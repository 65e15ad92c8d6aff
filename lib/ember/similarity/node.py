"""Blocks on a node: unpacked once from what Spark wrote, then memory-mapped by every worker.

A packed block is a Parquet file of one row: `ids`, the id column as an Arrow IPC stream, `groups`,
the same of the groups where there are any, and `matrix`, float32 row by row. The first process of a
node that needs it prepares it into a folder, which appears under its name by one rename; the others
find it there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ember.similarity.block import Block, Float32, Int64, prepare
from ember.similarity.projection import Basis

__all__ = ["Shelf", "from_ipc", "own_numbers", "rows_at", "to_ipc"]


def to_ipc(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def from_ipc(packed: pa.Buffer | pa.NativeFile) -> pa.Array:
    """The first column of the table that `to_ipc` packed."""
    with pa.ipc.open_stream(packed) as stream:
        return stream.read_all().column(0).combine_chunks()


@dataclass(frozen=True)
class Shelf:
    """The blocks of one table on this node.

    files: local paths of the packed blocks, in the order of their ids.
    firsts: number of each block's first row; rows are numbered through the table in id order.
    cache: the folder that holds the prepared blocks of this node.
    """

    files: Sequence[str]
    firsts: Sequence[int]
    basis: Basis
    cache: str
    threads: int

    def block(self, number: int) -> Block:
        """A block, memory-mapped; its ids are the numbers of its rows."""
        return Block.load(self._folder(number), self.basis)

    def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """Some blocks, each mapped when it is taken, so that few are at a time."""
        return _Blocks(self, numbers)

    def ids(self, number: int) -> pa.Array:
        """The id column of a block, memory-mapped."""
        return self._column(number, "ids")

    def groups(self, number: int) -> pa.Array:
        """The group of each row of a block, sorted, memory-mapped."""
        return self._column(number, "groups")

    def _column(self, number: int, name: str) -> pa.Array:
        return from_ipc(pa.memory_map(f"{self._folder(number)}/{name}.arrow"))

    def ids_at(self, numbers: Int64) -> pa.Array:
        """Ids of rows by their numbers in the table, (n,) int64, n > 0, in the same order."""
        owners = np.searchsorted(np.asarray(self.firsts), numbers, side="right") - 1
        order = np.argsort(owners, kind="stable")
        parts = []
        for owner in np.unique(owners):
            mine = numbers[order][owners[order] == owner] - self.firsts[owner]
            parts.append(self.ids(int(owner)).take(pa.array(mine)))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))

    def rows_at(self, numbers: Int64) -> Float32:
        """(n, d) vectors of rows by their numbers, rising; reads without preparing blocks."""
        return rows_at(self.files, self.firsts, numbers, self.basis.dimension)

    def _folder(self, number: int) -> str:
        folder = Path(self.cache, f"{Path(self.files[number]).stem}-{self.basis.key}")
        if not folder.is_dir():
            self._prepare(number, folder)
        return str(folder)

    def _prepare(self, number: int, folder: Path) -> None:
        wanted = ["ids", "groups", "matrix"]
        packed = pq.read_table(self.files[number], columns=wanted, memory_map=True)
        matrix = _matrix(packed["matrix"][0].as_buffer(), self.basis.dimension)
        first = self.firsts[number]
        numbers = np.arange(first, first + len(matrix), dtype=np.int64)
        block = prepare(matrix, self.basis.metric, self.basis, ids=numbers, threads=self.threads)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(dir=folder.parent)
        block.save(partial)
        for name in ("ids", "groups"):
            if packed[name].null_count == 0:
                Path(partial, f"{name}.arrow").write_bytes(packed[name][0].as_buffer())
        try:
            os.rename(partial, folder)  # noqa: PTH104  (Path.rename would read worse here)
        except OSError:  # another process of this node was first
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.is_dir():
                raise


@dataclass(frozen=True)
class _Blocks(Sequence[Block]):
    shelf: Shelf
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Blocks(self.shelf, self.numbers[place])
        return self.shelf.block(self.numbers[place])


def rows_at(files: Sequence[str], firsts: Sequence[int], numbers: Int64, dimension: int) -> Float32:
    """(n, dimension) vectors of rows by their numbers, rising, from packed blocks; see `Shelf`."""
    owners = np.searchsorted(np.asarray(firsts), numbers, side="right") - 1
    parts = [np.empty((0, dimension), np.float32)]
    for owner in np.unique(owners):
        packed = pq.read_table(files[owner], columns=["matrix"], memory_map=True)
        matrix = _matrix(packed["matrix"][0].as_buffer(), dimension)
        parts.append(matrix[numbers[owners == owner] - firsts[owner]])
    return np.concatenate(parts)


def _matrix(buffer: pa.Buffer, dimension: int) -> Float32:
    return np.frombuffer(buffer, np.float32).reshape(-1, dimension)


def own_numbers(ids: pa.Array, shelf: Shelf) -> Int64:
    """(n,) the numbers on a shelf of the rows that have these ids; negative where there is none."""
    import pyarrow.compute as pc

    own = -1 - np.arange(len(ids), dtype=np.int64)
    for number, first in enumerate(shelf.firsts):
        found = pc.fill_null(pc.index_in(ids, value_set=shelf.ids(number)), -1)
        positions = np.asarray(found).astype(np.int64)
        own = np.where(positions >= 0, positions + first, own)
    return own
