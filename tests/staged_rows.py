"""Rows as finetune stages them: tinted pictures of three classes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ember.worker.finetune.rows import SCHEMA

LABELS = ("blue", "green", "red")


def tinted(label: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120, (40, 40, 3), np.uint8)
    pixels[..., 2 - label] += 100
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def stage(folder: Path, contents: list[bytes], rows: int = 24, *, shuffled: bool = False) -> Path:
    """A run's folder with staged rows of three classes; every fourth row is held out."""
    (folder / "rows").mkdir(parents=True)
    table = [
        {
            "key": str(number),
            "draw": (number * 0.6180339887) % 1,
            "part": "validation" if number % 4 == 3 else "train",
            "target": number % 3,
            "content": contents[number],
            "error": None,
        }
        for number in range(rows)
    ]
    if shuffled:
        table.reverse()
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), folder / "rows" / "part.parquet")
    return folder


PICTURES = [tinted(number % 3, number) for number in range(24)]
