"""Predictions and truth as classify writes them, and what the Spark tests read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora import write

PREDICTIONS = pa.list_(
    pa.struct([("index", pa.int32()), ("label", pa.string()), ("score", pa.float32())])
)


def listed(scores: np.ndarray, names: list[str], k: int) -> list[list[dict[str, Any]]]:
    """The k best labels of each row of (n, L) scores."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [
        [{"index": int(j), "label": names[j], "score": float(row[j])} for j in order]
        for row, order in zip(scores, best, strict=True)
    ]


def write_predictions(path: Path, ids: list[Any], predictions: list[Any]) -> str:
    return write(path, id=ids, predictions=pa.array(predictions, PREDICTIONS))


def figures(path: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the figures table by metric and slice."""
    rows = pq.read_table(f"{path}/figures").to_pylist()
    return {(row["metric"], row["slice"]): row for row in rows}


def read(path: str | Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(f"{path}/{name}").to_pylist()
    return rows


def expanded(weights: np.ndarray) -> np.ndarray:
    """The rows that a replicate draws, each as often as it does."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))
