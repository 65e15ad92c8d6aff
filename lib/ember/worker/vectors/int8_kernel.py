"""Filter products of integers, held against their floors in the registers they are summed in.

One instruction of AVX2 multiplies 32 pairs of int8 and adds neighbors to 16 int16, one multiplies
16 pairs of int16 and adds neighbors to 8 int32; one more adds them up. That is four and two
times the work of a multiply-add in float32, done exactly. Their loops over a tile of 6 x 16 sums,
which fill 12 of the 16 registers (Goto and van de Geijn, Anatomy of High-Performance Matrix
Multiplication, ACM TOMS 34, 2008), are written in LLVM's own language, since numba has no words for
those instructions. No product is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ember.worker.compiled import compiled
from ember.worker.vectors.arrays import Float64, Int32, Int64
from ember.worker.vectors.filters import PANEL_COLUMNS

ROWS, COLUMNS = 6, PANEL_COLUMNS
LEAST, NEVER = -(2**31) + 1, 2**31 - 1
"""A floor that every sum reaches but that of a padding column, and one that no sum reaches."""

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_SUMS, _PAIRS = ir.VectorType(_INT32, 8), ir.VectorType(ir.IntType(16), 16)
_FOURS, _SIGNS = ir.VectorType(ir.IntType(8), 32), ir.VectorType(ir.FloatType(), 8)
_HALVES = range(COLUMNS // 8)
Sums = list[list[ir.Value]]
"""Vectors of sums of each row, in halves of the columns."""


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether compiled code may use AVX2: on this processor, and as numba is set."""
    features = str(cpu_target.target_context.codegen().magic_tuple())
    return "+avx2" in features and not config.DISABLE_JIT


@compiled()
def floors(floor: Float64, offset: Float64, squared: float, least: Int32) -> None:
    """Floors of sums from those of F (bounds.py).

    Args:
        floor: (a,) F that pairs must reach.
        offset: of int8_filter.Int8Rows, (a,).
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
    left: tuple[Int32, int, int], right: tuple[Int32, Int32], least: Int32, row: Int64,
    column: Int64,
) -> int:  # fmt: skip
    """Find the pairs whose product and bias add up to the least value of their row.

    Args:
        left: (a, w) words (int8_rounding.pack_rows), how many of them are int8, and the ratio by
            which products of int8 count for more than others.
        right: panels, (b / 16, w, 16), the words of 16 columns side by side; and bias, (b,).
        least: (a,) int32.
        row: int64, with places for all pairs; receives positions.
        column: int64, the same.

    Returns:
        How many there are.
    """
    values, low, ratio = left  # (a, w)
    panels, bias = right  # (b / 16, w, 16), (b,)
    rows, words = values.shape
    whole = rows // ROWS * ROWS
    # The last rows, fewer than 6, are a tile too: filled up with copies of one of them, whose
    # floors no sum reaches. Element by element: slices take numba seconds to compile.
    rest, rest_least = np.empty((ROWS, words), np.int32), np.full(ROWS, NEVER, np.int32)
    for place in range(ROWS if whole < rows else 0):
        taken = min(whole + place, rows - 1)
        for word in range(words):
            rest[place, word] = values[taken, word]
        if whole + place < rows:
            rest_least[place] = least[taken]
    masks = np.empty(ROWS, np.int32)  # one bit for each of the 16 columns
    found = 0
    # A panel stays in the first cache while all rows pass by.
    for panel in range(len(panels)):
        at, begin = panels[panel].ctypes.data, bias[panel * COLUMNS :].ctypes.data
        for first in range(0, rows, ROWS):
            own, floor = (rest, rest_least) if first == whole else (values[first:], least[first:])
            least_at, masks_at = floor.ctypes.data, masks.ctypes.data
            # Few tiles have any pair that passes; masks are written for those alone.
            if _tile(low, words, ratio, (own.ctypes.data, at, begin, least_at, masks_at)):
                for i in range(ROWS):
                    for j in range(COLUMNS if masks[i] else 0):
                        if masks[i] >> j & 1:
                            row[found] = first + i
                            column[found] = panel * COLUMNS + j
                            found += 1
    return found


@intrinsic  # type: ignore[untyped-decorator]
def _tile(context: Any, low: Any, words: Any, ratio: Any, addresses: Any) -> Any:
    """Whether any of the sums of 6 rows with 16 columns reaches its row's least value.

    Takes how many words are int8, of how many; the ratio; and the addresses of the rows, the panel
    of columns, their bias, the least values, and six masks. If so, the masks receive which columns
    reach, one bit each.
    """
    return types.int32(low, words, ratio, addresses), _write_tile


def _write_tile(context: Any, write: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    """The instructions of `_tile`: sums[i][h] is a vector of row i and half h of the columns."""
    low, words, ratio = arguments[:3]
    left, panel, bias, least, masks = (
        write.inttoptr(a, _INT32.as_pointer()) for a in cgutils.unpack_tuple(write, arguments[3])
    )
    # The first word of each row; word v of the panel is 16 int32 from 16 v on.
    starts = [write.gep(left, [write.mul(words, _INT64(i))]) for i in range(ROWS)]
    operands, begin = (starts, panel), write.add(low, _INT64(1))

    # Words 1 to low, in int8: 16 int16 in each half, two for each column. They begin with word 0,
    # which takes back what SHIFT adds (int8_rounding.py).
    initial = [write.bitcast(_load(write, panel, _INT64(8 * h)), _PAIRS) for h in _HALVES]
    sums = _summed(write, operands, (_INT64(1), begin), [initial] * ROWS, _of_int8)
    # Both int16 of a column times the ratio, added to its bias: 8 int32 in each half.
    weight = write.trunc(ratio, ir.IntType(16))
    weights = write.bitcast(_same(write, weight, _PAIRS), _SUMS)
    biases = [_load(write, bias, _INT64(8 * h)) for h in _HALVES]
    weighted = [
        [write.add(biases[h], _of_int16(write, weights, row[h])) for h in _HALVES] for row in sums
    ]
    # The other words, in int16, go to the same int32.
    added = _summed(write, operands, (begin, words), weighted, _of_int16)
    return _compared(write, added, least, masks)


def _summed(
    write: ir.IRBuilder, operands: tuple[list[ir.Value], ir.Value],
    words: tuple[ir.Value, ir.Value], initial: Sums, product: Callable[..., ir.Value],
) -> Sums:  # fmt: skip
    """Sums with the products of some words, one at least, added to them."""
    starts, panel = operands
    kind = initial[0][0].type
    # before -> loop -> ... -> loop -> after, tested at its end.
    before, loop = write.block, write.append_basic_block("words")
    after = write.append_basic_block("summed")
    write.branch(loop)
    write.position_at_end(loop)
    # In LLVM's form a variable of a loop is a phi: of `before` at first, then of the last round.
    word = write.phi(_INT64)
    sums = [[write.phi(kind) for _ in _HALVES] for _ in range(ROWS)]
    at = write.mul(word, _INT64(COLUMNS))
    columns = [_load(write, panel, write.add(at, _INT64(8 * half))) for half in _HALVES]
    added = []
    for i in range(ROWS):
        # One word of the row with the same word of 16 columns.
        all_same = _same(write, write.load(write.gep(starts[i], [word])), _SUMS)
        added.append([write.add(sums[i][h], product(write, all_same, columns[h])) for h in _HALVES])
    following = write.add(word, _INT64(1))
    for phi, first, later in [
        (word, words[0], following),
        *((sums[i][h], initial[i][h], added[i][h]) for i in range(ROWS) for h in _HALVES),
    ]:
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    write.cbranch(write.icmp_signed("<", following, words[1]), loop, after)
    write.position_at_end(after)
    return added


def _compared(write: ir.IRBuilder, sums: Sums, least: ir.Value, masks: ir.Value) -> ir.Value:
    """Whether any sum reaches its row's least value; if so, masks."""
    reached = []  # masks: all bits of an int32 whose sum reaches the floor
    for i in range(ROWS):
        floor = _same(write, write.load(write.gep(least, [_INT64(i)])), _SUMS)
        reached.append(
            [write.sext(write.icmp_signed(">=", sums[i][h], floor), _SUMS) for h in _HALVES]
        )
    union = reached[0][0]
    for mask in [mask for row in reached for mask in row][1:]:
        union = write.or_(union, mask)
    some = _signs(write, union)  # 0 where no pair of the tile passes
    with write.if_then(write.icmp_signed("!=", some, _INT32(0)), likely=False):
        for i in range(ROWS):
            bits = _INT32(0)
            for h in _HALVES:
                bits = write.or_(bits, write.shl(_signs(write, reached[i][h]), _INT32(8 * h)))
            write.store(bits, write.gep(masks, [_INT64(i)]))
    return some


def _load(write: ir.IRBuilder, base: ir.Value, place: ir.Value) -> ir.Value:
    """8 int32, from an address that need not be a multiple of 32."""
    return write.load(write.bitcast(write.gep(base, [place]), _SUMS.as_pointer()), align=4)


def _same(write: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A vector of one value."""
    empty = ir.Constant(kind, ir.Undefined)
    one = write.insert_element(empty, value, _INT32(0))
    first = ir.Constant(ir.VectorType(_INT32, kind.count), [0] * kind.count)
    return write.shuffle_vector(one, empty, first)


def _of_int16(write: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """8 sums of two products of int16 each (VPMADDWD)."""
    return _called(write, "llvm.x86.avx2.pmadd.wd", _SUMS, _PAIRS, left, right)


def _of_int8(write: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """16 sums of two products each, of positive int8 on the left; they saturate (VPMADDUBSW)."""
    return _called(write, "llvm.x86.avx2.pmadd.ub.sw", _PAIRS, _FOURS, left, right)


def _called(
    write: ir.IRBuilder, name: str, result: ir.Type, kind: ir.Type, *vectors: ir.Value
) -> ir.Value:
    """The result of an instruction that takes vectors of a kind."""
    function = ir.FunctionType(result, [kind] * len(vectors))
    instruction = cgutils.get_or_insert_function(write.module, function, name)
    return write.call(instruction, [write.bitcast(vector, kind) for vector in vectors])


def _signs(write: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    """The highest bits of 8 int32 as the lowest bits of one (VMOVMSKPS)."""
    return _called(write, "llvm.x86.avx.movmsk.ps.256", _INT32, _SIGNS, mask)
