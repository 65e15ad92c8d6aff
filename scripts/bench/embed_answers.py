"""The answers of embed.py's contestants, and how two of them agree."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["agreement", "answer"]


def answer(path: Path, rows: int) -> np.ndarray:
    """By ascending ids: vectors (n, d), or labels (n,). Ends the program unless all are there."""
    table = pq.read_table(path).sort_by("id")
    if "predictions" in table.column_names:
        best = pc.list_element(table.column("predictions").combine_chunks(), 0)
        table = table.append_column("label", pc.struct_field(best, "label"))
    name = "label" if "label" in table.column_names else "embedding"
    column = table.column(name)
    if table.column("id").to_pylist() != list(range(rows)) or column.null_count:
        sys.exit(f"{path.name}: {len(table)} rows, {column.null_count} null, for {rows} rows")
    values = column.combine_chunks().to_numpy(zero_copy_only=False)
    return values if name == "label" else np.stack(values).astype(np.float64)


def agreement(own: np.ndarray, found: np.ndarray) -> float:
    """The lowest cosine of two vectors of a row, less Ember's mean vector; of labels, the share.

    Vectors of a model point much the same way; without their mean they differ by what tells the
    rows apart.
    """
    if own.ndim == 1:
        return float((own == found).mean())
    if own.shape != found.shape:
        sys.exit(f"one answer has vectors of {own.shape[1]}, another of {found.shape[1]}")
    middle = own.mean(axis=0)
    left, right = own - middle, found - middle
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        sys.exit("vectors that are not finite, or all the same; these weights compare nothing")
    return float(((left * right).sum(axis=1) / lengths).min())
