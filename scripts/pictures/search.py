"""Make scripts/pictures/search.png: the page of a search among the handwritten digits.

    .venv/bin/python scripts/pictures/search.py

The digits come with scikit-learn; their pixels serve as vectors. Needs chromium.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from shoot import shoot
from sklearn.datasets import load_digits

from ember.jobs import search

TARGET = Path(__file__).parent / "search.png"
SIZE = (1000, 1010)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray((255 - pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    digits = load_digits()
    ids = [f"digit-{number:04}" for number in range(len(digits.data))]
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = f"{folder}/digits.parquet", f"{folder}/out"
        table = {
            "id": ids,
            "content": [png(pixels) for pixels in digits.images],
            "label": [str(label) for label in digits.target],
            "embedding": pa.array(list(digits.data.astype(np.float32)), pa.list_(pa.float32())),
        }
        pq.write_table(pa.table(table), corpus)
        settings = [f"queries={{path: {corpus}, id: id}}", "exclude_self=true", "k=8"]
        settings += [f"output.path={out}"]
        settings += [
            f"report={{queries: {{path: {corpus}, id: id, modality: image, label: label}}}}"
        ]
        if code := search.main([f"--set={each}" for each in settings]):
            raise SystemExit(code)
        shoot(Path(out, "_report.html"), TARGET, *SIZE)


if __name__ == "__main__":
    main()
