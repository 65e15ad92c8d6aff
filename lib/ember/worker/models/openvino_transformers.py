"""Models of transformers to OpenVINO: traced with torch once, and held against torch on rows.

What a worker needs beside the model is found here, where torch and transformers are at hand: how a
picture becomes pixels, how texts are tokenized, padded and put together.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ember.errors import InvalidInput
from ember.worker.models.openvino_check import Unsuited, agree, agree_roughly
from ember.worker.models.openvino_encoders import openvino_encoder
from ember.worker.models.openvino_runtime import save, start_openvino
from ember.worker.models.openvino_texts import TOKENIZER
from ember.worker.models.pixel_numbers import SHAPES, find_numbers
from ember.worker.models.pixel_plan import plan_of
from ember.worker.models.torch_images import TorchImageEncoder
from ember.worker.models.torch_texts import TorchTextEncoder
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["convert"]

# Of the longest text that is tried, which takes a large model seconds.
_MOST_LETTERS = 6000


def convert(
    spec: ModelSpec, folder: str, rows: Sequence[Any] = (), paths: PathRules | None = None
) -> None:
    """Write the model of a torch spec into `folder`, as `openvino_runtime` reads it.

    rows: some of the corpus, on which the vectors have to be those of torch, beside made-up ones.
    paths: where the files may be that rows of images name.

    Raises Unsuited where they are not, or the model cannot be converted, and InvalidInput as
    loading the model in torch does.
    """
    if (config := Path(spec.path, "config.json")).is_file():  # which names the classes
        shutil.copyfile(config, Path(folder, config.name))
    exact = replace(spec, precision="float32")
    made = replace(exact, path=folder, runtime="openvino")
    threads = len(os.sched_getaffinity(0))
    try:
        if spec.modality == "image":
            torch: Any = TorchImageEncoder(exact, "cpu", threads, paths=paths)
            _convert_images(torch, folder)
            raws = [*_pictures(), *rows]
        else:
            torch = TorchTextEncoder(exact, "cpu", threads)
            _convert_texts(torch, folder)
            raws = [*_texts(torch), *rows]
        agree(torch, openvino_encoder(made, "cpu", threads, paths=paths), raws)
        if spec.precision == "bfloat16":
            low = replace(made, precision="bfloat16")
            ours = openvino_encoder(low, "cpu", threads, paths=paths)
            agree_roughly(torch, ours, rows or raws)
    except RuntimeError as error:  # as torch, OpenVINO and libraries in Rust say what they cannot
        raise Unsuited(f"it cannot be converted: {' '.join(str(error).split())[-200:]}") from error


def _convert_images(encoder: TorchImageEncoder, folder: str) -> None:
    import torch

    plan = plan_of(encoder.processor)
    if plan is None or not encoder.takes_pixels_alone:
        raise Unsuited("its processor makes more of a picture than pixels of one size")
    made = find_numbers(lambda image: _processed(encoder, image), plan)
    if made is None:
        raise Unsuited("its processor makes other numbers of pixels than scale and shift")
    scale, shift = torch.tensor(made.scale), torch.tensor(made.shift)

    def forward(pixels: Any) -> Any:
        return encoder.features({"pixel_values": made.of(pixels, scale, shift)})

    height, width = plan.size or (0, 0)
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    settings = {"notes": [], "pixels": plan.to_json()}
    _trace(encoder.model, forward, {"pixels": example}, folder, settings)


def _processed(encoder: TorchImageEncoder, image: Image.Image) -> npt.NDArray[Any]:
    try:
        pixels: npt.NDArray[Any] = encoder.processed(image)["pixel_values"]
    except RowError as error:
        raise Unsuited(str(error)) from None
    return pixels


def _convert_texts(encoder: TorchTextEncoder, folder: str) -> None:
    tokenizer, fit = encoder.tokenizer, encoder.fit
    if not getattr(tokenizer, "is_fast", False):
        raise Unsuited("its tokenizer is none of the tokenizers library")
    if fit.fresh:
        raise Unsuited("batches change it")
    tokenizer.backend_tokenizer.save(f"{folder}/{TOKENIZER}")
    settings = {
        "notes": encoder.notes,
        "side": tokenizer.truncation_side,
        "keys": encoder.call.keys,
        "padding": dict(encoder.call.padding),
        "room": encoder.room,
        "vocabulary": encoder.rows.vocabulary,
        "fit": asdict(fit),
    }
    names = (*encoder.call.keys, "attention_mask")

    def forward(*arrays: Any) -> Any:
        inputs = dict(zip(names, arrays, strict=True))
        mask = inputs["attention_mask"]
        if not encoder.call.masked:
            del inputs["attention_mask"]
        return encoder.features(inputs, mask)

    items = encoder.examples()
    inputs, mask = encoder.call.inputs(items, fit.width([each.shape[1] for each in items]))
    _trace(encoder.model, forward, {**inputs, "attention_mask": mask}, folder, settings)


def _trace(
    model: Any,
    forward: Callable[..., Any],
    example: dict[str, Any],
    folder: str,
    settings: dict[str, Any],
) -> None:
    """Convert `forward`, which calls `model`. Raises Unsuited with what torch or OpenVINO says."""
    openvino = start_openvino()
    import torch

    class Graph(torch.nn.Module):  # type: ignore[misc]  # torch has no types for it
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return forward(*inputs)

    values = tuple(example.values())
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Of what a trace takes for a constant, and of the call itself, which OpenVINO needs.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(Graph().eval(), values, check_trace=False, strict=False)
            made = openvino.convert_model(traced, example_input=values)
    except (MemoryError, InvalidInput, RuntimeError):
        raise
    except Exception as error:  # tracing calls the code of any architecture
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if len(made.inputs) != len(example):
        raise Unsuited("it cannot be converted: an input has no effect")
    for port, name in zip(made.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    save(made, folder, settings)


def _pictures() -> list[bytes]:
    """Smooth pictures of several shapes."""
    rng = np.random.default_rng(1)
    made = []
    for width, height in SHAPES:
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        stream = BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(stream, "PNG")
        made.append(stream.getvalue())
    return made


def _texts(encoder: TorchTextEncoder) -> list[bytes]:
    """Short and long ones, other scripts, spaces, words that mean something to the tokenizer."""
    special = " ".join(map(str, encoder.tokenizer.all_special_tokens))
    words = "The quick brown fox jumps over a lazy dog, 12 cats and 7 mice."
    long = " ".join([words] * (encoder.max_tokens // 8 + 2))[:_MOST_LETTERS]
    short = [words[:end] for end in range(1, 40, 3)]
    odd = [
        "a",
        "Cats sleep.",
        "naïve café, ＡＢＣ ﬁ 数据 😀 \u200b\u0301",
        "  two\n\tlines  ",
        special,
    ]
    return [each.encode() for each in (*odd, *short, words, " ".join([words] * 4), long)]
