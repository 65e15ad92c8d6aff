"""The demo's corpora, made of what installed packages bring, and a look at what became of them.

python scripts/demo_corpus.py make FOLDER
python scripts/demo_corpus.py show FOLDER
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

SENTENCES = 600
QUERY = "sklearn.metrics.accuracy_score"
PACKAGES = ("numpy", "numpy.linalg", "sklearn.cluster", "sklearn.metrics", "pandas", "json")


def make(folder: Path) -> None:
    """Write digits.parquet and photographs.parquet (image_id, content, label), sentences.parquet
    (text_id, text), and untrained/, a small ResNet with random weights.

    What is there already is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An empty file and a text among the images: every row is accounted for.
    broken = [("broken/empty", b"", None), ("broken/text", b"not an image", None)]
    images = ("image_id", "content", "label")
    write(folder / "digits.parquet", images, lambda: [*digits(), *broken])
    write(folder / "photographs.parquet", images, lambda: list(photographs()))
    write(folder / "sentences.parquet", ("text_id", "text"), lambda: list(sentences())[:SENTENCES])
    if not (folder / "untrained" / "preprocessor_config.json").exists():
        untrained(folder / "untrained")
        print(f"{folder}/untrained: a small ResNet with random weights")


def write(file: Path, names: tuple[str, ...], rows: Callable[[], list[tuple[object, ...]]]) -> None:
    if file.exists():
        return
    made = rows()
    columns = [pa.array(column) for column in zip(*made, strict=True)]
    unfinished = file.with_suffix(".part")
    pq.write_table(pa.table(columns, names=list(names)), unfinished)
    unfinished.replace(file)
    print(f"{file}: {len(made)} rows")


def digits() -> Iterator[tuple[str, bytes, str]]:
    data = load_digits()
    for number, (pixels, label) in enumerate(zip(data.images, data.target, strict=True)):
        picture = Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((64, 64))
        yield f"digit/{number:04}", encode(picture, "PNG"), str(label)


def photographs() -> Iterator[tuple[str, bytes, str]]:
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        photograph = Image.fromarray(pixels)
        for number, left in enumerate(range(0, 400, 25)):
            part = photograph.crop((left, 50, left + 240, 290))
            yield f"photograph/{name}-{number:02}", encode(part, "JPEG"), name


def encode(picture: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form)
    return stream.getvalue()


def untrained(folder: Path) -> None:
    """A ResNet of three stages for pictures of 32 x 32 pixels: 64 features, 180,000 weights."""
    import torch
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    shape = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2], layer_type="basic"
    )
    ResNetForImageClassification(shape).save_pretrained(folder)
    ConvNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_pct=1.0, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)


def sentences() -> Iterator[tuple[str, str]]:
    """The first sentence of the documentation of each public function and class."""
    seen = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in sorted(vars(module)):
            text = inspect.getdoc(getattr(module, name)) or ""
            paragraph = " ".join(re.split(r"\n\s*\n", text)[0].split())
            sentence = paragraph.partition(". ")[0]
            if not name.startswith("_") and 20 < len(sentence) < 200 and sentence not in seen:
                seen.add(sentence)
                yield f"{package}.{name}", sentence


def show(folder: Path) -> None:
    """Print a few rows of each table and what its manifest says."""
    for name in ("images", "texts"):
        output = folder / f"{name}.embeddings"
        manifest = json.loads((output / "_manifest.json").read_text("utf-8"))
        table = pq.read_table(output)
        facts = (manifest["counts"]["status"], manifest["dimension"], manifest["rows_per_second"])
        print("{}: {}, {} dimensions, {} rows/s".format(output, *facts))
        failed = pc.equal(table["status"], "error")
        rows = [*table.slice(0, 3).to_pylist(), *table.filter(failed).slice(0, 2).to_pylist()]
        for row in rows:
            values = row["embedding"]
            vector = f"[{values[0]:+.3g} {values[1]:+.3g} …]" if values else "null"
            outcome = row["error"] or row["status"]
            print(f"  {next(iter(row.values())):<24} {vector:<22} {outcome}")
    show_similar(folder)
    print(f"\ntables: {folder}/    what a run did: {folder}/*/_manifest.json")


def show_similar(folder: Path) -> None:
    """Print the neighbors of one sentence, and the closest pairs of all."""
    texts = dict(zip(*pq.read_table(folder / "texts.parquet").to_pydict().values(), strict=True))
    neighbors = pq.read_table(folder / "texts.neighbors").to_pylist()
    found = sorted((row for row in neighbors if row["query_id"] == QUERY), key=lambda r: r["rank"])
    print(f"\nnearest to {QUERY!r}: {texts[QUERY]}")
    for row in found:
        print(f"  {row['score']:.3f}  {row['neighbor_id']:<28} {texts[row['neighbor_id']]}")
    pairs = pq.read_table(folder / "texts.pairs").sort_by([("score", "descending")]).to_pylist()
    print(f"\n{len(pairs)} pairs of sentences with a cosine of 0.9 or more, the closest:")
    for row in pairs[:3]:
        print(f"  {row['score']:.3f}  {row['left_id']} ~ {row['right_id']}")


if __name__ == "__main__":
    {"make": make, "show": show}[sys.argv[1]](Path(sys.argv[2]))
