"""Tiles: a small matrix product whose result stays in the cache, and the scan for survivors."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ember.similarity import bounds
from ember.similarity.block import Block, Float32, Float64, Int64
from ember.similarity.pack import Filter, common_residual, pack
from ember.similarity.threads import tensor

if TYPE_CHECKING:
    import torch

TILE_ROWS = 1024
TILE_COLUMNS = 2048
DENSE_SHARE = 0.1
"""Above this share of survivors one dense product is cheaper than separate dot products."""


def operands(
    left: Block, right: Block, how: Filter, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both operands of the filter product, (n, w) each, on the device."""
    residual = common_residual(left, right, how)
    a = pack(left, how, right=False, residual=residual)
    b = pack(right, how, right=True, residual=residual)
    return to_device(a, how, device), to_device(b, how, device)


def to_device(packed: Float32, how: Filter, device: str) -> torch.Tensor:
    """A packed block as a tensor of the filter's precision."""
    import torch

    dtype = torch.bfloat16 if how.precision == "bfloat16" else torch.float32
    return tensor(packed).to(device=device, dtype=dtype)


_buffers = threading.local()


def survivors(left: torch.Tensor, right: torch.Tensor, floor: Float32) -> Int64:
    """Flat positions, rising, of the entries of ``left @ right.T`` that reach their row's floor.

    Args:
        left: (a, w), packed.
        right: (b, w), packed, same dtype and device.
        floor: (a,) float32.

    Returns:
        (p,) int64, row * b + column.
    """
    import torch

    if left.device.type != "cpu":
        products = left @ right.T
        mask = products >= torch.from_numpy(floor).to(left.device)[:, None]
        positions: Int64 = mask.flatten().nonzero()[:, 0].cpu().numpy()
        return positions
    if left.dtype == torch.bfloat16:
        # Positive bfloat16 numbers order like their bits, negative ones have negative bits; numpy
        # compares integers several times faster than torch compares bfloat16.
        bits = (left @ right.T).view(torch.int16).numpy()
        return np.flatnonzero(bits >= _floor_bits(floor)[:, None])
    shape = (len(left), len(right))
    size = shape[0] * shape[1]
    if getattr(_buffers, "size", 0) < size:
        _buffers.size = size
        _buffers.products = torch.empty(size, dtype=torch.float32)
        _buffers.mask = np.empty(size, np.bool_)
    products = _buffers.products[:size].view(shape)
    torch.mm(left, right.T, out=products)
    mask = _buffers.mask[:size].reshape(shape)
    np.greater_equal(products.numpy(), floor[:, None], out=mask)
    return np.flatnonzero(mask)


def _floor_bits(floor: Float32) -> NDArray[np.int16]:
    """Bits of the next lower bfloat16; the least integer, which all reach, for floors <= 0."""
    high = (np.ascontiguousarray(floor).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
    return np.where(floor > 0, high, np.iinfo(np.int16).min).astype(np.int16)


def refine(
    left: Block, right: Block, flat: Int64, device: str = "cpu"
) -> tuple[Int64, Int64, Float64, Float64]:
    """Values F (bounds.py) of the surviving pairs of a tile, in float32 arithmetic.

    Args:
        left: the tile's rows, a of them.
        right: its columns, b of them.
        flat: (p,) int64, row * b + column, rising.
        device: where to compute.

    Returns:
        Positions i and j, (p,) int64; F, (p,) float64, and a bound on its error, (p,) float64.
    """
    i, j = np.divmod(flat, len(right))
    dots = dots_at(left.rows, right.rows, flat, device).astype(np.float64)
    norms = left.norms[i] * right.norms[j]
    slack = bounds.dot_slack(left.basis.dimension)
    if left.metric == "cosine":
        return i, j, dots / norms, np.full(len(i), slack)
    error = slack * norms + bounds.TINY
    if left.metric == "inner_product":
        return i, j, dots, error
    halves = 0.5 * (left.norms[i] ** 2 + right.norms[j] ** 2)
    return i, j, dots - halves, error + bounds.EXACT * halves


def dots_at(left: Float32, right: Float32, flat: Int64, device: str = "cpu") -> Float32:
    """Float32 dot products of rows, at some places of the product's grid only.

    Args:
        left: (a, d) float32.
        right: (b, d) float32.
        flat: (p,) int64, row * b + column, rising.
        device: where to compute.

    Returns:
        (p,) float32.
    """
    import torch

    if len(flat) == 0:
        return np.empty(0, np.float32)
    a, b = tensor(left).to(device), tensor(right).to(device)
    i, j = np.divmod(flat, len(right))
    if len(flat) > DENSE_SHARE * len(left) * len(right):
        dots = (a @ b.T).flatten()[torch.from_numpy(flat).to(device)]
    elif device == "cpu":
        starts = np.searchsorted(i, np.arange(len(left) + 1))
        pattern = torch.sparse_csr_tensor(
            torch.from_numpy(starts), torch.from_numpy(j), torch.zeros(len(j)),
            size=(len(left), len(right)), check_invariants=False,
        )  # fmt: skip
        dots = torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0).values()
    else:
        rows, columns = torch.from_numpy(i).to(device), torch.from_numpy(j).to(device)
        dots = torch.linalg.vecdot(a[rows], b[columns])
    result: Float32 = dots.cpu().numpy()
    return result
