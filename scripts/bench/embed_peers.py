"""One run of one contestant of embed.py: the usual ways to embed or classify a Parquet table.

    python embed_peers.py image-hf daft --input FILE --output PATH --id ID --content COLUMN \\
        --folder FOLDER

The table below has a small function for each; what is special about it stands in its docstring.
All read the same file and the same weights, prepare a row alike, compute in float32, and write
Parquet: the id, and `embedding` (array<float>) or `label`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import peer_engines
import peer_images
import peer_spark
import peer_texts
from peer_task import Task

_IMAGES: dict[str, Callable[[Task], None]] = {
    "library": peer_images.library_loop,
    "openvino": peer_images.openvino_loop,
    "predict_batch_udf": peer_spark.predict_batch_udf_images,
    "daft": peer_engines.daft_images,
    "ray": peer_engines.ray_images,
}
_TEXTS: dict[str, Callable[[Task], None]] = {
    "library": peer_texts.torch_loop,
    "openvino": peer_texts.openvino_loop,
    "sentence-transformers": peer_texts.sentence_transformers,
    "sentence-openvino": peer_texts.sentence_openvino,
    "predict_batch_udf": peer_spark.predict_batch_udf_texts,
    "daft": peer_engines.daft_texts,
    "ray": peer_engines.ray_texts,
}
PEERS = {
    "image-hf": _IMAGES,
    "image-keras": {name: _IMAGES[name] for name in ("library", "openvino", "predict_batch_udf")},
    "text-minilm": _TEXTS,
    "text-bert": _TEXTS,
    "classify-resnet18": {**_IMAGES, "two-udfs": peer_spark.two_udfs},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=PEERS)
    parser.add_argument("peer", choices=sorted({peer for each in PEERS.values() for peer in each}))
    for field in fields(Task)[2:]:
        parser.add_argument(f"--{field.name}", required=True)
    task = Task(**vars(parser.parse_args()))
    # For the workers of Spark, Daft and Ray, which unpickle functions of these modules.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    PEERS[task.case][task.peer](task)


if __name__ == "__main__":
    main()
