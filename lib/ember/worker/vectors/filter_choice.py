"""Which filter is fastest here: costs measured on this machine, shares counted on a sample.

A filter of width m costs about  a + b m  nanoseconds for each pair and lets a share of the pairs
through, each of which costs another dot product. a, b and the dot product are timed once in a
process, in some tens of milliseconds where the loops are compiled already; the share is counted on
a sample of rows. The answer is the same whatever is chosen.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ember.worker.vectors.arrays import Float64, Int64
from ember.worker.vectors.basis import fit_basis
from ember.worker.vectors.block import Block, prepare
from ember.worker.vectors.pack import Filter
from ember.worker.vectors.threads import load_torch, run_tiles
from ember.worker.vectors.tiles import (
    TILE_COLUMNS,
    TILE_ROWS,
    Side,
    Which,
    candidates,
    common,
    operands,
    passing,
)

log = logging.getLogger(__name__)

FULL = Filter(None)
WORTHWHILE_PAIRS = 1 << 22
"""Fewer pairs than this are done in all dimensions, sooner than a choice could be made."""
SAMPLE_ROWS = 384
PART_ROWS = 16
REPEATS = 3
NARROW, WIDE = 33, 257
PROBE_COLUMNS = 4 * TILE_COLUMNS
PROBE_SHARE = 0.02


@dataclass(frozen=True)
class Plan:
    """A filter, and why it was chosen."""

    filter: Filter
    reason: str


@dataclass(frozen=True)
class Costs:
    """Nanoseconds for one pair, on one thread.

    Attributes:
        base, slope: by precision, of a filter product of width w: base + slope * w.
        survivor: of the dot product of a pair that the filter lets through.
    """

    base: dict[str, float]
    slope: dict[str, float]
    survivor: float

    def of(self, how: Filter, dimension: int, share: Float64) -> Float64:
        width = (how.width or dimension) + 1
        product = self.base[how.precision] + self.slope[how.precision] * width
        return product + share * self.survivor


@lru_cache(maxsize=8)
def measure(dimension: int, device: str) -> Costs:
    """Time the products of one tile, and the dot products of survivors, on one thread."""
    if "bfloat16" in _precisions(device):
        load_torch()
    (costs,) = run_tiles(lambda d: _measure(d, device), [dimension], 1)
    return costs


def choose(
    left: Block, right: Block, floor: Float64, parts: list[Int64], device: str, *, threads: int
) -> list[Plan]:
    """Choose a filter for each of several parts, positions of rows, of the left block.

    ``floor`` is (n,) float64: for each row of ``left`` the F (bounds.py) that its pairs must reach.
    """
    pairs = len(left) * len(right)
    if pairs < WORTHWHILE_PAIRS:
        return [Plan(FULL, f"{FULL}: only {pairs} pairs")] * len(parts)
    costs = measure(left.basis.dimension, device)
    each = max(PART_ROWS, SAMPLE_ROWS // len(parts))
    rows = [part[spread(len(part), each)] for part in parts]
    sample = left.take(np.concatenate(rows)), right.take(spread(len(right), SAMPLE_ROWS))
    floor = floor[np.concatenate(rows)]
    ends = np.cumsum([len(r) for r in rows])

    def expected(how: Filter) -> tuple[Float64, Float64]:
        # What int8 makes of a row depends on the longest one, which the sample may lack.
        shared = common(left, right, how) if how.precision == "int8" else None
        through = passing(*operands(*sample, how, "cpu", shared), floor) / len(sample[1])
        shares = np.array([p.mean() for p in np.split(through, ends[:-1])])
        return costs.of(how, left.basis.dimension, shares), shares

    def product_cost(how: Filter) -> float:
        return float(costs.of(how, left.basis.dimension, np.zeros(1))[0])

    # From the cheapest product on, until products alone cost more than the best filters so far.
    filters = [
        Filter(w, precision) for precision in costs.slope for w in (None, *left.basis.widths)
    ]
    filters.sort(key=product_cost)
    table: dict[Filter, tuple[Float64, Float64]] = {}
    best = np.full(len(parts), np.inf)
    for start in range(0, len(filters), threads):
        some = filters[start : start + threads]
        if product_cost(some[0]) >= best.max():
            break
        table |= dict(zip(some, run_tiles(expected, some, threads), strict=True))
        best = np.min([cost for cost, _ in table.values()], axis=0)
    return [_cheapest(table, part) for part in range(len(parts))]


def _cheapest(table: dict[Filter, tuple[Float64, Float64]], part: int) -> Plan:
    best = min(table, key=lambda how: float(table[how][0][part]))
    cost, share = (float(column[part]) for column in table[best])
    reason = f"{best}: about {cost:.2g} ns for a pair on a thread, {share:.2%} of the pairs go on"
    log.debug("filter: %s", reason)
    return Plan(best, reason)


def spread(rows: int, count: int) -> Int64:
    """At most ``count`` positions, evenly spread over ``rows``."""
    return np.unique(np.linspace(0, max(rows - 1, 0), min(count, rows)).astype(np.int64))


def _measure(dimension: int, device: str) -> Costs:
    rng = np.random.default_rng(0)
    # Time of this thread's own work, whatever else the processor is busy with.
    clock = time.thread_time_ns if device == "cpu" else time.perf_counter_ns
    block = _random(rng, dimension)
    best = np.empty((TILE_ROWS, 0), np.float32)

    def pair(width: int, precision: str, floor: float) -> float:
        packed = _random(rng, width - 1)
        a, b = operands(packed, packed, Filter(None, precision), device)
        left = Side.of(block, a, block.ids).take(slice(TILE_ROWS))
        right, floors = Side.of(block, b, block.ids), np.full(TILE_ROWS, floor)

        def compare() -> None:
            for _ in candidates(left, right, block.metric, floors, best, which=Which.ALL):
                pass

        return _best(compare, clock) / (TILE_ROWS * PROBE_COLUMNS)

    base: dict[str, float] = {}
    slope: dict[str, float] = {}
    for precision in _precisions(device):
        wide = pair(WIDE, precision, np.inf)
        if slope and wide > base["float32"] + slope["float32"] * WIDE:
            continue  # no fast path for this precision here
        narrow = pair(NARROW, precision, np.inf)
        slope[precision] = max(wide - narrow, 0.0) / (WIDE - NARROW)
        base[precision] = max(narrow - slope[precision] * NARROW, 0.0)
    # Products of normal coordinates are about normal.
    deviation = math.sqrt(NARROW - 1)
    nothing = base["float32"] + slope["float32"] * NARROW
    some = pair(NARROW, "float32", NormalDist(0.0, deviation).inv_cdf(1.0 - PROBE_SHARE))
    survivor = max(some - nothing, 0.0) / PROBE_SHARE
    log.debug("measured on %s: base %s, slope %s, survivor %.3g ns", device, base, slope, survivor)
    return Costs(base, slope, survivor)


def _random(rng: np.random.Generator, dimension: int) -> Block:
    rows = rng.standard_normal((PROBE_COLUMNS, dimension), np.float32)
    return prepare(rows, "inner_product", fit_basis(rows[:0], "inner_product"))


def _precisions(device: str) -> list[str]:
    """Those that may be fast; without bfloat16, torch is not needed on the CPU.

    That is worth its seconds and memory in each process where there is AMX. The instructions for
    bfloat16 of AVX-512 alone do no more work than those of AVX2 for int8, whose bounds are closer.
    """
    if device != "cpu":
        return ["float32", "bfloat16"]
    from ember.worker.vectors import int8_kernel

    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text("utf-8") if cpu.exists() else ""
    fast = {
        "int8": int8_kernel.available(),
        "bfloat16": "amx_bf16" in flags,
    }
    return ["float32", *(name for name in fast if fast[name])]


def _best(action: Callable[[], object], clock: Callable[[], int]) -> float:
    """Nanoseconds of the fastest of some runs, the first one left out."""
    action()
    best = math.inf
    for _ in range(REPEATS):
        start = clock()
        action()
        best = min(best, clock() - start)
    return best
