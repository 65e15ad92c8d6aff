"""Dual encoders: images and texts through their own halves, equal to plain transformers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converted import RUNTIMES, as_run_by
from corpora import picture
from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.spec import ModelSpec
from tiny_models import MAX_TOKENS, spec_of, tiny_dual

TEXTS = ["the cat sat on a mat", "a dog", "blue", "the " * 50, "a", "the big house of a cat"] * 2
IMAGES = [picture(seed, size) for seed, size in enumerate([(40, 30), (32, 32), (25, 64)] * 3)]


@pytest.fixture(scope="module", params=["CLIP", "Siglip", "ChineseCLIP"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dual(tmp_path_factory.mktemp(request.param), request.param)


def vectors(raws: list[bytes], folder: Path, **changes: Any) -> np.ndarray:
    return encoded(raws, spec_of(folder, **{"layer": "pooler", **changes}))


def encoded(raws: list[bytes], spec: ModelSpec) -> np.ndarray:
    encoder = task.load(spec, address=None, threads=1, paths=False)
    (slot,) = encode([Slot(raws)], encoder, threads=2, timed=lambda *_: None)
    assert slot.errors == {}
    return slot.vectors


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_both_halves_equal_plain_transformers_whatever_the_batches(
    folder: Path, runtime: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    whole = "Siglip" in type(model).__name__  # as its documentation has it
    texts, images = [], []
    with torch.no_grad():
        for text in TEXTS:
            inputs = tokenizer(
                text,
                return_tensors="pt",
                truncation=True,
                max_length=MAX_TOKENS,
                padding="max_length" if whole else False,
            )
            given = {"input_ids": inputs["input_ids"]} if whole else inputs
            texts.append(model.get_text_features(**given).pooler_output[0].numpy())
        for data in IMAGES:
            pixels = processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")
            images.append(model.get_image_features(**pixels).pooler_output[0].numpy())
    for modality, raws, expected in (
        ("text", [text.encode() for text in TEXTS], texts),
        ("image", IMAGES, images),
    ):
        spec = spec_of(folder, layer="pooler", modality=modality)
        spec = as_run_by(runtime, spec, tmp_path / modality)
        for batch_size in (None, 1, 5):
            ours = encoded(raws, replace(spec, batch_size=batch_size))
            exact = np.stack(expected)
            assert ours.shape == exact.shape
            assert np.abs(ours - exact).max() <= 1e-4 * np.abs(exact).max()
            assert exact.std(axis=0).max() > 1e-3  # rows differ, so a mix-up would show


def test_another_layer_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"in one space; model\.layer is pooler"):
        vectors([b"a"], folder, modality="text", layer="mean")
