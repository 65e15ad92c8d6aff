"""The rotation that makes short prefixes of vectors carry most of their length.

A basis is fitted once, on a sample, and shared by all blocks that are to be compared. It holds the
leading principal directions (uncentered for cosine and inner product, centered for Euclidean
distance, which does not change under translation) and some pivots: means of clusters of the sample,
around which top-k search begins. Only speed depends on the quality of the fit:
bounds.py takes any nearly orthonormal directions. There are no more of them than the sample has
rows, and neither time nor memory grows with the square of the dimension where rows are few.
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ember.worker.vectors.arrays import Float64, Stored
from ember.worker.vectors.kmeans import lloyd

METRICS = ("cosine", "inner_product", "euclidean")
SAMPLE_ROWS = 8192
SAMPLE_VALUES = 1 << 24
"""Values of the sample, at most: of very long vectors there are fewer rows in it."""
PIVOTS = 128
ROUNDS = 5

USUAL = (-30, 40)
"""Binary exponents of lengths that float32 products take as they are."""
LEAST_EXPONENT = -60
"""Shorter rows are scaled up by no more: see bounds.py, "Scale"."""
FAR = 8.0
"""Rows are measured from a center that is so many times as far away as they are from it."""

# A direction in which rows vary less than this, relatively, is nothing but rounding.
_RANK = 1e-12

# A prefix that is hardly shorter than the vector saves nothing.
WIDEST_SHARE = 0.7

# Candidate prefix widths: close enough together that the best one is never missed by much.
LADDER = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Basis:
    """Directions, prefix widths and pivots; float32 arrays that pickle and broadcast well.

    Attributes:
        metric: one of ``METRICS``.
        center: (d,) subtracted before the rotation; zeros but for Euclidean distance.
        directions: (d, m) nearly orthonormal columns, by falling share of squared length.
        widths: prefix widths for which residual norms are kept, rising, the last one is m.
        pivots: (c, m) means of clusters of the rotated sample.
        orthogonality: Frobenius norm of directions^T directions - I.
        key: checksum; blocks can be compared when their keys agree.
        exponent: for Euclidean distance, rows are compared times 2^-exponent (bounds.py, "Scale").
        moved: float32 products are made of (a - center) 2^-exponent, and not of a.
    """

    metric: str
    center: NDArray[np.float32]
    directions: NDArray[np.float32]
    widths: tuple[int, ...]
    pivots: NDArray[np.float32]
    orthogonality: float
    key: int
    exponent: int = 0
    moved: bool = False

    @property
    def dimension(self) -> int:
        return int(self.directions.shape[0])

    def to_bytes(self) -> bytes:
        """The basis in numpy's npz format."""
        sink = io.BytesIO()
        np.savez(
            sink, metric=self.metric, center=self.center, directions=self.directions,
            widths=self.widths, pivots=self.pivots, orthogonality=self.orthogonality, key=self.key,
            exponent=self.exponent, moved=self.moved,
        )  # fmt: skip
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes) -> Basis:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            return cls(
                str(file["metric"]), file["center"], file["directions"],
                tuple(file["widths"].tolist()), file["pivots"],
                float(file["orthogonality"]), int(file["key"]),
                int(file["exponent"]), bool(file["moved"]),
            )  # fmt: skip

    def truncate(self, width: int) -> Basis:
        """The basis with prefixes of at most ``width`` columns, for smaller and cheaper blocks."""
        widths = tuple(w for w in self.widths if w <= width) or self.widths[:1]
        return _basis(
            self.metric, self.center, self.directions[:, : widths[-1]], widths,
            self.pivots[:, : widths[-1]], exponent=self.exponent, moved=self.moved,
        )  # fmt: skip


def sample_size(dimension: int) -> int:
    """How many rows of a sample `fit_basis` uses, at most."""
    return max(1, min(SAMPLE_ROWS, SAMPLE_VALUES // max(1, dimension)))


def fit_basis(sample: Stored, metric: str, *, pivots: int = PIVOTS, seed: int = 0) -> Basis:
    """Fit a basis on a sample of rows.

    Principal directions are eigenvectors, in float64, of the second-moment matrix of `sample_size`
    rows (Jolliffe, Principal Component Analysis, 2nd ed., chapter 3); of fewer rows than dimensions
    they come from the rows' products with each other (section 3.5 there).

    Args:
        sample: (n, d) float32 or float64, finite; for cosine without zero rows. An empty sample
            gives coordinate axes.
        metric: cosine, inner_product or euclidean.
        pivots: how many, at most; a threshold join has no use for any.
        seed: for the choice of rows.

    Raises:
        ValueError: unknown metric, not a matrix, or no columns.
    """
    check_metric(metric)
    if sample.ndim != 2 or sample.shape[1] == 0:
        raise ValueError(f"a sample must be a matrix with columns, got shape {sample.shape}")
    rng = np.random.default_rng(seed)
    n, d = sample.shape
    if n > sample_size(d):
        sample = sample[np.sort(rng.choice(n, sample_size(d), replace=False))]
    center = np.zeros(d, np.float32)
    if metric == "euclidean" and n:
        center = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors = sample.astype(np.float64) - center
    if metric == "cosine":
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors /= np.where(norms > 0, norms, 1.0)[:, None]
    exponent, moved = scale_of(vectors, center) if metric == "euclidean" and n else (0, False)
    vectors *= 2.0**-exponent
    widest = max((w for w in LADDER if w <= WIDEST_SHARE * d), default=d)
    directions = _directions(vectors, widest) if n else np.eye(d, min(widest, LADDER[0]))
    known = directions.shape[1]
    widths = (*(w for w in LADDER if w <= WIDEST_SHARE * d and w < known), known)
    rotated = (vectors @ directions).astype(np.float32)
    means = lloyd(rotated, rotated[rng.permutation(len(rotated))[:pivots]], ROUNDS, rng)
    columns = directions.astype(np.float32)
    return _basis(metric, center, columns, widths, means, exponent=exponent, moved=moved)


def scale_of(vectors: Float64, center: NDArray[np.float32]) -> tuple[int, bool]:
    """Exponent, and whether rows are moved (see `Basis`), for a centered sample, (n, d), n > 0."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    longest = math.frexp(float(lengths.max()))[1]
    usual = longest in range(*USUAL) or not lengths.any()
    exponent = 0 if usual else max(longest, LEAST_EXPONENT)
    far = np.linalg.norm(center.astype(np.float64)) > FAR * np.sqrt(np.square(lengths).mean())
    return exponent, bool(exponent or far)


def _directions(vectors: Float64, most: int) -> Float64:
    """(d, m) leading principal directions of (n, d) rows, one at least, at most `most`."""
    n, d = vectors.shape
    if n >= d:
        _, columns = np.linalg.eigh(vectors.T @ vectors)
        return np.ascontiguousarray(columns[:, ::-1][:, :most])
    variances, weights = np.linalg.eigh(vectors @ vectors.T)
    known = np.flatnonzero(variances > _RANK * max(variances[-1], 0.0))[::-1][:most]
    if not len(known):  # all rows are zero: one direction is as good as any
        return np.eye(d, 1)
    # Orthonormal but for the rounding of the products, which this takes away.
    columns, _ = np.linalg.qr(vectors.T @ weights[:, known])
    return columns


def check_metric(metric: str) -> None:
    """Raises ValueError, naming the known ones, for an unknown metric."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")


def _basis(
    metric: str,
    center: NDArray[np.float32],
    directions: NDArray[np.float32],
    widths: tuple[int, ...],
    pivots: NDArray[np.float32],
    *,
    exponent: int,
    moved: bool,
) -> Basis:
    directions = np.ascontiguousarray(directions)
    exact = directions.astype(np.float64)
    error = float(np.linalg.norm(exact.T @ exact - np.eye(exact.shape[1])))
    pivots, key = np.ascontiguousarray(pivots), zlib.crc32(metric.encode())
    for array in (center, directions, pivots, np.array([exponent, moved], np.int64)):
        key = zlib.crc32(array.tobytes(), key)
    return Basis(metric, center, directions, widths, pivots, error, key, exponent, moved)
