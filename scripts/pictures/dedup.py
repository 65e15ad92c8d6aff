"""Make scripts/pictures/dedup.png: the page of a deduplication of edited photographs.

    .venv/bin/python scripts/pictures/dedup.py

Parts of the two photographs that come with scikit-learn, some of them edited. Needs chromium.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageOps
from shoot import shoot
from sklearn.datasets import load_sample_images

from ember.jobs import dedup

TARGET = Path(__file__).parent / "dedup.png"
SIZE = (1000, 1180)


def encoded(picture: Image.Image, form: str = "JPEG", quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, quality=quality)
    return file.getvalue()


def edits(picture: Image.Image) -> dict[str, bytes]:
    """What may happen to a picture on its way through the world."""
    width, height = picture.size
    marked = picture.copy()
    ImageDraw.Draw(marked).text((width - 90, height - 22), "(c) someone", fill="white")
    return {
        "again": encoded(picture),
        "half": encoded(picture.resize((width // 2, height // 2))),
        "poor": encoded(picture, quality=20),
        "png": encoded(picture, "PNG"),
        "gray": encoded(ImageOps.grayscale(picture)),
        "marked": encoded(marked),
        "cropped": encoded(picture.crop((4, 3, width - 4, height - 3))),
    }


def photographs() -> dict[str, bytes]:
    """Parts of both photographs, the first ones with most edits."""
    found = {}
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        whole = Image.fromarray(pixels)
        for part in range(6):
            left, top = 55 * (part % 3) * 2, 100 * (part // 3)
            picture = whole.crop((left, top, left + 320, top + 240))
            key = f"{name}-{part + 1}"
            found[key] = encoded(picture)
            for edit in list(edits(picture).items())[: 7 - 2 * (part % 4)]:
                found[f"{key}-{edit[0]}"] = edit[1]
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = photographs()
        table = pa.table({"image_id": list(pictures), "content": list(pictures.values())})
        pq.write_table(table, f"{folder}/photographs.parquet")
        settings = [f"input.path={folder}/photographs.parquet", "input.id=image_id"]
        settings += ["input.modality=image", f"output.path={folder}/out"]
        if code := dedup.main([f"--set={each}" for each in settings]):
            raise SystemExit(code)
        shoot(Path(folder, "out", "report.html"), TARGET, *SIZE)


if __name__ == "__main__":
    main()
