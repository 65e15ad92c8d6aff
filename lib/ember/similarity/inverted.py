"""An inverted file on a node, and the search in some of its lists.

The file holds the rows of a table, list after list, and their numbers; the first process of a node
that needs it writes it, one block of the table at a time, and all of them memory-map it. The scores
and the order of ties are those of the exact search (scores.py): a float32 product with its error
bound (bounds.py) rules out rows below the k-th place, what it leaves is scored in float64.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ember.similarity import bounds
from ember.similarity.block import Block, Float32, Float64, Int64
from ember.similarity.lists import Lists
from ember.similarity.neighbours import NOBODY, Neighbours, best_of
from ember.similarity.node import Shelf
from ember.similarity.scores import filter_value, float32_below, similarities, tie_floor
from ember.similarity.threads import run_tiles, tensor
from ember.similarity.tiles import TILE_COLUMNS, TILE_ROWS

FLUSH_LISTS = 32
"""Lists between two exact scorings, which raise the floors."""


@dataclass(frozen=True)
class InvertedFile:
    """Rows in the order of their lists.

    Attributes:
        rows: a block whose ids are the rows' numbers in the table; without prefixes.
        starts: (lists + 1,) where each list begins.
    """

    rows: Block
    starts: Int64

    @classmethod
    def on_node(cls, shelf: Shelf, owners: NDArray[np.int32], lists: int) -> InvertedFile:
        """The inverted file of the table on `shelf`, written if this node has none yet.

        owners: (n,) the list of each row of the table.
        """
        key = crc32(owners.tobytes())
        folder = Path(shelf.cache, f"lists-{shelf.basis.key}-{key}-{lists}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait rather than do it once more
            if not folder.is_dir():
                _write(shelf, owners, lists, folder)
        numbers, rows, norms = (
            np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("numbers", "rows", "norms")
        )
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=lists))])
        none = np.empty((0, 0), np.float32)
        block = Block(
            *(shelf.basis, numbers, rows, norms, none, none),
            *(np.empty(0), np.empty(0, np.int32)),
        )
        return cls(block, starts)

    def search_nearest(
        self,
        queries: Block,
        lists: Lists,
        probes: int,
        k: int,
        *,
        exclude_self: bool = False,
        threads: int = 1,
    ) -> tuple[Neighbours, int]:
        """As `search` in the nearest `probes` lists, or in more where those hold fewer than k rows.

        So that a query has fewer than k neighbours only where the table has fewer rows.
        """
        found, pairs = Neighbours.empty(len(queries), k), 0
        lacking = np.arange(len(queries))
        while len(lacking) and probes:
            asked = queries.take(lacking)
            near = lists.nearest(asked.rows, probes, queries=True, ordered=False, threads=threads)
            part, looked = self.search(asked, near, k, exclude_self=exclude_self, threads=threads)
            found.ids[lacking], found.similarity[lacking] = part.ids, part.similarity
            pairs += looked
            lacking = lacking[part.ids[:, -1] == NOBODY]
            probes = min(2 * probes, len(lists)) if probes < len(lists) else 0
        return found, pairs

    def search(
        self,
        queries: Block,
        probes: Int64,
        k: int,
        *,
        exclude_self: bool = False,
        threads: int = 1,
    ) -> tuple[Neighbours, int]:
        """The k best rows in some lists for each query, and how many pairs were looked at.

        probes: (q, p) lists of each query, nearest first. exclude_self: leave out the row whose
            number is the query's id. The pairs of the nearest list count twice: they are looked at
            once more, before, for a first bound.
        """
        search = _Search(self, queries, probes, k, exclude_self)
        search.run(threads)
        return search.found, search.pairs


def _write(shelf: Shelf, owners: NDArray[np.int32], lists: int, folder: Path) -> None:
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    n, d = len(owners), shelf.basis.dimension
    rows = np.lib.format.open_memmap(partial / "rows.npy", "w+", np.float32, (n, d))
    numbers, norms = np.empty(n, np.int64), np.empty(n)
    free = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=lists))])[:-1]
    for number, first in enumerate(shelf.firsts):
        block = shelf.block(number)
        mine = owners[first : first + len(block)]
        # Rows stay in the order of their numbers within a list.
        order = np.argsort(mine, kind="stable")
        sizes = np.bincount(mine, minlength=lists)
        places = np.repeat(free - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        places += np.arange(len(order))
        rows[places] = block.rows[order]
        numbers[places], norms[places] = first + order, block.norms[order]
        free = free + sizes
    rows.flush()
    np.save(partial / "numbers.npy", numbers)
    np.save(partial / "norms.npy", norms)
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@dataclass
class _Candidates:
    query: Int64
    place: Int64
    lower: Float64
    upper: Float64


class _Search:
    """One search; `floor` is the F (bounds.py) that a row must reach, for each query."""

    def __init__(
        self, file: InvertedFile, queries: Block, probes: Int64, k: int, exclude_self: bool
    ) -> None:
        self.file, self.queries, self.probes, self.k = file, queries, probes, k
        self.exclude_self = exclude_self
        self.metric = queries.metric
        self.slack = bounds.dot_slack(queries.basis.dimension)
        self.floor = np.full(len(queries), -np.inf)
        self.found = Neighbours.empty(len(queries), k)
        self.pairs = 0

    def run(self, threads: int) -> None:
        for query, kth in run_tiles(self._seed, self._tiles(self.probes[:, :1]), threads):
            self.floor[query] = np.maximum(self.floor[query], kth)
        tiles = self._tiles(self.probes)
        while batch := [tile for tile, _ in zip(tiles, range(FLUSH_LISTS), strict=False)]:
            found = list(run_tiles(self._scan, batch, threads))
            self._score(found)

    def _tiles(self, probes: Int64) -> Iterator[tuple[Int64, slice]]:
        """For each list, the queries that probe it and a run of its rows, in bounded pieces."""
        flat = probes.ravel()
        order = np.argsort(flat, kind="stable")
        lists, begins = np.unique(flat[order], return_index=True)
        for number, query in zip(
            lists, np.split(order // probes.shape[1], begins[1:]), strict=True
        ):
            start, stop = int(self.file.starts[number]), int(self.file.starts[number + 1])
            self.pairs += len(query) * (stop - start)
            for first in range(0, len(query), TILE_ROWS):
                for column in range(start, stop, TILE_COLUMNS):
                    yield (
                        query[first : first + TILE_ROWS],
                        slice(column, min(column + TILE_COLUMNS, stop)),
                    )

    def _values(self, query: Int64, run: slice) -> tuple[Float32, Float64, Float64]:
        """(a, b) values, -inf for a query's own row; norms and error bounds of the queries.

        A value is F but for what depends on the query alone: see `_to_floor`.
        """
        a, norms = self.queries.rows[query], self.queries.norms[query]
        others = self.file.rows.norms[run]
        values: Float32 = (tensor(a) @ tensor(self.file.rows.rows[run]).T).numpy()
        largest = float(others.max())
        if self.metric == "cosine":
            values *= (1.0 / others).astype(np.float32)
            error = self.slack * norms
        elif self.metric == "inner_product":
            error = self.slack * norms * largest + bounds.TINY
        else:  # a.b - |b|^2 / 2; the last term's rounding and that of the difference are in |b|^2
            values -= (0.5 * others * others).astype(np.float32)
            error = self.slack * (norms * largest + largest * largest) + bounds.TINY
        if self.exclude_self:
            values[self.queries.ids[query][:, None] == self.file.rows.ids[run]] = -np.inf
        return values, norms, error

    def _to_floor(self, value: Float64, norms: Float64) -> Float64:
        """F of values as `_values` gives them."""
        if self.metric == "cosine":
            return value / norms
        return value - 0.5 * norms * norms if self.metric == "euclidean" else value

    def _from_floor(self, floor: Float64, norms: Float64) -> Float64:
        if self.metric == "cosine":
            return floor * norms
        return floor + 0.5 * norms * norms if self.metric == "euclidean" else floor

    def _seed(self, tile: tuple[Int64, slice]) -> tuple[Int64, Float64]:
        """What k rows of a query's nearest list certainly reach."""
        query, run = tile
        values, norms, error = self._values(query, run)
        if values.shape[1] < self.k:
            return query, np.full(len(query), -np.inf)
        kth = np.partition(values, -self.k, axis=1)[:, -self.k].astype(np.float64)
        return query, tie_floor(self._to_floor(kth - error, norms))

    def _scan(self, tile: tuple[Int64, slice]) -> _Candidates:
        """The rows that may reach the floor."""
        query, run = tile
        values, norms, error = self._values(query, run)
        least = self._from_floor(self.floor[query], norms) - error
        i, j = np.nonzero(values >= float32_below(least)[:, None])
        near, error, norms = values[i, j].astype(np.float64), error[i], norms[i]
        lower, upper = (self._to_floor(each, norms) for each in (near - error, near + error))
        real = upper > -np.inf  # the others are queries' own rows
        return _Candidates(query[i[real]], j[real] + run.start, lower[real], upper[real])

    def _score(self, parts: list[_Candidates]) -> None:
        query = np.concatenate([part.query for part in parts])
        place = np.concatenate([part.place for part in parts])
        upper = np.concatenate([part.upper for part in parts])
        lower = float32_below(np.concatenate([part.lower for part in parts]))
        best = best_of(query, lower, place, self.found.ids.shape).similarity[:, -1]
        self.floor = np.maximum(self.floor, tie_floor(best.astype(np.float64)))
        possible = upper >= self.floor[query]
        query, place = query[possible], place[possible]
        similarity = similarities(self.queries, self.file.rows, query, place)
        self.found.add(query, self.file.rows.ids[place], similarity)
        reached = filter_value(self.metric, self.found.similarity[:, -1])
        self.floor = np.maximum(self.floor, reached)


def list_places(numbers: Int64, owners: NDArray[np.int32], nearest: Int64, lists: int) -> Int64:
    """(q, k) the place of each neighbour's list among a query's nearest, for `choose_probes`.

    numbers: (q, k) of neighbours, -1 for none. owners: the list of each row. nearest: (q, p).
    """
    order = np.full((len(numbers), lists), lists, np.int64)
    np.put_along_axis(order, nearest, np.arange(nearest.shape[1])[None, :], axis=1)
    places = np.take_along_axis(order, owners[numbers].astype(np.int64), axis=1)
    return np.where(numbers < 0, -1, places)
