"""Make the models that embed.py compares on, one folder a case, without a network.

    python embed_models.py image-hf --input images.parquet --content content --output FOLDER

Each folder holds what all load: `model/` (a transformers or sentence-transformers folder) or
`model.weights.h5`; `openvino.xml`, the same weights converted, with pooling and, for images, the
scaling of the colors inside; for sentence-transformers `sentence-openvino/`, its documented export;
and `about.json`: floating-point operations of a row of the input (2 for a multiplication with its
addition), and seconds that the conversions took.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from peer_images import image_network
from peer_task import picture
from peer_texts import pooled_network

_SIZE = 224
_CALIBRATION = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=sorted(MAKERS))
    for name in ("--input", "--content", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--source", default="", help="a folder of the model, where it has weights")
    options = parser.parse_args()
    folder = Path(options.output)
    folder.mkdir(parents=True)
    contents = pq.read_table(options.input, columns=[options.content]).column(0).to_pylist()
    about = MAKERS[options.case](folder, contents, options.source)
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def image_hf(folder: Path, contents: list[bytes], source: str) -> dict[str, Any]:
    """ResNet-50 with seeded random weights, and the processor of microsoft/resnet-50.

    Its batch norms take their means and variances from pictures of the corpus, and the last of
    each block counts little, as when training begins. With those of a new model (0 and 1) the maps
    fade from block to block; with full blocks one level in some pixels, as two decoders of JPEG
    differ, grows to another vector: a cosine of 0.9, less the mean, in place of 0.9999.
    """
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig())
    processor = resnet_processor()
    processor.save_pretrained(folder / "model")
    pictures = [picture(data) for data in contents[:_CALIBRATION]]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over the batches seen
        if type(module).__name__ == "ResNetBottleNeckLayer":
            torch.nn.init.constant_(module.layer[-1].normalization.weight, 0.1)
    with torch.no_grad():
        model.train()(processor(pictures, return_tensors="pt")["pixel_values"])
    model.eval().save_pretrained(folder / "model")
    return converted_images(folder)


def classify_resnet18(folder: Path, contents: list[bytes], source: str) -> dict[str, Any]:
    """The folder that is given, with its own weights and classes."""
    shutil.copytree(source, folder / "model", copy_function=shutil.copyfile)
    config = json.loads((folder / "model" / "config.json").read_text("utf-8"))
    labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    return {**converted_images(folder, classify=True), "labels": labels}


def resnet_processor() -> Any:
    import transformers

    kind = getattr(transformers, "ConvNextImageProcessorPil", None)
    kind = kind or transformers.ConvNextImageProcessor
    return kind(
        size={"shortest_edge": _SIZE},
        crop_pct=0.875,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def converted_images(folder: Path, *, classify: bool = False) -> dict[str, Any]:
    import torch

    network = image_network(str(folder / "model"), classify=classify, scales=True)
    example = torch.zeros((1, 3, _SIZE, _SIZE), dtype=torch.uint8)
    seconds = save_openvino(folder, network, example, [-1, 3, _SIZE, _SIZE])
    return {"flops_per_row": flops(network, example), "conversion_seconds": seconds}


def image_keras(folder: Path, contents: list[bytes], source: str) -> dict[str, Any]:
    """keras:ResNet50 with seeded random weights; OpenVINO by the documented export."""
    import keras
    import openvino as ov

    keras.utils.set_random_seed(0)
    shape = (_SIZE, _SIZE, 3)
    model = keras.applications.ResNet50(
        include_top=False, pooling="avg", weights=None, input_shape=shape
    )
    model.save_weights(folder / "model.weights.h5")
    start = time.perf_counter()
    model.export(folder / "saved", verbose=False)
    converted = ov.convert_model(folder / "saved", input=[-1, _SIZE, _SIZE, 3])
    ov.save_model(converted, folder / "openvino.xml", compress_to_fp16=False)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder / "saved")
    operations = sum(map(keras_flops, model.layers))
    return {"flops_per_row": operations, "conversion_seconds": seconds, "keras": "ResNet50"}


def keras_flops(layer: Any) -> int:
    """Of a convolution: 2 for each weight of its kernel at each place of its output."""
    if type(layer).__name__ != "Conv2D":
        return 0
    _, height, width, _ = layer.output.shape
    return 2 * int(np.prod(layer.kernel.shape)) * height * width


def text_minilm(folder: Path, contents: list[str], source: str) -> dict[str, Any]:
    """all-MiniLM-L6-v2, a sentence-transformers folder: mean over the tokens, length 1."""
    shutil.copytree(source, folder / "model", copy_function=shutil.copyfile)
    return converted_texts(folder, contents)


def text_bert(folder: Path, contents: list[str], source: str) -> dict[str, Any]:
    """BERT-base with seeded random weights and the tokenizer of `source`: mean over the tokens."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    model = folder / "model"
    BertModel(BertConfig()).save_pretrained(model)
    AutoTokenizer.from_pretrained(source, model_max_length=512).save_pretrained(model)
    names = ("Transformer", "Pooling")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(names, ("", "1_Pooling"), strict=True))
    ]
    (model / "modules.json").write_text(json.dumps(modules), "utf-8")
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 512}', "utf-8")
    (model / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
    return converted_texts(folder, contents)


def converted_texts(folder: Path, contents: list[str]) -> dict[str, Any]:
    import torch

    network, tokenizer, longest = pooled_network(str(folder / "model"), traced=True)
    example = dict(tokenizer(["a text of some words"] * 2, return_tensors="pt"))
    arguments = tuple(example[name] for name in ("input_ids", "attention_mask"))
    seconds = save_openvino(folder, network, arguments, [[-1, -1], [-1, -1]])

    def operations(length: int) -> int:
        tokens = torch.ones((1, length), dtype=torch.int64)
        return flops(network, (tokens, tokens))

    # a × length + b × length², exactly, since each token attends to each.
    b = (operations(32) - 2 * operations(16)) / (32**2 - 2 * 16**2)
    a = operations(16) / 16 - 16 * b
    encoded = tokenizer(contents, truncation=True, max_length=longest)["input_ids"]
    lengths = np.array([len(ids) for ids in encoded])
    about = {
        "flops_per_row": float((a * lengths + b * lengths**2).mean()),
        "tokens_per_row": float(lengths.mean()),
        "conversion_seconds": seconds,
    }
    if find_spec("optimum") and find_spec("optimum.intel"):
        about["sentence_export_seconds"] = export_sentences(folder)
    return about


def export_sentences(folder: Path) -> float:
    """The export that sentence-transformers documents: load with the backend, then save."""
    from sentence_transformers import SentenceTransformer

    start = time.perf_counter()
    model = SentenceTransformer(str(folder / "model"), backend="openvino", device="cpu")
    model.save_pretrained(str(folder / "sentence-openvino"))
    return time.perf_counter() - start


def save_openvino(folder: Path, network: Any, example: Any, shape: Any) -> float:
    import openvino as ov
    import torch

    start = time.perf_counter()
    with torch.no_grad():
        converted = ov.convert_model(network, example_input=example, input=shape)
    ov.save_model(converted, folder / "openvino.xml", compress_to_fp16=False)
    return time.perf_counter() - start


def flops(network: Any, arguments: Any) -> int:
    """What torch counts in one call: matrix products, convolutions and attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*(arguments if isinstance(arguments, tuple) else (arguments,)))
    return counter.get_total_flops()


Maker = Callable[[Path, list[Any], str], dict[str, Any]]
MAKERS: dict[str, Maker] = {
    "image-hf": image_hf,
    "image-keras": image_keras,
    "text-minilm": text_minilm,
    "text-bert": text_bert,
    "classify-resnet18": classify_resnet18,
}

if __name__ == "__main__":
    sys.exit(main())
