"""Dual encoders: images and texts through their own halves, equal to plain transformers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from corpora import picture
from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import Slot, encode
from tiny_models import MAX_TOKENS, spec_of, tiny_dual

TEXTS = ["the cat sat on a mat", "a dog", "blue", "the " * 50, "a", "the big house of a cat"] * 2
IMAGES = [picture(seed, size) for seed, size in enumerate([(40, 30), (32, 32), (25, 64)] * 3)]


@pytest.fixture(scope="module", params=["CLIP", "Siglip", "ChineseCLIP"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dual(tmp_path_factory.mktemp(request.param), request.param)


def vectors(raws: list[bytes], folder: Path, **changes: Any) -> np.ndarray:
    spec = spec_of(folder, **{"layer": "pooler", **changes})
    encoder = task.load(spec, address=None, threads=1, paths=False)
    (slot,) = encode([Slot(raws)], encoder, threads=2, timed=lambda *_: None)
    assert slot.errors == {}
    return slot.vectors


def test_both_halves_equal_plain_transformers_whatever_the_batches(folder: Path) -> None:
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
    for batch_size in (None, 1, 5):
        for expected, ours in (
            (
                texts,
                vectors(
                    [t.encode() for t in TEXTS], folder, modality="text", batch_size=batch_size
                ),
            ),
            (images, vectors(IMAGES, folder, modality="image", batch_size=batch_size)),
        ):
            exact = np.stack(expected)
            assert ours.shape == exact.shape
            assert np.abs(ours - exact).max() <= 1e-4 * np.abs(exact).max()
            assert exact.std(axis=0).max() > 1e-3  # rows differ, so a mix-up would show


def test_another_layer_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"in one space; model\.layer is pooler"):
        vectors([b"a"], folder, modality="text", layer="mean")
