"""Whether the vectors of two tables are drawn from one distribution: a kernel test on sums.

The maximum mean discrepancy of two samples is the distance of their means in the space of a kernel
(Gretton et al., "A kernel two-sample test", JMLR 13, 2012); here in that of random Fourier features
(`ember.worker.drift.features`). Its square is a figure, with an interval. Most of it are directions
in which vectors spread anyway, so that as a test it misses what lies across them. The test
statistic weighs each principal direction of the features by its variance,

    T(g) = mn / (m + n) * sum over directions of  z^2 / (variance + g)

with z the difference of the means of m and n rows in a direction (Harchaoui, Bach & Moulines,
"Testing for homogeneity with kernel Fisher discriminant analysis", NIPS 2007; Hagrass,
Sriperumbudur & Li, "Spectral regularized kernel two-sample tests", Annals of Statistics 52, 2024).
How much g is best depends on the drift, so the largest of several T(g) counts, each in units of its
own deviations. The directions are those of all rows together, whichever table they are of.

Its p-value is that of a permutation test: the hash of a row's id says which table it is put into,
for each of B times, with the probability of the reference's share of the rows. That takes sums of
features only, which merge in any order and are exact. Under the null hypothesis the statistic is
one among B + 1 alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ember.worker.drift.features import ONE, Features
from ember.worker.metrics.loops import draw
from ember.worker.splitmix import mix

__all__ = ["PERMUTATIONS", "KernelSums", "KernelTest", "kernel_test"]

PERMUTATIONS = 999
_RIDGES = (1.0, 0.1, 0.01, 0.001)
"""Values of g, in units of the largest variance."""
_LANES = 1 << 16
_ROWS = 4096


@dataclass
class KernelSums:
    """Sums over the rows of two tables, the reference first; all of them whole numbers.

    Attributes:
        share: of the reference among all rows, with which rows are put there.
        counts: (2,) rows. sums: (2, D) of features. products: (2, D, D) of pairs of them.
        drawn: (B,) rows that each permutation puts into the reference. drawn_sums: (B, D).
    """

    share: float
    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray
    drawn: np.ndarray
    drawn_sums: np.ndarray

    @classmethod
    def empty(cls, share: float, features: int, permutations: int = PERMUTATIONS) -> Self:
        """The sums of no rows, of so many features each."""
        return cls(
            share,
            np.zeros(2),
            np.zeros((2, features)),
            np.zeros((2, features, features)),
            np.zeros(permutations),
            np.zeros((permutations, features)),
        )

    def add(self, features: Features, matrix: np.ndarray, keys: np.ndarray, side: int) -> None:
        """Add vectors (n, d) of a table, 0 or 1, with the hashes of their ids (n,) int64."""
        for start in range(0, len(matrix), _ROWS):
            part = features.of(matrix[start : start + _ROWS])
            self.counts[side] += len(part)
            self.sums[side] += part.sum(axis=0)
            self.products[side] += part.T @ part
            weights = self._draw(keys[start : start + _ROWS], side)
            self.drawn += weights.sum(axis=0)
            self.drawn_sums += weights.T @ part

    def _draw(self, keys: np.ndarray, side: int) -> np.ndarray:
        """Which permutations put each row into the reference: (n, B) float64, 0 or 1."""
        # An id that both tables have is two rows.
        salted = mix(keys.astype(np.int64) + side).view(np.uint64)
        # `draw` counts the thresholds that 16 random bits reach. Seven of these eight are out of
        # reach, so that it counts 0 or 1.
        thresholds = np.full(8, _LANES, np.int32)
        thresholds[0] = _LANES - min(max(round(self.share * _LANES), 1), _LANES - 1)
        weights = np.empty((len(keys), len(self.drawn)), np.uint8)
        draw(salted, 0, thresholds, weights)
        return weights.astype(np.float64)

    @property
    def flat(self) -> np.ndarray:
        """All sums behind each other, int64."""
        parts = (self.counts, self.sums, self.products, self.drawn, self.drawn_sums)
        return np.concatenate([part.ravel() for part in parts]).astype(np.int64)

    def filled(self, flat: np.ndarray) -> Self:
        """Sums of the same shapes from `flat` ones that were added up."""
        parts = (self.counts, self.sums, self.products, self.drawn, self.drawn_sums)
        ends = np.cumsum([part.size for part in parts])
        found = np.split(flat.astype(np.float64), ends[:-1])
        shaped = (each.reshape(part.shape) for each, part in zip(found, parts, strict=True))
        return type(self)(self.share, *shaped)


@dataclass(frozen=True)
class KernelTest:
    """mmd2: (1 + B,) float64, the squared discrepancy and its replicates. statistic: see above."""

    mmd2: np.ndarray
    statistic: float
    p_value: float


def kernel_test(sums: KernelSums, replicates: int = 1000) -> KernelTest:
    """The test of sums of both tables; all is NaN where a table has fewer than two rows."""
    m, n = sums.counts
    if min(m, n) < 2:
        return KernelTest(np.full(1 + replicates, np.nan), np.nan, np.nan)
    total, rows = sums.sums.sum(axis=0), m + n  # (D,)
    covariance = sums.products.sum(axis=0) / rows - np.outer(total, total) / rows**2  # (D, D)
    variances, directions = np.linalg.eigh(covariance)
    # The reference as it is, then as each permutation has it.
    first = np.concatenate([sums.sums[:1], sums.drawn_sums])  # (1 + B, D)
    count = np.concatenate([sums.counts[:1], sums.drawn])  # (1 + B,)
    fine = (count > 0) & (count < rows)  # a permutation may leave a table empty
    first, count = first[fine], count[fine, None]
    apart = first / count - (total - first) / (rows - count)  # differences of the means
    z2 = np.square(apart @ directions) * (count * (rows - count) / rows)
    most = max(float(variances[-1]), np.finfo(float).tiny)
    scaled = np.maximum(variances, 0) / most
    # T(g) by permutation and g: (1 + B, 4). Each g then counts in deviations of its own.
    values = np.stack([(z2 / most) @ (1 / (scaled + ridge)) for ridge in _RIDGES], axis=1)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    largest = values.max(axis=1)
    p_value = np.count_nonzero(largest >= largest[0] - 1e-9) / len(largest)
    return KernelTest(_discrepancy(sums, replicates), float(largest[0]), p_value)


def _discrepancy(sums: KernelSums, replicates: int) -> np.ndarray:
    """The unbiased square of the discrepancy, and replicates of it: (1 + B,) float64.

    The means of features are nearly normal, so a replicate draws their difference from a normal
    distribution of its mean and covariance, from a fixed seed.
    """
    frequencies = sums.sums.shape[1] // 2
    counts = sums.counts[:, None]
    means = sums.sums / counts  # (2, D)
    outer = means[:, :, None] * means[:, None, :]
    # Covariance of each table's mean: (2, D, D).
    inner = (sums.products / counts[..., None] - outer) / (counts[..., None] - 1)
    variances, directions = np.linalg.eigh(inner.sum(axis=0))
    variances = np.maximum(variances, 0)
    z = (means[0] - means[1]) @ directions
    noise = np.random.default_rng(0).normal(size=(replicates, len(z))) * np.sqrt(variances)
    bias = variances.sum()
    drawn = np.square(z + noise).sum(axis=1) - bias
    value = np.square(z).sum() - bias
    # cos and sin of F frequencies: their squares add up to F.
    values = np.append(value, value + drawn - np.square(z).sum())
    return np.asarray(values / (ONE**2 * frequencies))
