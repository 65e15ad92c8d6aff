"""The classify job on real data with real weights."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
from PIL import Image

from corpora import rows


def test_resnet_18_labels_each_imagenet_picture_as_transformers_does(run_job, real_data, tmp_path):
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = str(real_data / "models" / "resnet-18-imagenet")
    source = real_data / "imagenet-200.parquet"
    code, message = run_job(
        "classify",
        "--config=conf/classify.yaml",
        input__path=source,
        input__where="label % 10 = 0",
        model__name=f"hf:{folder}",
        labels=real_data / "imagenet_class_index.json",
        output__path=tmp_path / "out",
    )
    assert (code, message) == (0, "")
    ours = rows(tmp_path / "out", "image_id")

    model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    table = [row for row in pq.read_table(source).to_pylist() if row["label"] % 10 == 0]
    right = 0
    for start in range(0, len(table), 20):
        part = table[start : start + 20]
        images = [Image.open(io.BytesIO(row["content"])).convert("RGB") for row in part]
        with torch.inference_mode():
            scores = model(**processor(images, return_tensors="pt")).logits.softmax(-1)
        for row, plain in zip(part, scores, strict=True):
            best = ours[row["image_id"]]["predictions"][0]
            assert best["index"] == int(plain.argmax())
            assert abs(best["score"] - float(plain.max())) < 1e-4
            assert (best["index"] == row["label"]) == (best["label"] == row["label_name"])
            right += best["index"] == row["label"]
    assert len(ours) == len(table) == 100
    assert right / len(table) > 0.7
