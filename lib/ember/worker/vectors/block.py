"""A block: some thousand rows, packed once, compared many times.

A block is a handful of numpy arrays, so it can be written to a file and memory-mapped by every
worker of a node (``Block.save``, ``Block.load``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ember.worker.vectors import bounds
from ember.worker.vectors.arrays import Float32, Float64, Int64, Stored
from ember.worker.vectors.basis import Basis, fit_basis
from ember.worker.vectors.scaling import moved, scaled
from ember.worker.vectors.threads import default_threads, plain, run_tiles

CHUNK_ROWS = 2048

_ARRAYS = ("ids", "rows", "norms", "prefix", "tails", "lengths", "pivot")
_SAME = {"scaled": "rows", "sizes": "norms", "own": "ids"}
"""Arrays that are mostly another one, and then not written."""


@dataclass(frozen=True)
class Block:
    """Rows ready for comparison.

    Attributes:
        basis: shared by all blocks that are compared with this one.
        ids: (n,) int64, unique over the table; ties are broken by them, ascending.
        rows: (n, d) float32 or float64, as given.
        norms: (n,) float64, Euclidean norms of the rows.
        prefix: (n, m) float32, leading rotated coordinates of v (see bounds.py).
        tails: (n, widths) float32, sqrt(max(|v|^2 - |p|^2, 0)) for each prefix width of the basis.
        lengths: (n,) float64, |v|^2.
        pivot: (n,) int32, the nearest pivot of the basis.
        scaled: (n, d) float32, what products other than the prefix's are made of (scaling.py).
        sizes: (n,) float64, norms of what was rounded to `scaled`; infinite for rows without one.
        own: (n,) int64, equal for rows with equal ids, where these are not compared.
    """

    basis: Basis
    ids: Int64
    rows: Stored
    norms: Float64
    prefix: Float32
    tails: Float32
    lengths: Float64
    pivot: NDArray[np.int32]
    scaled: Float32
    sizes: Float64
    own: Int64

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def metric(self) -> str:
        return self.basis.metric

    def take(self, positions: Int64 | slice) -> Block:
        """The block of some of the rows, in the order of ``positions``."""
        taken = {name: getattr(self, name)[positions] for name in _ARRAYS}
        for name, other in _SAME.items():
            array = getattr(self, name)
            same = array is getattr(self, other)
            taken[name] = taken[other] if same else array[positions]
        return Block(self.basis, **taken)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `of` makes the block of again, with its basis: arrays that are another one once."""
        made = {name: getattr(self, name) for name in _ARRAYS}
        others = {name: getattr(self, name) for name in _SAME}
        return made | {
            name: array for name, array in others.items() if array is not getattr(self, _SAME[name])
        }

    @classmethod
    def of(cls, basis: Basis, arrays: Mapping[str, NDArray[Any]]) -> Block:
        """The block of what `arrays` gave."""
        return cls(basis, **{**{name: arrays[of] for name, of in _SAME.items()}, **arrays})

    def save(self, folder: str | Path) -> None:
        """Write the arrays, not the basis, as .npy files into ``folder``, which is made."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays().items():
            np.save(folder / f"{name}.npy", array)
        np.save(folder / "basis_key.npy", np.int64(self.basis.key))

    @classmethod
    def load(cls, folder: str | Path, basis: Basis) -> Block:
        """Memory-map what ``save`` wrote; processes of one machine share the pages.

        Raises:
            ValueError: the block was packed with another basis.
        """
        folder = Path(folder)
        key = int(np.load(folder / "basis_key.npy"))
        if key != basis.key:
            raise ValueError(f"block {folder} was packed with another basis; pack it with this one")
        # Mode "c": compiled loops want memory that they may write to, and never do.
        files = {file.stem: file for file in folder.glob("*.npy")}
        names = [name for name in (*_ARRAYS, *_SAME) if name in files]
        return cls.of(basis, {name: np.load(files[name], mmap_mode="c") for name in names})


def prepare(
    matrix: Stored,
    metric: str,
    basis: Basis | None = None,
    *,
    ids: Int64 | None = None,
    own: Int64 | None = None,
    threads: int | None = None,
) -> Block:
    """Pack rows into a block.

    Args:
        matrix: (n, d) float32 or float64 without NaN or infinity; for cosine without zero rows,
            for inner products without norms above ``bounds.MAX_NORM`` (vectors.py sorts such rows
            out and says why).
        metric: cosine, inner_product or euclidean.
        basis: of all the blocks that will meet this one; fitted on ``matrix`` where it is None.
        ids: (n,) int64, unique; 0..n-1 where it is None.
        own: (n,) int64, keys: a search with exclude_self compares no rows of equal keys; the ids
            where it is None.
        threads: default: OMP_NUM_THREADS, else all cores.

    Raises:
        ValueError: shapes or dtype do not fit, a basis for another metric, values not finite, zero
            rows for cosine, or norms above ``bounds.MAX_NORM`` for inner products.
    """
    if matrix.ndim != 2 or matrix.dtype not in (np.float32, np.float64):
        raise ValueError(
            "expected a float64 or float32 matrix (rows, dimensions), got "
            f"{matrix.dtype} {matrix.shape}"
        )
    matrix = matrix if matrix.flags.c_contiguous else matrix.copy()
    if basis is None:
        basis = fit_basis(matrix, metric)
    n, d = matrix.shape
    if basis.metric != metric:
        raise ValueError(
            f"the basis is for {basis.metric}, the block for {metric}; fit another one"
        )
    if d != basis.dimension:
        raise ValueError(f"wrong length: {d} instead of {basis.dimension}")
    ids = np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, np.int64)
    if ids.shape != (n,):
        raise ValueError(f"{n} rows but ids of shape {ids.shape}; give one id for each row")

    starts = range(0, max(n, 1), CHUNK_ROWS)
    parts = run_tiles(
        lambda start: _pack_rows(matrix[start : start + CHUNK_ROWS], basis),
        starts,
        threads or default_threads(),
    )
    products, *packed = zip(*parts, strict=True)
    norms, sizes, prefix, tails, lengths, pivot = (np.concatenate(part) for part in packed)
    return Block(
        basis, ids, matrix, norms, prefix, tails, lengths, pivot,
        scaled=_whole(matrix, products),
        sizes=norms if np.array_equal(norms, sizes) else sizes,
        own=ids if own is None else own,
    )  # fmt: skip


def _whole(matrix: Stored, parts: Sequence[Float32]) -> Float32:
    """Parts of CHUNK_ROWS as one array: the matrix itself where they are views of it."""
    if matrix.dtype == np.float32 and all(np.may_share_memory(p, matrix) for p in parts if p.size):
        return matrix.astype(np.float32, copy=False)
    return np.concatenate(parts)


def _pack_rows(
    rows: Stored, basis: Basis
) -> tuple[Float32, Float64, Float64, Float32, Float32, Float64, NDArray[np.int32]]:
    """Scaled rows, norms, sizes, prefixes, tails, squared lengths, pivots of some rows."""
    norms = _norms(rows, basis.metric)
    products, sizes = scaled(rows, norms, basis)
    lengths, vectors = _compared(rows, (norms, products, sizes), basis)
    prefix = vectors @ basis.directions
    tails = _tails(prefix, lengths, basis.widths)
    nearest = nearest_pivots(prefix, basis, 1)[:, 0]
    return products, norms, sizes, prefix, tails, lengths, nearest


def check_pair(left: Block, right: Block) -> None:
    """Raises ValueError where two blocks were packed with different bases."""
    if left.basis.key != right.basis.key:
        raise ValueError(
            f"blocks of different bases ({left.metric}, {left.basis.dimension} dimensions and "
            f"{right.metric}, {right.basis.dimension} dimensions); prepare both with one basis"
        )


def vectors(block: Block) -> Float32:
    """(n, d) float32, what the metric compares (v in bounds.py), off by 2 u at most."""
    return _compared(block.rows, (block.norms, block.scaled, block.sizes), block.basis)[1]


def nearest_pivots(prefix: Float32, basis: Basis, count: int) -> NDArray[np.int32]:
    """(n, count) the pivots nearest to each row by rotated prefix, in any order."""
    if len(basis.pivots) == 0:
        return np.zeros((len(prefix), 1), np.int32)
    halves = np.einsum("ij,ij->i", basis.pivots, basis.pivots) / 2
    closeness = prefix @ basis.pivots.T - halves
    count = min(count, closeness.shape[1])
    if count == 1:
        nearest: NDArray[np.int32] = closeness.argmax(axis=1).astype(np.int32)[:, None]
        return nearest
    return np.argpartition(closeness, -count, axis=1)[:, -count:].astype(np.int32)


def _norms(rows: Stored, metric: str) -> Float64:
    from ember.worker.vectors import sums

    each = np.arange(len(rows))
    norms = np.sqrt(sums.products(plain(rows), plain(rows), each, each))
    most = bounds.MAX_NORM if metric == "inner_product" else np.finfo(np.float64).max
    if len(norms) and not norms.max() <= most:
        raise ValueError(
            f"a row is not finite or its norm exceeds {most:g}; leave it out or rescale"
        )
    if metric == "cosine" and len(norms) and norms.min() == 0:
        raise ValueError("a row has zero norm, which has no cosine; leave it out")
    return norms


def _compared(
    rows: Stored, made: tuple[Float64, Float32, Float64], basis: Basis
) -> tuple[Float64, Float32]:
    """Squared norms of v, and v itself in float32; both zero for rows beyond float32.

    made: norms, and what `scaled` made of the rows.
    """
    from ember.worker.vectors import sums

    norms, products, sizes = made
    if basis.metric == "cosine":
        return np.ones(len(rows)), sums.divided(plain(rows), plain(norms))
    if basis.metric == "inner_product":
        return norms**2, products
    exact = moved(rows, basis)
    lengths = np.square(exact).sum(axis=1)
    beyond = sizes == np.inf
    if beyond.any():
        lengths[beyond], exact[beyond] = 0.0, 0.0
    return lengths, exact.astype(np.float32)


def _tails(prefix: Float32, lengths: Float64, widths: tuple[int, ...]) -> Float32:
    """sqrt(max(|v|^2 - |p|^2, 0)) beyond each width, rounded up to float32.

    Store roots: squares of tiny norms underflow in float32.
    """
    squares = np.square(prefix, dtype=np.float64)
    shares = np.add.reduceat(squares, (0, *widths[:-1]), axis=1)
    tails = np.sqrt(np.maximum(lengths[:, None] - np.cumsum(shares, axis=1), 0.0))
    rounded: Float32 = (tails * (1.0 + 4.0 * bounds.UNIT32)).astype(np.float32)
    return rounded
