"""What a threshold join costs and finds for each pair of rows, from a join of samples."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ember.worker.metrics.intervals import jackknife_error
from ember.worker.vectors.arrays import Float64, Stored
from ember.worker.vectors.block import Block, prepare
from ember.worker.vectors.threads import default_threads
from ember.worker.vectors.threshold import join_basis, threshold_pairs

__all__ = ["SAMPLE_VALUES", "SampledJoin", "sample_join"]

SAMPLE_VALUES = 1 << 23
"""Values of a side's sample: 21,845 rows of 384 dimensions, 32 MiB of float32."""
_GROUPS = 16
_T = 2.131  # Student's t at 97.5% of _GROUPS - 1 degrees of freedom
# With none found among n pairs, a share above 3 / n would have shown one in 95 of 100 samples.
_UNSEEN = 3.0


@dataclass(frozen=True)
class SampledJoin:
    """Of each pair of rows, estimated on samples.

    Attributes:
        share, low, high: of the pairs, those that reach the threshold, and its 95% interval.
        pair_seconds: of one thread.
        row_seconds: of one thread, to prepare a row for comparison.
        row_bytes: of a row that is prepared.
    """

    share: float
    low: float
    high: float
    pair_seconds: float
    row_seconds: float
    row_bytes: float


def sample_join(
    left: Stored,
    right: Stored | None,
    metric: str,
    threshold: float,
    *,
    drawn: tuple[float, float] = (0.0, 0.0),
    threads: int | None = None,
) -> SampledJoin:
    """Join samples, and say what a pair costs and how many pairs are found.

    The interval is the jackknife's over 16 groups of rows (Efron and Stein, The jackknife estimate
    of variance, 1981), of each side by itself, since rows that are near others are in many pairs.

    Args:
        left: (n, d) rows drawn at random, n > 1.
        right: (m, d), of the other table; None joins the left one with itself, each pair once.
        metric: cosine, inner_product or euclidean.
        threshold: score, or distance for Euclidean.
        drawn: the shares of the tables that the samples are; a whole table has no sampling error.
        threads: default: OMP_NUM_THREADS, else all cores.

    Raises:
        ValueError: as `prepare` and `threshold_pairs` do.
    """
    threads = threads or default_threads()
    basis = join_basis(left if right is None else right, metric, threshold, threads=threads)
    start = time.perf_counter()
    a = prepare(left, metric, basis, threads=threads)
    b = a if right is None else prepare(right, metric, basis, threads=threads)
    prepared = time.perf_counter() - start
    rows = len(a) if right is None else len(a) + len(b)

    # Loops are loaded and filters timed once in a process: not by what is measured here.
    few = a.take(slice(len(a) // 8 + 1))
    counted(few, None if right is None else b.take(slice(len(b) // 8 + 1)), threshold, threads)
    start = time.perf_counter()
    counts = counted(a, None if right is None else b, threshold, threads)
    joined = time.perf_counter() - start

    share, low, high = _estimate(counts, len(a), None if right is None else len(b), drawn)
    pairs = len(a) * (len(a) - 1) / 2 if right is None else len(a) * len(b)
    return SampledJoin(
        share, low, high, threads * joined / pairs, threads * prepared / rows, _bytes(a) / len(a)
    )


def counted(left: Block, right: Block | None, threshold: float, threads: int) -> Float64:
    """(groups, groups) how many pairs there are of each group of left and of right rows."""
    counts = np.zeros((_GROUPS, _GROUPS))
    other = left if right is None else right
    for found in threshold_pairs(left, other, threshold, triangle=right is None, threads=threads):
        # Rows were drawn at random, so that every sixteenth of them is.
        np.add.at(counts, (found.left % _GROUPS, found.right % _GROUPS), 1)
    return counts


def _estimate(
    counts: Float64, n: int, m: int | None, drawn: tuple[float, float]
) -> tuple[float, float, float]:
    """The share of pairs found, and its interval; see `sample_join`."""
    total, sizes = counts.sum(), _sizes(n)
    if m is None:
        pairs = n * (n - 1) / 2
        kept = n - sizes
        without = total - counts.sum(0) - counts.sum(1) + np.diag(counts)
        estimates = without / np.maximum(1, kept * (kept - 1) / 2)
        variance = jackknife_error(estimates) ** 2 * (1 - drawn[0])
    else:
        pairs = float(n * m)
        left = (total - counts.sum(1)) / np.maximum(1, (n - sizes) * m)
        right = (total - counts.sum(0)) / np.maximum(1, n * (m - _sizes(m)))
        variance = jackknife_error(left) ** 2 * (1 - drawn[0])
        variance += jackknife_error(right) ** 2 * (1 - drawn[1])
    share, margin = float(total / pairs), _T * float(np.sqrt(variance))
    whole = min(drawn[0], 1.0 if m is None else drawn[1]) >= 1
    unseen = 0.0 if whole else _UNSEEN / pairs
    return share, max(0.0, share - margin), min(1.0, max(share + margin, unseen))


def _sizes(rows: int) -> Float64:
    return np.bincount(np.arange(rows) % _GROUPS, minlength=_GROUPS).astype(np.float64)


def _bytes(block: Block) -> int:
    """Of a block's arrays, those that are one counted once."""
    arrays = {id(each): each for each in vars(block).values() if isinstance(each, np.ndarray)}
    return sum(each.nbytes for each in arrays.values())
