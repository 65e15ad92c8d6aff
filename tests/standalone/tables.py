"""The jobs that faults strike, what they have to make, and a reader who looks all the while."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora import manifest, picture, write

FILES = 4
PICTURES, VECTORS, DIMENSION, THRESHOLD = 120, 800, 16, 0.75


@dataclass(frozen=True)
class Table:
    """A job, its settings but for the paths, and the keys of the rows that it has to make.

    read: what its configuration calls the input; row: the column of ids there, and one of them.
    """

    job: str
    read: str
    rows: int
    row: tuple[str, str]
    settings: dict[str, Any]
    key: tuple[str, ...]
    expected: frozenset[tuple[str, ...]]

    def keys(self, out: Path) -> list[tuple[str, ...]]:
        table = pq.read_table(out, columns=list(self.key))
        return list(zip(*(table[name].to_pylist() for name in self.key), strict=True))


def embedded(folder: Path, model: str) -> Table:
    """Pictures in `folder`, in 40 tasks."""
    ids = [f"picture-{number:04}" for number in range(PICTURES)]
    contents = [picture(number) for number in range(PICTURES)]
    _divided(folder, image_id=ids, content=contents)
    settings = {"input__id": "image_id", "input__modality": "image", "model__name": model}
    settings |= {"model__runtime": "openvino", "limits__rows_per_task": 3}
    expected = frozenset((each,) for each in ids)
    row = ("image_id", ids[77])
    return Table("embed", "input", PICTURES, row, settings, ("image_id",), expected)


def joined(folder: Path) -> Table:
    """Vectors in `folder`, whose pairs are found in 40 tasks."""
    vectors = np.random.default_rng(0).normal(size=(VECTORS, DIMENSION)).astype(np.float32)
    ids = [f"vector-{number:04}" for number in range(VECTORS)]
    _divided(folder, id=ids, embedding=list(vectors))
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    hits = np.nonzero(np.triu(unit @ unit.T >= np.float32(THRESHOLD), 1))
    expected = frozenset((ids[a], ids[b]) for a, b in zip(*hits, strict=True))
    settings = {"left__id": "id", "threshold": THRESHOLD, "limits__rows_per_block": 20}
    key = ("left_id", "right_id")
    return Table("join", "left", VECTORS, ("id", ids[77]), settings, key, expected)


def _divided(folder: Path, **columns: Any) -> None:
    rows = len(next(iter(columns.values()))) // FILES
    for number in range(FILES):
        part = {key: each[number * rows : (number + 1) * rows] for key, each in columns.items()}
        if "embedding" in part:
            part["embedding"] = pa.array(part["embedding"], pa.list_(pa.float32()))
        write(folder / f"{number}.parquet", **part)


class Reader(Thread):
    """Reads a table by its manifest again and again. seen: (run, rows) and how often."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._out = out
        self._over = Event()
        self.seen: Counter[tuple[str, int]] = Counter()

    def run(self) -> None:
        while not self._over.wait(0.05):
            self._look()
        self._look()

    def _look(self) -> None:
        run = self._run()
        try:
            found = manifest(self._out)
            files = [each for each in found["files"] if each.endswith(".parquet")]
            rows = sum(pq.read_metadata(self._out / each).num_rows for each in files)
            self.seen[found["run_id"], rows] += 1
        except OSError:
            if self._run() == run:  # else it was replaced while it was read
                self.seen[run, -1] += 1

    def _run(self) -> str:
        try:
            return str(manifest(self._out)["run_id"])
        except OSError:
            return "none"

    def stop(self) -> None:
        self._over.set()
        self.join()
