"""The rotation that makes short prefixes of vectors carry most of their length.

A basis is fitted once, on a sample, and shared by all blocks that are to be compared. It holds the
leading principal directions (uncentred for cosine and inner product, centred for Euclidean
distance, which does not change under translation) and some pivots: means of clusters of the sample,
around which top-k search looks first. Nothing depends on the quality of the fit but speed:
bounds.py takes any nearly orthonormal directions.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("cosine", "inner_product", "euclidean")
SAMPLE_ROWS = 8192
PIVOTS = 128
ROUNDS = 5

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
    """

    metric: str
    center: NDArray[np.float32]
    directions: NDArray[np.float32]
    widths: tuple[int, ...]
    pivots: NDArray[np.float32]
    orthogonality: float
    key: int

    @property
    def dimension(self) -> int:
        return int(self.directions.shape[0])

    def to_bytes(self) -> bytes:
        """The basis in numpy's npz format."""
        sink = io.BytesIO()
        np.savez(
            sink, metric=self.metric, center=self.center, directions=self.directions,
            widths=self.widths, pivots=self.pivots, orthogonality=self.orthogonality, key=self.key,
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
            )  # fmt: skip

    def truncate(self, width: int) -> Basis:
        """The basis with prefixes of at most ``width`` columns, for smaller and cheaper blocks."""
        widths = tuple(w for w in self.widths if w <= width) or self.widths[:1]
        return _basis(
            self.metric, self.center, self.directions[:, : widths[-1]], widths,
            self.pivots[:, : widths[-1]],
        )  # fmt: skip


def fit_basis(
    sample: NDArray[np.float32], metric: str, *, pivots: int = PIVOTS, seed: int = 0
) -> Basis:
    """Fit a basis on a sample of rows.

    Principal directions are eigenvectors, in float64, of the second-moment matrix of at most
    ``SAMPLE_ROWS`` rows (Jolliffe, Principal Component Analysis, 2nd ed., chapter 3).

    Args:
        sample: (n, d) float32, finite; for cosine without zero rows. An empty sample gives the
            coordinate axes.
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
    if n > SAMPLE_ROWS:
        sample = sample[np.sort(rng.choice(n, SAMPLE_ROWS, replace=False))]
    center = np.zeros(d, np.float32)
    if metric == "euclidean" and n:
        center = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    vectors = sample.astype(np.float64) - center
    if metric == "cosine":
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors /= np.where(norms > 0, norms, 1.0)[:, None]
    if n:
        _, columns = np.linalg.eigh(vectors.T @ vectors)
        directions = np.ascontiguousarray(columns[:, ::-1])
    else:
        directions = np.eye(d)
    widths = tuple(w for w in LADDER if w <= WIDEST_SHARE * d) or (d,)
    directions = directions[:, : widths[-1]]
    rotated = (vectors @ directions).astype(np.float32)
    means = _means(rotated, rotated[rng.permutation(len(rotated))[:pivots]])
    return _basis(metric, center, directions.astype(np.float32), widths, means)


def _means(rows: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    """(c, m) means moved to the middle of their (n, m) rows: Lloyd's algorithm (Least squares
    quantization in PCM, IEEE Transactions on Information Theory 28, 1982), some rounds of it.
    """
    for _ in range(ROUNDS if len(means) else 0):
        owners = (rows @ means.T - 0.5 * np.square(means).sum(axis=1)).argmax(axis=1)
        members = np.zeros((len(means), len(rows)), np.float32)
        members[owners, np.arange(len(rows))] = 1.0
        counts = members.sum(axis=1, keepdims=True)
        means = np.where(counts > 0, members @ rows / np.maximum(counts, 1.0), means)
    return means


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
) -> Basis:
    directions = np.ascontiguousarray(directions)
    exact = directions.astype(np.float64)
    error = float(np.linalg.norm(exact.T @ exact - np.eye(exact.shape[1])))
    pivots, key = np.ascontiguousarray(pivots), zlib.crc32(metric.encode())
    for array in (center, directions, pivots):
        key = zlib.crc32(array.tobytes(), key)
    return Basis(metric, center, directions, widths, pivots, error, key)
