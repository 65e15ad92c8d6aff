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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ember.worker.vectors.arrays import Float64, Int64
from ember.worker.vectors.basis import fit_basis
from ember.worker.vectors.block import Block, prepare
from ember.worker.vectors.filters import Filter
from ember.worker.vectors.float32_filter import Float32Filter
from ember.worker.vectors.int8_filter import Int8Filter
from ember.worker.vectors.threads import run_tiles
from ember.worker.vectors.tiles import TILE_COLUMNS, TILE_ROWS, Side, Tiles, Which

log = logging.getLogger(__name__)

FILTERS: dict[str, Callable[[int | None], Filter]] = {"float32": Float32Filter, "int8": Int8Filter}
"""Of filters, by precision: each takes a width."""
WORTHWHILE_PAIRS = 1 << 22
"""Fewer pairs than this are done in all dimensions, sooner than a choice could be made."""
SAMPLE_ROWS = 384
PART_ROWS = 16
REPEATS = 3
NARROW, WIDE = 33, 257
PROBE_COLUMNS = 4 * TILE_COLUMNS
PROBE_SHARE = 0.02


@dataclass(frozen=True)
class Costs:
    """Nanoseconds for one pair, on one thread.

    Attributes:
        base, slope: by precision, of a filter's product of width w: base + slope * w.
        survivor: of the dot product of a pair that the filter lets through.
    """

    base: Mapping[str, float]
    slope: Mapping[str, float]
    survivor: float

    def filters(self, widths: Iterable[int]) -> list[Filter]:
        """Those there are, with prefixes of some widths and without."""
        return [FILTERS[name](width) for name in self.slope for width in (None, *widths)]

    def of(self, how: Filter, dimension: int, share: Float64) -> Float64:
        """Of filters that let some shares of the pairs through."""
        width = (how.width or dimension) + 1
        product = self.base[how.precision] + self.slope[how.precision] * width
        return product + share * self.survivor


@lru_cache(maxsize=8)
def measure(dimension: int) -> Costs:
    """Time the products of one tile, and the dot products of survivors, on one thread."""
    (costs,) = run_tiles(_measure, [dimension], 1)
    return costs


def choose(
    left: Block, right: Block, floor: Float64, parts: list[Int64], *, threads: int
) -> list[Filter]:
    """Choose a filter for each of several parts, positions of rows, of the left block.

    ``floor`` is (n,) float64: for each row of ``left`` the F (bounds.py) that its pairs must reach.
    """
    if len(left) * len(right) < WORTHWHILE_PAIRS:
        return [Float32Filter(None)] * len(parts)
    dimension, costs = left.basis.dimension, measure(left.basis.dimension)
    each = max(PART_ROWS, SAMPLE_ROWS // len(parts))
    rows = [part[spread(len(part), each)] for part in parts]
    sample = left.take(np.concatenate(rows)), right.take(spread(len(right), SAMPLE_ROWS))
    floor = floor[np.concatenate(rows)]
    ends = np.cumsum([len(r) for r in rows])

    def shares(how: Filter) -> Float64:
        """Of the pairs of each part, those that the filter lets through."""
        # Fitted to the blocks: int8 depends on the longest row, which the sample may lack.
        fitted = how.fit(left, right)
        operands = fitted.left(sample[0]), fitted.right(sample[1])
        through = fitted.passing(*operands, floor) / len(sample[1])
        return np.array([p.mean() for p in np.split(through, ends[:-1])])

    def product_cost(how: Filter) -> float:
        return float(costs.of(how, dimension, np.zeros(1))[0])

    # From the cheapest product on, until products alone cost more than the best filters so far.
    filters = sorted(costs.filters(left.basis.widths), key=product_cost)
    cost: dict[Filter, Float64] = {}
    best = np.full(len(parts), np.inf)
    for start in range(0, len(filters), threads):
        some = filters[start : start + threads]
        if product_cost(some[0]) >= best.max():
            break
        for how, share in zip(some, run_tiles(shares, some, threads), strict=True):
            cost[how] = costs.of(how, dimension, share)
        best = np.min([*cost.values()], axis=0)
    chosen = [min(cost, key=lambda how: float(cost[how][part])) for part in range(len(parts))]
    for how, expected in zip(chosen, best, strict=True):
        log.debug("filter: %s, about %.2g ns for a pair on a thread", how, expected)
    return chosen


def spread(rows: int, count: int) -> Int64:
    """At most ``count`` positions, evenly spread over ``rows``."""
    return np.unique(np.linspace(0, max(rows - 1, 0), min(count, rows)).astype(np.int64))


def _measure(dimension: int) -> Costs:
    rng = np.random.default_rng(0)
    block = _random(rng, dimension)
    best = np.empty((TILE_ROWS, 0), np.float32)

    def pair(width: int, how: Filter, floor: float) -> float:
        packed = _random(rng, width - 1)
        fitted = how.fit(packed, packed)
        left = Side.of(block, fitted.left(packed), block.ids).take(slice(TILE_ROWS))
        right = Side.of(block, fitted.right(packed), block.ids)
        tiles, floors = Tiles(fitted, block.metric, Which.ALL), np.full(TILE_ROWS, floor)

        def compare() -> None:
            for _ in tiles.candidates(left, right, floors, best):
                pass

        return _best(compare) / (TILE_ROWS * PROBE_COLUMNS)

    base: dict[str, float] = {}
    slope: dict[str, float] = {}
    for name, kind in FILTERS.items():
        if name == "float32" or Int8Filter.available():
            wide, narrow = (pair(width, kind(None), np.inf) for width in (WIDE, NARROW))
            slope[name] = max(wide - narrow, 0.0) / (WIDE - NARROW)
            base[name] = max(narrow - slope[name] * NARROW, 0.0)
    # Products of normal coordinates are about normal.
    deviation = math.sqrt(NARROW - 1)
    nothing = base["float32"] + slope["float32"] * NARROW
    reached = NormalDist(0.0, deviation).inv_cdf(1.0 - PROBE_SHARE)
    survivor = max(pair(NARROW, Float32Filter(None), reached) - nothing, 0.0) / PROBE_SHARE
    costs = Costs(base, slope, survivor)
    log.debug("measured: %s", costs)
    return costs


def _random(rng: np.random.Generator, dimension: int) -> Block:
    rows = rng.standard_normal((PROBE_COLUMNS, dimension), np.float32)
    return prepare(rows, "inner_product", fit_basis(rows[:0], "inner_product"))


def _best(action: Callable[[], object]) -> float:
    """Nanoseconds of the fastest of some runs, the first one left out."""
    action()
    best = math.inf
    for _ in range(REPEATS):
        # This thread's own work, whatever else the processor is busy with.
        start = time.thread_time_ns()
        action()
        best = min(best, time.thread_time_ns() - start)
    return best
