"""Image models whose processors leave pictures of several sizes."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from PIL import Image

from corpora import assert_close
from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.task import embed_batches
from odd_images import encoded, picture
from tiny_models import spec_of, tiny_resnet

PROCESSORS = {
    "shortest edge": transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, do_center_crop=False
    ),
    "no resizing": transformers.ViTImageProcessorPil(do_resize=False),
}
SIZES = [(40, 30), (30, 40), (64, 48), (40, 30), (33, 57), (64, 48), (90, 20), (40, 30)]


@pytest.fixture(params=PROCESSORS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    PROCESSORS[request.param].save_pretrained(tiny_resnet(tmp_path))
    return tmp_path


def alone(folder: Path, data: bytes) -> np.ndarray:
    """The vector of one picture by plain transformers."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    with torch.inference_mode():
        hidden = model(**processor(image, return_tensors="pt")).last_hidden_state
    vector: np.ndarray = hidden.mean(dim=(2, 3))[0].numpy()
    return vector


def rows(contents: list[bytes], **spec: object) -> list[dict[str, object]]:
    batch = pa.RecordBatch.from_pydict(
        {"id": list(range(len(contents))), "content": pa.array(contents, pa.binary())}
    )
    tables = embed_batches(
        [batch], spec_of(Path(str(spec.pop("path"))), **{"max_pixels": 10**8, **spec}), threads=2
    )
    found: list[dict[str, object]] = pa.Table.from_batches(list(tables)).to_pylist()
    return found


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_each_picture_has_the_vector_that_it_has_alone(
    folder: Path, batch_size: int | None
) -> None:
    contents = [encoded(picture(*size, seed=n), "PNG") for n, size in enumerate(SIZES)]
    for row, data in zip(rows(contents, path=folder, batch_size=batch_size), contents, strict=True):
        assert row["error"] is None
        assert_close(np.asarray(row["embedding"]), alone(folder, data))


def test_a_picture_that_the_model_cannot_take_is_an_error_row(tmp_path: Path) -> None:
    PROCESSORS["no resizing"].save_pretrained(_vit(tmp_path))
    good = encoded(picture(32, 32), "PNG")
    contents = [good, encoded(picture(33, 32), "PNG"), encoded(picture(2, 1), "PNG"), good]
    outcomes = rows(contents, path=tmp_path, modality="image")
    assert_close(*(np.asarray(outcomes[row]["embedding"]) for row in (0, 3)))
    for row in outcomes[1:3]:
        assert str(row["error"]).startswith("unusable image: the model says of 3x")


def _vit(folder: Path) -> Path:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.ViTConfig(**sizes, num_attention_heads=2, image_size=32, patch_size=8)
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def test_a_picture_that_would_be_too_large_for_the_model_is_refused_unscaled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = task.load(spec_of(folder, max_pixels=10**8), address=None, threads=1, paths=None)
    monkeypatch.setattr(encoder, "processed", lambda _: pytest.fail("it was scaled"))
    size = (2100, 2100) if encoder._keeps_size else (65_000, 12)
    outcome = encoder.prepare([encoded(Image.new("L", size), "PNG")])[0]
    assert str(outcome).startswith(f"too many pixels: {size[0]}x{size[1]} is ")


def test_costs_grow_with_the_size_so_that_batches_stay_small(folder: Path) -> None:
    encoder = task.load(spec_of(folder, max_pixels=10**8), address=None, threads=1, paths=None)
    costs = [
        encoder.prepare([encoded(picture(*size), "PNG")])[0][1] for size in ((64, 64), (300, 60))
    ]
    assert costs[0] == 1 < costs[1]


def test_a_processor_that_fails_on_every_picture_is_invalid(tmp_path: Path) -> None:
    tiny_resnet(tmp_path)
    transformers.ViTImageProcessorPil(image_mean=[0.5] * 2).save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        task.load(spec_of(tmp_path), address=None, threads=1, paths=None)


def test_a_processor_that_raises_on_one_picture_fails_that_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = task.load(spec_of(folder), address=None, threads=1, paths=None)
    monkeypatch.setattr(encoder, "processor", lambda *_, **__: 1 / 0)
    outcome = encoder.prepare([encoded(picture(), "PNG")])[0]
    assert str(outcome) == "unusable image: the model's processor says: division by zero"


def test_fine_tuning_is_refused_where_pictures_have_several_sizes(folder: Path) -> None:
    from ember.worker.finetune.torch_learner import _Images

    with pytest.raises(InvalidInput, match="leaves pictures of several sizes"):
        _Images(spec_of(folder), SimpleNamespace(augmentation=None))


def test_patches_of_any_shape_come_with_their_mask(tmp_path: Path) -> None:
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.Siglip2VisionConfig(
        **tower, num_attention_heads=2, num_patches=64, patch_size=4
    )
    model = transformers.Siglip2VisionModel(config).eval()
    model.save_pretrained(tmp_path)
    processor = transformers.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=64)
    processor.save_pretrained(tmp_path)
    images = [picture(40, 20), picture(20, 50), picture(32, 32)]
    outcomes = rows([encoded(each, "PNG") for each in images], path=tmp_path, modality="image")
    for image, row in zip(images, outcomes, strict=True):
        inputs = processor(image, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        real = inputs["pixel_attention_mask"][0].bool()
        assert row["error"] is None
        assert_close(np.asarray(row["embedding"]), hidden[real].mean(0).numpy())


def test_a_model_that_draws_at_random_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.ViTMAEConfig(
        **sizes, num_attention_heads=2, image_size=32, patch_size=8, decoder_num_hidden_layers=1
    )
    transformers.ViTMAEModel(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="another vector for the same picture"):
        task.load(spec_of(tmp_path, modality="image"), address=None, threads=1, paths=None)
