"""Small corpora and readers that several tests use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in about 100 kB."""
    stream = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, row_group_size: int | None = None, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def write_pictures(path: Path, count: int) -> str:
    ids = [f"picture-{number:04}" for number in range(count)]
    return write(path, image_id=ids, content=[picture(number) for number in range(count)])


def rows(path: str | Path, key: str) -> dict[Any, dict[str, Any]]:
    table = pq.read_table(path).to_pylist()
    by_key = {row[key]: row for row in table}
    if len(by_key) != len(table):
        raise AssertionError(f"{path} has repeated ids")
    return by_key


def vectors(path: str | Path, key: str) -> dict[Any, np.ndarray]:
    return {
        each: np.asarray(row["embedding"], np.float32)
        for each, row in rows(path, key).items()
        if row["embedding"] is not None
    }


def manifest(path: str | Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((Path(path) / "_manifest.json").read_text("utf-8"))
    return loaded


def leftovers(folder: Path) -> list[str]:
    """Whatever stands in `folder`, hidden entries included."""
    return sorted(each.name for each in folder.iterdir())


def assert_close(ours: np.ndarray, reference: np.ndarray, relative: float = 1e-4) -> None:
    difference = np.abs(ours - reference).max()
    assert difference <= relative * np.abs(reference).max(), difference
