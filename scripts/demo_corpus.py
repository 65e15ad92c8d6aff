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
from typing import Any

import numpy as np
import pyarrow as pa
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
    """Print a few rows of what the pipeline made, and where its report is."""
    show_labels(folder)
    show_neighbors(folder)
    show_duplicates(folder)
    print(f"\ntables:  {folder}/*, each with what was done in _manifest.json")
    print(f"report:  {folder.absolute()}/pipeline/report.html")


def show_labels(folder: Path) -> None:
    tuned = json.loads((folder / "digits.model" / "_manifest.json").read_text("utf-8"))
    (test,) = (
        row
        for row in rows(folder / "digits.report" / "figures")
        if (row["metric"], row["slice"]) == ("accuracy", "split=test")
    )
    print("digits: on the test rows, which no training has seen, the tuned model is right on")
    print(f"{tuned['test_accuracy']:.1%}, the head on its vectors on {test['value']:.1%}, ", end="")
    print(f"with {test['low']:.1%} to {test['high']:.1%} as 95% interval ({test['n']} rows):")
    predicted = rows(folder / "digits.predictions")
    predicted.sort(key=lambda row: (row["status"], row["image_id"]), reverse=True)
    for row in [*predicted[:3], *(row for row in predicted if row["error"])]:
        best = (row["predictions"] or [{}])[0]
        answer = f"{best['label']} ({best['score']:.3f})" if best else row["error"]
        print(f"  {row['image_id']:<24} {answer}")


def show_neighbors(folder: Path) -> None:
    texts = {row["text_id"]: row["text"] for row in rows(folder / "sentences.parquet")}
    found = [row for row in rows(folder / "sentences.neighbors") if row["query_id"] == QUERY]
    print(f"\nnearest to {QUERY!r}: {texts[QUERY]}")
    for row in sorted(found, key=lambda row: row["rank"])[:3]:
        print(f"  {row['score']:.3f}  {row['neighbor_id']:<28} {texts[row['neighbor_id']]}")


def show_duplicates(folder: Path) -> None:
    groups: dict[str, list[str]] = {}
    for row in rows(folder / "photographs.groups"):
        groups.setdefault(row["group_id"], []).append(row["id"])
    print(f"\n{len(groups)} groups of near-duplicates among the photographs:")
    for members in sorted(groups.values(), key=len, reverse=True):
        print(f"  {len(members)}: {', '.join(sorted(members)[:3])}{' …' * (len(members) > 3)}")


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


if __name__ == "__main__":
    {"make": make, "show": show}[sys.argv[1]](Path(sys.argv[2]))
