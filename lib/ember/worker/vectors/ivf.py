"""An inverted file on a node, and the search in some of its lists.

The file holds the rows of a table, list after list, and their numbers; the first process of a node
that needs it writes it, one block of the table at a time, and all of them read it. The scores
and the order of ties are those of the exact search (scores.py): a float32 product with its error
bound (bounds.py) rules out rows below the k-th place, what it leaves is scored in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64
from ember.worker.vectors.basis import Basis
from ember.worker.vectors.block import Block
from ember.worker.vectors.block_cache import BlockCache, made_once
from ember.worker.vectors.ivf_lists import Lists
from ember.worker.vectors.neighbors import NOBODY, Neighbors, best_of
from ember.worker.vectors.scaling import scaled
from ember.worker.vectors.scores import filter_value, float32_below, similarities, tie_floor
from ember.worker.vectors.threads import run_tiles

TILE_ROWS, TILE_COLUMNS = 1024, 2048
"""Queries and rows of a list that are compared at once, at most."""
Bools = NDArray[np.bool_]
FLUSH_TILES = 32
"""Tiles between two rises of the floors."""


@dataclass(frozen=True)
class InvertedFile:
    """Rows in the order of their lists, in a file of which a tile at a time is read.

    Attributes:
        path: of the rows, (n, d) of dtype and nothing else.
        basis: of the table's blocks.
        dtype: float32 or float64.
        numbers: (n,) int64, memory-mapped; the rows' numbers in the table.
        own: (n,) int64, memory-mapped; see `Block`.
        norms: (n,) float64, memory-mapped.
        starts: (lists + 1,) where each list begins.
    """

    path: Path
    basis: Basis
    dtype: np.dtype[np.floating]
    numbers: Int64
    own: Int64
    norms: Float64
    starts: Int64

    @classmethod
    def on_node(cls, cache: BlockCache, owners: NDArray[np.int32], lists: int) -> InvertedFile:
        """The inverted file of the table on `cache`, written if this node has none yet.

        owners: (n,) the list of each row of the table.
        """
        key = crc32(owners.tobytes())
        folder = Path(cache.folder, f"lists-{cache.basis.key}-{key}-{lists}")
        made_once(folder, lambda partial: _write(cache, owners, lists, partial))
        numbers, own, norms = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("numbers", "own", "norms")
        )
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=lists))])
        dtype = cache.vectors.dtype
        return cls(folder / "rows", cache.basis, dtype, numbers, own, norms, starts)

    def read(self, run: slice) -> Block:
        """Some rows as a block without prefixes; its ids are their numbers.

        Read, not mapped: a worker's address space may be limited to less than the table's size.
        """
        d = self.basis.dimension
        count, offset = (run.stop - run.start) * d, self.dtype.itemsize * d * run.start
        rows = np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, d)
        none, norms = np.empty((0, 0), np.float32), np.asarray(self.norms[run])
        products, sizes = scaled(rows, norms, self.basis)
        return Block(
            self.basis, np.asarray(self.numbers[run]), rows, norms,
            prefix=none, tails=none, lengths=np.empty(0), pivot=np.empty(0, np.int32),
            scaled=products, sizes=sizes, own=np.asarray(self.own[run]),
        )  # fmt: skip

    def search_nearest(
        self,
        queries: Block,
        lists: Lists,
        probes: int,
        k: int,
        *,
        exclude_self: bool = False,
        threads: int = 1,
    ) -> tuple[Neighbors, int]:
        """As `search` in the nearest `probes` lists, or in more where those hold fewer than k rows.

        So that a query has fewer than k neighbors only where the table has fewer rows.
        """
        found, pairs = Neighbors.empty(len(queries), k), 0
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
    ) -> tuple[Neighbors, int]:
        """The k best rows in some lists for each query, and how many pairs were compared.

        The pairs of the nearest list count twice: they are compared before all others, too, for a
        first bound.

        probes: (q, p) lists of each query, nearest first.
        exclude_self: leave out rows with the query's `own` key.
        """
        search = _Search(self, queries, probes, k, exclude_self)
        search.run(threads)
        return search.found, search.pairs


def _write(cache: BlockCache, owners: NDArray[np.int32], lists: int, folder: Path) -> None:
    """One block at a time, its rows of each list in one piece."""
    numbers, own = np.empty((2, len(owners)), np.int64)
    norms = np.empty(len(owners))
    free = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=lists))])[:-1]
    with (folder / "rows").open("wb") as stream:
        for number, first in enumerate(cache.firsts):
            block = cache.block(number)
            mine = owners[first : first + len(block)]
            # Rows stay in the order of their numbers within a list.
            order = np.argsort(mine, kind="stable")
            ends = np.cumsum(np.bincount(mine, minlength=lists))
            for place, part in zip(free, np.split(order, ends[:-1]), strict=True):
                if len(part):
                    stream.seek(block.rows.itemsize * cache.basis.dimension * int(place))
                    stream.write(np.ascontiguousarray(block.rows[part]).data)
                    numbers[place : place + len(part)] = first + part
                    own[place : place + len(part)] = block.own[part]
                    norms[place : place + len(part)] = block.norms[part]
            free = free + np.bincount(mine, minlength=lists)
    np.save(folder / "numbers.npy", numbers)
    np.save(folder / "own.npy", own)
    np.save(folder / "norms.npy", norms)


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
        self.found = Neighbors.empty(len(queries), k)
        self.pairs = 0

    def run(self, threads: int) -> None:
        for query, kth in run_tiles(self._seed, self._tiles(self.probes[:, :1]), threads):
            self.floor[query] = np.maximum(self.floor[query], kth)
        tiles = self._tiles(self.probes)
        while batch := list(islice(tiles, FLUSH_TILES)):
            parts = zip(*run_tiles(self._scan, batch, threads), strict=True)
            self.found.add(*(np.concatenate(part) for part in parts))
            found = self.found.similarity[:, -1]
            reached = filter_value(self.metric, found, self.queries.basis.exponent)
            self.floor = np.maximum(self.floor, reached)

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

    def _values(self, query: Int64, rows: Block) -> tuple[Float32, Float64, Float64, Bools]:
        """(a, b) values, -inf for a query's own row; norms and error bounds of the queries.

        A value is F but for what depends on the query alone: see `_to_floor`. Last, the pairs of
        rows that float32 does not hold, (a, b), of which nothing is known.
        """
        norms, sizes = self.queries.sizes[query], rows.sizes
        unknown = (norms == np.inf)[:, None] | (sizes == np.inf)
        norms, sizes = (np.where(each < np.inf, each, 0.0) for each in (norms, sizes))
        values: Float32 = self.queries.scaled[query] @ rows.scaled.T
        largest = float(sizes.max())
        if self.metric == "cosine":
            values *= (1.0 / sizes).astype(np.float32)
            error = self.slack * norms
        elif self.metric == "inner_product":
            error = self.slack * norms * largest + bounds.TINY
        else:  # a.b - |b|^2 / 2; the last term's rounding and that of the difference are in |b|^2
            values -= (0.5 * sizes * sizes).astype(np.float32)
            error = self.slack * (norms * largest + largest * largest) + bounds.TINY
        if self.exclude_self:
            same = self.queries.own[query][:, None] == rows.own
            values[same], unknown[same] = -np.inf, False
        return values, norms, error, unknown

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
        values, norms, error, unknown = self._values(query, self.file.read(run))
        if values.shape[1] < self.k:
            return query, np.full(len(query), -np.inf)
        values[unknown] = -np.inf
        kth = np.partition(values, -self.k, axis=1)[:, -self.k].astype(np.float64)
        return query, tie_floor(self._to_floor(kth - error, norms))

    def _scan(self, tile: tuple[Int64, slice]) -> tuple[Int64, Int64, Float32]:
        """Queries, numbers and exact similarities of the rows that may be in the answer."""
        query, run = tile
        rows = self.file.read(run)
        values, norms, error, unknown = self._values(query, rows)
        floor = self.floor[query]
        least = float32_below(self._from_floor(floor, norms) - error)
        i, j = np.divmod(np.flatnonzero((values >= least[:, None]) | unknown), values.shape[1])
        near = values[i, j].astype(np.float64)
        lower, upper = (
            self._to_floor(each, norms[i]) for each in (near - error[i], near + error[i])
        )
        lower[unknown[i, j]], upper[unknown[i, j]] = -np.inf, np.inf
        best = best_of(i, float32_below(lower), j, (len(query), self.k)).similarity[:, -1]
        floor = np.maximum(floor, tie_floor(best.astype(np.float64)))
        possible = (upper >= floor[i]) & (upper > -np.inf)  # which a query's own row is not
        i, j = i[possible], j[possible]
        return query[i], rows.ids[j], similarities(self.queries, rows, query[i], j)


def list_places(numbers: Int64, owners: NDArray[np.int32], nearest: Int64, lists: int) -> Int64:
    """(q, k) the place of each neighbor's list among a query's nearest, for `choose_probes`.

    numbers: (q, k) of neighbors, -1 for none. owners: the list of each row. nearest: (q, p).
    """
    order = np.full((len(numbers), lists), lists, np.int64)
    np.put_along_axis(order, nearest, np.arange(nearest.shape[1])[None, :], axis=1)
    places = np.take_along_axis(order, owners[numbers].astype(np.int64), axis=1)
    return np.where(numbers < 0, -1, places)
