"""Blocks on a node: prepared once from what was packed, then memory-mapped by every worker.

Runs and packed blocks are rows of files that `stored_rows` reads (ember.comparison.vector_store). A
run is a row with `matrix`, its vectors one after the other, float32 or float64. A packed block has
`ids`, the id column as an Arrow IPC stream, `groups`, the same of the groups where there are any,
`places`, int64, where its vectors are in the runs, and `again`, how many rows before its first one
have the same id as that. One process of a node prepares a block, into a folder that appears under
its name by one rename; the others find it there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from ember.worker.vectors.arrays import Int64, Stored
from ember.worker.vectors.basis import Basis
from ember.worker.vectors.block import Block, prepare

__all__ = [
    "BlockCache",
    "Blocks",
    "MappedBlocks",
    "RunFiles",
    "from_ipc",
    "ids_at_places",
    "made_once",
    "own_numbers",
    "stored_rows",
    "to_ipc",
]


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


def stored_rows(file: str) -> Iterator[pa.RecordBatch]:
    """The rows of a file that `ember.comparison.vector_store.write` wrote, as mapped batches."""
    if Path(file).stat().st_size:  # Spark leaves an empty file of a table without rows
        with pa.memory_map(file) as source, pa.ipc.open_stream(source) as stream:
            yield from stream


class Blocks(Protocol):
    """The blocks of one table on a node: `BlockCache`, or `index_cache.IndexCache`."""

    @property
    def firsts(self) -> Sequence[int]:
        """How many rows are before each block."""

    def block(self, number: int) -> Block: ...
    def blocks(self, numbers: Sequence[int]) -> Sequence[Block]: ...
    def ids(self, number: int) -> pa.Array: ...
    def own(self, number: int) -> Int64: ...
    def groups(self, number: int) -> pa.Array: ...
    def ids_at(self, numbers: Int64) -> pa.Array: ...
    def ready(self, numbers: Iterable[int]) -> None: ...


@dataclass(frozen=True)
class RunFiles:
    """The vectors of one table on this node.

    Attributes:
        files: local paths of the runs.
        firsts: place of each run's first vector.
        rows: of all runs.
    """

    files: Sequence[str]
    firsts: Sequence[int]
    rows: int
    dimension: int
    kind: str = "float32"  # | float64

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return np.dtype(self.kind)

    def take(self, places: Int64) -> Stored:
        """(n, dimension) vectors at some places, (n,), in their order."""
        rows: Stored = np.empty((len(places), self.dimension), self.dtype)
        edges = np.array([*self.firsts, self.rows])
        owners = np.searchsorted(edges, places, side="right") - 1
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=len(self.files)))
        # One run at a time: all of them may be more than a worker can map.
        for owner, mine in enumerate(np.split(order, ends)[:-1]):
            if len(mine):
                stored, wanted = self.run(owner), places[mine] - edges[owner]
                if mine[-1] - mine[0] + 1 == len(mine):  # rising, so they follow each other
                    filling = rows[mine[0] : mine[-1] + 1]
                    # All of them are in the run; mode "raise" would go by way of a buffer.
                    np.take(stored, wanted, axis=0, out=filling, mode="clip")
                else:
                    rows[mine] = np.take(stored, wanted, axis=0)
        return rows

    def run(self, number: int) -> Stored:
        """(n, dimension) all vectors of a run, memory-mapped.

        Raises:
            ValueError: the file holds another number of them.
        """
        (row,) = stored_rows(self.files[number])
        values: Stored = np.frombuffer(row.column("matrix")[0].as_buffer(), self.dtype)
        count = [*self.firsts, self.rows][number + 1] - self.firsts[number]
        if values.size != count * self.dimension:
            shape = f"{count} x {self.dimension}"
            raise ValueError(f"{self.files[number]} has {values.size} values, not {shape}")
        return values.reshape(count, self.dimension)


@dataclass(frozen=True)
class BlockCache:
    """The blocks of one table on this node.

    Attributes:
        packed: local path of each block's file and its place there, in the order of the ids.
        firsts: number of each block's first row; rows are numbered through the table in id order.
        vectors: the runs that the blocks' vectors are in.
        folder: holds the prepared blocks of this node.
    """

    packed: Sequence[tuple[str, int]]
    firsts: Sequence[int]
    vectors: RunFiles
    basis: Basis
    folder: str
    threads: int

    def block(self, number: int) -> Block:
        """A block, memory-mapped; its ids are the numbers of its rows."""
        return Block.load(self._folder(number), self.basis)

    def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """Some blocks, each mapped when it is taken, so that few are at a time."""
        return MappedBlocks(self, numbers)

    def ids(self, number: int) -> pa.Array:
        """The id column of a block, memory-mapped."""
        return self._column(number, "ids")

    def own(self, number: int) -> Int64:
        """(n,) the number of the first row in the table that has each row's id (and group).

        Equal as SQL's `=` has it, so a row without an id is alone.
        """
        (again,) = self._values(number, "again")
        return own_keys(self.ids(number), self.firsts[number], int(again))

    def groups(self, number: int) -> pa.Array:
        """The group of each row of a block, sorted, memory-mapped."""
        return self._column(number, "groups")

    def _column(self, number: int, name: str) -> pa.Array:
        return from_ipc(pa.memory_map(f"{self._folder(number)}/{name}.arrow"))

    def ids_at(self, numbers: Int64) -> pa.Array:
        """Ids of rows by their numbers in the table, (n,) int64, n > 0, in the same order."""
        return ids_at_places(self, numbers)

    def ready(self, numbers: Iterable[int]) -> None:
        """Prepare blocks that will be needed; processes that do so at once divide the work."""
        missing = [number for number in numbers if not self._path(number).is_dir()]
        for wait in (False, True):  # for those that others are busy with, at the end
            for number in missing:
                self._folder(number, wait=wait)

    def _folder(self, number: int, *, wait: bool = True) -> str:
        folder = self._path(number)
        made_once(folder, lambda partial: self._prepare(number, partial), wait=wait)
        return str(folder)

    def _values(self, number: int, *columns: str) -> list[Any]:
        """Values of a packed block as buffers, None where there is none."""
        file, place = self.packed[number]
        row = next(islice(stored_rows(file), place, None))
        values = [row.column(column)[0] for column in columns]
        return [v.as_buffer() if pa.types.is_binary(v.type) else v.as_py() for v in values]

    def _path(self, number: int) -> Path:
        file, row = self.packed[number]
        return Path(self.folder, f"{Path(file).stem}-{row}-{self.basis.key}")

    def _prepare(self, number: int, folder: Path) -> None:
        ids, groups, places, again = self._values(number, "ids", "groups", "places", "again")
        matrix = self.vectors.take(_numbers(places))
        first = self.firsts[number]
        numbers = np.arange(first, first + len(matrix), dtype=np.int64)
        own = own_keys(from_ipc(pa.BufferReader(ids)), first, again)
        own = numbers if np.array_equal(own, numbers) else own
        metric, threads = self.basis.metric, self.threads
        block = prepare(matrix, metric, self.basis, ids=numbers, own=own, threads=threads)
        block.save(folder)
        for name, stored in (("ids", ids), ("groups", groups)):
            if stored is not None:
                (folder / f"{name}.arrow").write_bytes(memoryview(stored))


def _numbers(packed: pa.Buffer) -> Int64:
    return np.frombuffer(packed, np.int64)


def made_once(folder: Path, make: Callable[[Path], None], *, wait: bool = True) -> None:
    """Have a folder that one process of the node makes and all of them use.

    make: fills an empty folder, which then appears under its name by one rename. wait: where
    another process is making it; else it may be missing afterwards.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(f"{folder}.lock", blocking=wait):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            make(partial)
            partial.rename(folder)


@dataclass(frozen=True)
class MappedBlocks(Sequence[Block]):
    """Some blocks of a table, each mapped when it is taken."""

    cache: Blocks
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return MappedBlocks(self.cache, self.numbers[place])
        return self.cache.block(self.numbers[place])


def ids_at_places(blocks: Blocks, places: Int64) -> pa.Array:
    """Ids of rows by their places in the blocks one after the other, (n,) int64, n > 0."""
    order = np.argsort(places, kind="stable")
    rising = places[order]
    owners = np.searchsorted(np.asarray(blocks.firsts), rising, side="right") - 1
    parts = [
        blocks.ids(block).take(pa.array(rising[owners == block] - blocks.firsts[block]))
        for block in np.unique(owners).tolist()
    ]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))


def own_numbers(ids: pa.Array, cache: Blocks) -> Int64:
    """(n,) the `own` keys of the cached rows that have these ids; negative where there is none.

    Integers may have another width there.
    """
    import pyarrow.compute as pc

    own = -1 - np.arange(len(ids), dtype=np.int64)
    mine = _comparable(ids)
    for number in range(len(cache.firsts)):
        there = _comparable(cache.ids(number))
        found = pc.fill_null(pc.index_in(mine, value_set=there, skip_nulls=True), -1)
        positions = np.asarray(found).astype(np.int64)
        own[positions >= 0] = cache.own(number)[positions[positions >= 0]]
    return own


def shared_keys(ids: pa.Array, others: pa.Array) -> tuple[Int64, Int64]:
    """Keys, (n,) and (m,), that are equal for equal ids of two blocks; see `Block.own`."""
    both = pa.concat_arrays([_comparable(ids), _comparable(others)])
    codes = both.dictionary_encode().indices
    alone = -1 - np.arange(len(both), dtype=np.int64)
    present = np.asarray(codes.is_valid())
    keys = np.where(present, np.asarray(codes.fill_null(0)).astype(np.int64), alone)
    return keys[: len(ids)], keys[len(ids) :]


def joined(column: pa.ChunkedArray) -> pa.Array:
    """The chunks of a column as one array."""
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def own_keys(ids: pa.Array, first: int, again: int) -> Int64:
    """(n,) for sorted ids, the number of the first row with each row's id; see `BlockCache.own`.

    first: number of the first row. again: how many rows before it have its id.
    """
    import pyarrow.compute as pc

    numbers = np.arange(first, first + len(ids), dtype=np.int64)
    if len(ids) < 2:
        return numbers - again
    some = _comparable(ids)
    same = pc.fill_null(pc.equal(some[1:], some[:-1]), False).to_numpy(zero_copy_only=False)
    starts = np.where(np.concatenate([[False], same]), 0, np.arange(len(ids)))
    starts = np.maximum.accumulate(starts)
    return numbers[starts] - np.where(starts == 0, again, 0)


def _comparable(ids: pa.Array) -> pa.Array:
    """Ids of which Arrow finds those equal that SQL's `=` does.

    Numbers of 32 and 64 bits; of floating-point numbers one zero and, as a number, one NaN.
    """
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.int64())
    if not pa.types.is_floating(ids.type):
        return ids
    values = ids.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0
    bits = np.where(np.isnan(values), np.nan, values).view(np.int64)
    return pa.array(bits, mask=np.asarray(ids.is_null()))
