"""Random Fourier features of vectors as whole numbers, so that sums of them are exact.

With frequencies w drawn from a normal distribution, the mean of cos(w (x - y)) is the Gaussian
kernel exp(-|x - y|^2 / 2 s^2) of x and y (Rahimi & Recht, "Random features for large-scale kernel
machines", NIPS 2007), and the vector of all cos(w x) and sin(w x) has that mean for its inner
products (Sutherland & Schneider, "On the error of random Fourier features", UAI 2015, who show that
pairs of both are better than cosines with random phases).

Coordinates and frequencies are rounded to multiples of 2^-12, so that their products are sums of
whole numbers below 2^53: whatever the order in which a matrix product adds them up, and whatever
rows a batch has, a row has the same features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["ONE", "Features", "fit_features"]

ONE = 1 << 10
"""What stands for 1 among the features."""
_STEP = 1 << 12  # of coordinates in units of the kernel's width, and of frequencies in turns
_MOST = float(1 << 20)  # beyond so many steps a coordinate, 256 widths away, is moved there
_ANGLES = 1 << 12
_COSINES = np.rint(ONE * np.cos(2 * math.pi * np.arange(_ANGLES) / _ANGLES))
_FREQUENCIES = 128
_SEED = 20


@dataclass(frozen=True)
class Features:
    """A map from vectors of d numbers to 2F features.

    center: (d,) float64, subtracted. width: of the kernel. frequencies: (d, F) int16, steps.
    """

    center: np.ndarray
    width: float
    frequencies: np.ndarray

    @property
    def count(self) -> int:
        """How many features there are."""
        return 2 * int(self.frequencies.shape[1])

    def of(self, matrix: np.ndarray) -> np.ndarray:
        """(n, d) floating-point to (n, 2F) float64, whole numbers from -ONE to ONE."""
        steps = np.rint((matrix - self.center) * (_STEP / self.width)).clip(-_MOST, _MOST)
        turns = (steps @ self.frequencies.astype(np.float64)).astype(np.int64)
        angles = (turns // _STEP) % _ANGLES
        cosines, sines = _COSINES[angles], _COSINES[(angles - _ANGLES // 4) % _ANGLES]
        return np.concatenate([cosines, sines], axis=1)


def fit_features(sample: np.ndarray) -> Features:
    """Features for vectors like those of a sample (n, d), n > 0, of both tables.

    The kernel's width is the median of the distances in the sample (Gretton, Borgwardt, Rasch,
    Scholkopf & Smola, "A kernel two-sample test", JMLR 13, 2012). That does not look at which row
    is of which table.
    """
    rows = sample.astype(np.float64)
    center = rows.mean(axis=0)
    rows -= center
    squares = np.square(rows).sum(axis=1)
    apart = squares[:, None] + squares - 2 * rows @ rows.T
    pairs = apart[np.triu_indices(len(rows), 1)]
    width = math.sqrt(max(float(np.median(pairs)), 0.0)) if len(pairs) else 0.0
    shape = (rows.shape[1], _FREQUENCIES)
    drawn = np.random.default_rng(_SEED).normal(size=shape) / (2 * math.pi)
    frequencies = np.rint(_STEP * drawn).astype(np.int16)
    return Features(center, width or 1.0, frequencies)
