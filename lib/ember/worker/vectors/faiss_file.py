"""A flat faiss index as a file that is filled row by row: memory does not grow with its size.

faiss itself writes an index only from memory, where growing it takes up to twice its size. The file
of a flat index is a header, a count and the rows; the writer here is compared with faiss's own
output for a few rows before it writes anything, so that a change of the format is an error and not
a bad file. Of IndexFlatIP and IndexFlatL2, as in faiss/impl/index_write.cpp:

    char[4] "IxFI" or "IxF2" · int32 d · int64 n · int64 2^20 · int64 2^20 · uint8 trained ·
    int32 metric (0 inner product, 1 L2) · uint64 n d · n d float32
"""

from __future__ import annotations

import struct
from types import TracebackType
from typing import Self

import numpy as np

from ember.worker.vectors.arrays import Int64, Stored
from ember.worker.vectors.basis import check_metric

_DUMMY = 1 << 20


class FlatIndexFile:
    """A context in which rows are put into their places; the file is complete when it ends.

    Args:
        metric: cosine and inner_product give an inner-product index (for cosine the rows are scaled
            to length 1, and so must be the queries), euclidean an L2 index, whose scores are
            squared distances.
        rows: how many there will be in all.
    """

    def __init__(self, path: str, metric: str, dimension: int, rows: int) -> None:
        check_metric(metric)
        self.metric, self.rows, self._left = metric, rows, rows
        self._row_bytes, header = 4 * dimension, _header(metric, dimension, rows)
        self._start = len(header)
        self._stream = open(path, "wb")  # noqa: PTH123, SIM115  (closed by the context's end)
        self._stream.write(header)

    def __enter__(self) -> Self:
        return self

    def put(self, positions: Int64, rows: Stored) -> None:
        """Write (n, d) rows to some positions, (n,), each of them once."""
        if self.metric == "cosine":
            exact = rows.astype(np.float64)
            rows = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
        self._left -= len(rows)
        order = np.argsort(positions)
        for some in np.split(order, np.flatnonzero(np.diff(positions[order]) != 1) + 1):
            if len(some):
                self._stream.seek(self._start + self._row_bytes * int(positions[some[0]]))
                self._stream.write(np.ascontiguousarray(rows[some], "<f4").data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        if error is None and self._left:
            raise ValueError(f"{self.rows} rows were to be written, {self._left} are missing")


def check_format() -> None:
    """Compare with what the installed faiss writes.

    Raises:
        ImportError: faiss is not installed.
        ValueError: it writes flat indexes in another way.
    """
    import faiss

    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    for metric, index in (
        ("inner_product", faiss.IndexFlatIP(3)),
        ("euclidean", faiss.IndexFlatL2(3)),
    ):
        index.add(rows)
        theirs = faiss.serialize_index(index).tobytes()
        if theirs != _header(metric, 3, 2) + rows.tobytes():
            raise ValueError(
                f"faiss {faiss.__version__} writes flat indexes in a format that this version of "
                "Ember does not know; install faiss-cpu 1.15"
            )


def _header(metric: str, dimension: int, rows: int) -> bytes:
    name, number = (b"IxF2", 1) if metric == "euclidean" else (b"IxFI", 0)
    return struct.pack(
        "<4siqqq?iQ", name, dimension, rows, _DUMMY, _DUMMY, True, number, rows * dimension
    )
