"""What a row's line of the model's matrix becomes in the output: an embedding, or predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ember.errors import InvalidInput
from ember.worker.encoder import Slot

__all__ = [
    "PREDICTIONS",
    "Embedding",
    "Predictions",
    "Result",
    "Scorer",
    "best_first",
    "to_batch",
    "unit_length",
    "vectors_to_arrow",
]

Matrix = npt.NDArray[np.float32]
FloatT = TypeVar("FloatT", np.float32, np.float64)
PREDICTIONS = pa.list_(
    pa.struct([("index", pa.int32()), ("label", pa.string()), ("score", pa.float32())])
)


class Result(Protocol):
    """How the matrix of a filled slot becomes a column of the output."""

    @property
    def name(self) -> str:
        """The column's name."""
        ...

    def column(self, slot: Slot) -> pa.Array:
        """A value for each row of `slot`, null for those with an error; may find more errors."""
        ...


class Scorer(Protocol):
    """A head on embeddings, as ember.worker.heads.head.Head is."""

    @property
    def dimension(self) -> int: ...

    def scores(self, matrix: Matrix) -> Matrix:
        """Probabilities (n, classes) float32 of embeddings (n, dimension) float32."""
        ...


@dataclass(frozen=True)
class Embedding:
    """The line itself; with `normalize`, at unit length."""

    normalize: bool
    name: str = "embedding"

    def column(self, slot: Slot) -> pa.Array:
        if self.normalize and slot.vectors is not None:
            slot.vectors = unit_length(slot.vectors)
        return vectors_to_arrow(slot.vectors, _failed(slot))


@dataclass(frozen=True)
class Predictions:
    """The best labels of each row, with their scores, best first; of equal scores the lower index.

    labels: the names of the classes, by index.
    top_k: at most so many labels; all where there are fewer.
    thresholds: by class; a label whose score is below its own is left out. None: none is.
    head: makes scores of the lines, which are embeddings then (at unit length with `normalize`);
        None where the lines are scores.
    """

    labels: tuple[str, ...]
    top_k: int
    thresholds: tuple[float, ...] | None = None
    head: Scorer | None = None
    normalize: bool = False
    name: str = "predictions"

    def column(self, slot: Slot) -> pa.Array:
        """See Result. Raises InvalidInput when the classes or dimensions do not agree."""
        failed = _failed(slot)
        if slot.vectors is None or failed.all():
            return pa.nulls(len(failed), PREDICTIONS)
        scores = self._scores(slot.vectors[~failed])
        finite = np.isfinite(scores).all(axis=1)
        for row in np.flatnonzero(~failed)[~finite]:
            slot.errors[int(row)] = "not finite: the head returned NaN or infinity"
        return self.of_scores(scores[finite], _failed(slot))

    def _scores(self, lines: Matrix) -> Matrix:
        if self.head is None:
            return lines
        if lines.shape[1] != self.head.dimension:
            raise InvalidInput(
                f"the head takes embeddings of {self.head.dimension} numbers and the model gives "
                f"{lines.shape[1]}; give the model and the layer that the head was trained on"
            )
        return self.head.scores(unit_length(lines) if self.normalize else lines)

    def of_scores(self, scores: Matrix, failed: npt.NDArray[np.bool_]) -> pa.Array:
        """Scores (m, classes) of the m rows that did not fail, as a column of len(failed) rows."""
        if scores.shape[1] != len(self.labels):
            raise InvalidInput(
                f"the model gives {scores.shape[1]} classes and there are {len(self.labels)} "
                "labels; give `labels` a file with the names of the model's own classes"
            )
        indices = best_first(scores, self.top_k)
        best = np.take_along_axis(scores, indices, axis=1)
        kept = np.ones(best.shape, bool)
        if self.thresholds is not None:
            kept = best >= np.asarray(self.thresholds, np.float32)[indices]
        lengths = np.zeros(len(failed), np.int64)
        lengths[~failed] = kept.sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        chosen = indices[kept].astype(np.int32)
        names = pa.array(self.labels, pa.string()).take(pa.array(chosen))
        values = pa.StructArray.from_arrays(
            [pa.array(chosen), names, pa.array(best[kept])], fields=list(PREDICTIONS.value_type)
        )
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(failed))


def to_batch(slot: Slot, result: Result) -> pa.RecordBatch:
    """A filled slot, whose tag is a batch of the columns that come first, the id's before all.

    Returns (id, the tag's other columns, result, status, error).
    """
    column = result.column(slot)  # first, since it may find errors
    rows = range(len(slot.raws))
    errors = pa.array([slot.errors.get(row) for row in rows], pa.string())
    status = pa.array(["error" if row in slot.errors else "ok" for row in rows], pa.string())
    known: pa.RecordBatch = slot.tag
    return pa.RecordBatch.from_arrays(
        [*known.columns, column, status, errors],
        names=[*known.schema.names, result.name, "status", "error"],
    )


def best_first(scores: Matrix, k: int) -> npt.NDArray[np.int64]:
    """Indices (n, min(k, classes)) of the largest scores of each line, of equal ones the lower."""
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order


def vectors_to_arrow(vectors: Matrix | None, failed: npt.NDArray[np.bool_]) -> pa.Array:
    """A matrix (n, d) float32 as list<float> without going through Python lists.

    failed: (n,) bool, the rows that become null. vectors may be None when all of them failed.
    """
    if vectors is None:
        return pa.nulls(len(failed), pa.list_(pa.float32()))
    kept = vectors if not failed.any() else vectors[~failed]
    lengths = np.where(failed, 0, vectors.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(kept.reshape(-1)), mask=pa.array(failed)
    )


def _failed(slot: Slot) -> npt.NDArray[np.bool_]:
    failed = np.zeros(len(slot.raws), bool)
    failed[list(slot.errors)] = True
    return failed


def unit_length(vectors: npt.NDArray[FloatT]) -> npt.NDArray[FloatT]:
    """Vectors (n, d) divided by their lengths; those of length 0 stay."""
    # In float64: squares of very large or small values overflow or underflow in float32.
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    unit: npt.NDArray[FloatT] = (exact / lengths).astype(vectors.dtype)
    return unit
