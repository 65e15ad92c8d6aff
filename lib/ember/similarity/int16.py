"""Filter products of int16 rows, held against their floors in the registers they are summed in.

One instruction of AVX2 multiplies 16 pairs of int16 and adds neighbours to 8 int32, so that two do
the work of four multiply-adds in float32, and exactly. Their loop over a tile of 6 x 16 sums, which
fill 12 of the 16 registers (Goto and van de Geijn, Anatomy of High-Performance Matrix
Multiplication, ACM TOMS 34, 2008), is written in LLVM's own language, since numba has no word for
that instruction. No product is ever stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from ember.similarity.block import Float32, Float64, Int64
from ember.similarity.compiled import compiled
from ember.similarity.pack import PANEL_COLUMNS, Int32

ROWS, COLUMNS = 6, PANEL_COLUMNS
LEAST, NEVER = -(2**31) + 1, 2**31 - 1
"""Floors that every sum reaches but those of columns that are none, and that no sum reaches."""

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_SUMS, _PAIRS = ir.VectorType(_INT32, 8), ir.VectorType(ir.IntType(16), 16)
_SIGNS = ir.VectorType(ir.FloatType(), 8)


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether compiled code may use AVX2: on this processor, and as numba is set."""
    features = str(cpu_target.target_context.codegen().magic_tuple())
    return "+avx2" in features and not config.DISABLE_JIT


@compiled()
def pack_rows(values: Float32, width: int, last: Float64, scale: float) -> Int32:
    """Rows of scaled and rounded values, and one more that is rounded up.

    Args:
        values: (n, m).
        width: how many of the m.
        last: (n,), none of them negative.
        scale: so that scaled values fit int16.

    Returns:
        (n, w / 2), two int16 in each, with w the even number above ``width``.
    """
    result = np.zeros((len(values), width // 2 + 1), np.int32)
    _round(values, width, last, scale, result.view(np.int16))
    return result


@compiled()
def pack_panels(values: Float32, width: int, last: Float64, scale: float) -> Int32:
    """The same, 16 rows side by side: (ceil(n / 16), w / 2, 16); rows that are none are zeros."""
    pairs = width // 2 + 1
    result = np.zeros((-(-len(values) // COLUMNS), pairs, COLUMNS), np.int32)
    rows = np.zeros((COLUMNS, pairs), np.int32)
    for panel in range(len(result)):
        part = slice(panel * COLUMNS, min((panel + 1) * COLUMNS, len(values)))
        _round(values[part], width, last[part], scale, rows.view(np.int16))
        for pair in range(pairs):
            for row in range(part.stop - part.start):
                result[panel, pair, row] = rows[row, pair]
    return result


@compiled()
def _round(
    values: Float32, width: int, last: Float64, scale: float, rows: NDArray[np.int16]
) -> None:
    for row in range(len(values)):
        for k in range(width):
            rows[row, k] = np.int16(np.rint(values[row, k] * scale))
        rows[row, width] = np.int16(np.ceil(last[row] * scale))


@compiled()
def floors(floor: Float64, offset: Float64, squared: float, least: Int32) -> None:
    """Floors of sums from those of F (bounds.py).

    Args:
        floor: (a,) F that pairs must reach.
        offset: of pack.Int16Rows, (a,).
        squared: the scale's square.
        least: (a,) receives the floors.
    """
    for row in range(len(floor)):
        value = floor[row] * squared - offset[row]
        if not value > LEAST + 1:
            least[row] = LEAST
        elif value >= NEVER:
            least[row] = NEVER
        else:
            # One less for the rounding of the value, which is far below one.
            least[row] = np.int32(np.floor(value) - 1.0)


@compiled()
def reaching(
    left: Int32, right: tuple[Int32, Int32], least: Int32, row: Int64, column: Int64
) -> int:
    """Find the pairs whose product and bias add up to the least value of their row.

    Args:
        left: (a, w / 2), two int16 each.
        right: panels, (b / 16, w / 2, 16), the same of 16 columns side by side; and bias, (b,).
        least: (a,) int32.
        row: int64, with places for all pairs; receives positions.
        column: int64, the same.

    Returns:
        How many there are.
    """
    panels, bias = right
    rows, pairs = left.shape
    whole = rows // ROWS * ROWS
    rest, rest_least = np.zeros((ROWS, pairs), np.int32), np.full(ROWS, NEVER, np.int32)
    rest[: rows - whole] = left[whole:]
    rest_least[: rows - whole] = least[whole:]
    masks = np.empty(ROWS, np.int32)
    found = 0
    for panel in range(len(panels)):
        at = panels[panel].ctypes.data, bias[panel * COLUMNS :].ctypes.data
        for first in range(0, rows, ROWS):
            own, low = (rest, rest_least) if first == whole else (left[first:], least[first:])
            if _tile(pairs, (own.ctypes.data, *at, low.ctypes.data, masks.ctypes.data)):
                for i in range(ROWS):
                    for j in range(COLUMNS if masks[i] else 0):
                        if masks[i] >> j & 1:
                            row[found] = first + i
                            column[found] = panel * COLUMNS + j
                            found += 1
    return found


@intrinsic  # type: ignore[untyped-decorator]
def _tile(context: Any, pairs: Any, addresses: Any) -> Any:
    """Whether any of the sums of 6 rows with 16 columns reaches its row's least value.

    Takes the pairs of int16 in a row, and the addresses of the rows, the panel of columns, their
    bias, the least values, and six masks. If so, the masks receive which columns reach, one bit
    each.
    """
    return types.int32(pairs, addresses), _write_tile


def _write_tile(context: Any, write: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    pairs, addresses = arguments[0], cgutils.unpack_tuple(write, arguments[1])
    left, panel, bias, least, masks = (write.inttoptr(a, _INT32.as_pointer()) for a in addresses)
    halves = range(COLUMNS // 8)
    starts = [write.gep(left, [write.mul(pairs, _INT64(i))]) for i in range(ROWS)]
    first = [_load(write, bias, _INT64(8 * half)) for half in halves]

    before, loop = write.block, write.append_basic_block("pairs")
    after = write.append_basic_block("compare")
    write.branch(loop)
    write.position_at_end(loop)
    pair = write.phi(_INT64)
    sums = [[write.phi(_SUMS) for _ in halves] for _ in range(ROWS)]
    at = write.mul(pair, _INT64(COLUMNS))
    columns = [_load(write, panel, write.add(at, _INT64(8 * half))) for half in halves]
    added = []
    for i in range(ROWS):
        both = _eight(write, write.load(write.gep(starts[i], [pair])))
        added.append([write.add(sums[i][h], _multiplied(write, both, columns[h])) for h in halves])
    following = write.add(pair, _INT64(1))
    for phi, initial, later in [
        (pair, _INT64(0), following),
        *((sums[i][h], first[h], added[i][h]) for i in range(ROWS) for h in halves),
    ]:
        phi.add_incoming(initial, before)
        phi.add_incoming(later, loop)
    write.cbranch(write.icmp_signed("<", following, pairs), loop, after)

    write.position_at_end(after)
    reached = []
    for i in range(ROWS):
        floor = _eight(write, write.load(write.gep(least, [_INT64(i)])))
        reached.append(
            [write.sext(write.icmp_signed(">=", added[i][h], floor), _SUMS) for h in halves]
        )
    union = reached[0][0]
    for mask in [mask for row in reached for mask in row][1:]:
        union = write.or_(union, mask)
    some = _signs(write, union)
    with write.if_then(write.icmp_signed("!=", some, _INT32(0)), likely=False):
        for i in range(ROWS):
            bits = _INT32(0)
            for h in halves:
                bits = write.or_(bits, write.shl(_signs(write, reached[i][h]), _INT32(8 * h)))
            write.store(bits, write.gep(masks, [_INT64(i)]))
    return some


def _load(write: ir.IRBuilder, base: ir.Value, place: ir.Value) -> ir.Value:
    """8 int32, from an address that need not be a multiple of 32."""
    return write.load(write.bitcast(write.gep(base, [place]), _SUMS.as_pointer()), align=4)


def _eight(write: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """8 times the same int32."""
    empty = ir.Constant(_SUMS, ir.Undefined)
    one = write.insert_element(empty, value, _INT32(0))
    return write.shuffle_vector(one, empty, ir.Constant(_SUMS, [0] * 8))


def _multiplied(write: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """8 sums of two products of int16 each (VPMADDWD)."""
    kind = ir.FunctionType(_SUMS, [_PAIRS, _PAIRS])
    name = "llvm.x86.avx2.pmadd.wd"
    instruction = cgutils.get_or_insert_function(write.module, kind, name)
    return write.call(instruction, [write.bitcast(x, _PAIRS) for x in (left, right)])


def _signs(write: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    """The highest bits of 8 int32 as the lowest bits of one (VMOVMSKPS)."""
    kind, name = ir.FunctionType(_INT32, [_SIGNS]), "llvm.x86.avx.movmsk.ps.256"
    instruction = cgutils.get_or_insert_function(write.module, kind, name)
    return write.call(instruction, [write.bitcast(mask, _SIGNS)])
