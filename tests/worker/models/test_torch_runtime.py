from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.models.torch_texts import TorchTextEncoder
from odd_images import encoded, odd_images, picture
from tiny_models import MAX_TOKENS, spec_of, stir, tiny_bert, tiny_resnet

TEXTS = [
    "the cat sat on a mat",
    "a dog",
    "blue",
    "😀 🎉 ✨",
    "ひらがな 漢字",
    "the " * 200,
    "x" * 500,
    "a",
    "the big dog runs in the small house of a cat and the dog",
    "[PAD] [CLS] [SEP]",
    "ÀÉÎ õ ﬁ ½",
    "line\nbreak\ttab\u200b",
    "\u200b",
    " ".join(["tree"] * (MAX_TOKENS - 2)),
    " ".join(["tree"] * (MAX_TOKENS - 1)),
    "!?.,;",
] * 3


def vectors(raws: list[bytes], batch_size: int | None = None, **spec: Any) -> np.ndarray:
    """Ember's vectors, all rows in one go."""
    model = task.load(
        spec_of(spec.pop("path"), batch_size=batch_size, **spec),
        address=None,
        threads=1,
        paths=False,
    )
    (slot,) = encode([Slot(raws)], model, threads=2, timed=lambda *_: None)
    assert slot.errors == {}
    return slot.vectors


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    assert expected.std(axis=0).max() > 10 * tolerance  # rows differ, so a mix-up would show


def text_reference(folder: Path, layer: str) -> np.ndarray:
    """Plain transformers, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
        with torch.no_grad():
            output = model.eval()(**inputs)
        hidden = output.last_hidden_state[0]
        rows.append(
            {
                "mean": lambda hidden=hidden: hidden.mean(0),
                "cls": lambda hidden=hidden: hidden[0],
                "pooler": lambda output=output: output.pooler_output[0],
            }[layer]()
        )
    return torch.stack(rows).numpy()


def image_reference(folder: Path, images: list[bytes], layer: str) -> np.ndarray:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = []
    for data in images:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        with torch.no_grad():
            output = model.eval()(**processor(image, return_tensors="pt"))
        hidden = output.last_hidden_state
        rows.append(hidden.mean((2, 3)) if layer == "avg_pool" else output.pooler_output[..., 0, 0])
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("batch_size", [None, 1, 3, 32])
@pytest.mark.parametrize("layer", ["mean", "cls", "pooler"])
def test_texts_equal_plain_transformers(
    bert_folder: Path, layer: str, batch_size: int | None
) -> None:
    actual = vectors([text.encode() for text in TEXTS], batch_size, path=bert_folder, layer=layer)
    close(actual, text_reference(bert_folder, layer))


@pytest.mark.parametrize("layer", ["mean", "cls"])
def test_roberta_keeps_within_its_positions(roberta_folder: Path, layer: str) -> None:
    actual = vectors([text.encode() for text in TEXTS], path=roberta_folder, layer=layer)
    close(actual, text_reference(roberta_folder, layer))


def test_truncated_texts_are_counted(bert_folder: Path, fresh_process: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    expected = sum(
        len(tokenizer(text, truncation=False, verbose=False)["input_ids"]) > MAX_TOKENS
        for text in TEXTS
    )
    spec = spec_of(bert_folder)
    encoder = task.load(spec, address=None, threads=1, paths=False)
    (slot,) = encode(
        [Slot([text.encode() for text in TEXTS])], encoder, threads=2, timed=lambda *_: None
    )
    assert len(slot.truncated) == expected
    assert 0 < expected < len(TEXTS)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("batch_size", [None, 1, 3, 32])
@pytest.mark.parametrize("layer", ["avg_pool", "pooler"])
def test_images_equal_plain_transformers(
    resnet_folder: Path, layer: str, batch_size: int | None
) -> None:
    images = [data for name, data in odd_images().items() if name not in {"wide", "tall"}]
    actual = vectors(images, batch_size, path=resnet_folder, layer=layer)
    close(actual, image_reference(resnet_folder, images, layer))


def test_weights_stored_in_half_precision_are_used_in_full(tmp_path: Path) -> None:
    import torch

    folder = tiny_resnet(tmp_path, dtype="float16")
    encoder = task.load(spec_of(folder), address=None, threads=1, paths=False)
    assert {each.dtype for each in encoder.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_lower_precision_stays_close(bert_folder: Path, precision: str, tolerance: float) -> None:
    raws = [text.encode() for text in TEXTS]
    full = vectors(raws, path=bert_folder)
    low = vectors(raws, path=bert_folder, precision=precision)
    cosine = (low * full).sum(1) / np.linalg.norm(low, axis=1) / np.linalg.norm(full, axis=1)
    assert (low != full).any()
    assert cosine.min() > 1 - tolerance


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mean_over_many_tokens_is_exact_in_low_precision(precision: str) -> None:
    import torch

    from ember.worker.models.text_modules import pool

    tokens = 257  # bfloat16 rounds it to 256
    hidden = torch.full((1, tokens, 2), 400.0, dtype=getattr(torch, precision))
    mean = pool(hidden, torch.ones(1, tokens, dtype=torch.int64), ["mean"])
    assert mean.tolist() == [[400.0, 400.0]]


def test_padding_does_not_count_in_the_mean() -> None:
    import torch

    from ember.worker.models.text_modules import pool

    hidden = torch.tensor([[[1.0], [3.0], [1e9]], [[5.0], [6.0], [7.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, ["mean"]).tolist() == [[2.0], [6.0]]


def test_missing_pooler_matters_only_where_it_is_asked_for(headless_bert_folder: Path) -> None:
    raws = [text.encode() for text in TEXTS]
    close(vectors(raws, path=headless_bert_folder), text_reference(headless_bert_folder, "mean"))
    with pytest.raises(InvalidInput, match=r"lacks the weights pooler.* that layer 'pooler' needs"):
        vectors(raws, path=headless_bert_folder, layer="pooler")


def test_missing_weights_are_named(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(bert_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidInput, match=f"lacks the weights {name}"):
        vectors([b"a"], path=tmp_path)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_incomplete_text_folder_is_invalid(bert_folder: Path, tmp_path: Path, lost: str) -> None:
    spec = spec_of(bert_folder)
    shutil.copytree(bert_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / lost).unlink()
    for extra in ("tokenizer_config.json", "vocab.txt") if "tokenizer" in lost else ():
        (tmp_path / extra).unlink()
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        task._build(spec.at(str(tmp_path)), None, 1, False)


def test_image_folder_without_its_processor_is_invalid(resnet_folder: Path, tmp_path: Path) -> None:
    spec = spec_of(resnet_folder)
    shutil.copytree(resnet_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        task._build(spec.at(str(tmp_path)), None, 1, False)


def test_weights_of_another_shape_are_invalid(bert_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bert_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        vectors([b"a"], path=tmp_path)


@pytest.mark.parametrize("layer", ["cls"])
def test_layer_that_an_image_model_lacks_is_invalid(resnet_folder: Path, layer: str) -> None:
    with pytest.raises(InvalidInput, match=f"has no layer '{layer}'"):
        vectors([encoded(picture(), "PNG")], path=resnet_folder, layer=layer)


def test_long_strip_is_refused_before_it_is_scaled(resnet_folder: Path) -> None:
    encoder = task.load(spec_of(resnet_folder), address=None, threads=1, paths=False)
    outcome = encoder.prepare([encoded(picture(1, 9000), "PNG")])[0]
    assert str(outcome).startswith("too many pixels: 1x9000 is too long a strip")


def test_text_longer_than_the_average_fills_a_batch_with_fewer_rows(
    fresh_process: pytest.MonkeyPatch, bert_folder: Path
) -> None:
    encoder = task.load(spec_of(bert_folder, batch_size=4), address=None, threads=1, paths=False)
    assert encoder.batch_cost == 4 * MAX_TOKENS


def test_torch_memory_errors_are_known(bert_folder: Path) -> None:
    import torch

    encoder = task.load(spec_of(bert_folder), address=None, threads=1, paths=False)
    assert encoder.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert encoder.is_out_of_memory(MemoryError())
    for said in ("CUDA error: out of memory", "cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when"):
        assert encoder.is_out_of_memory(RuntimeError(said))
    assert not encoder.is_out_of_memory(RuntimeError("something else"))


@pytest.mark.parametrize(
    ("stated", "positions", "kind", "pad", "expected"),
    [
        (512, 512, "bert", 0, 512),
        (10**30, 512, "bert", 0, 512),
        (128, 512, "bert", 0, 128),
        (512, 514, "roberta", 1, 512),
        (10**30, 514, "xlm-roberta", 1, 512),
        (10**30, 514, "mpnet", 1, 512),
        (10**30, None, "t5", 0, 512),
        (10**30, -1, "deberta", 0, 512),
    ],
)
def test_longest_input(
    stated: int, positions: int | None, kind: str, pad: int, expected: int
) -> None:
    from ember.worker.models.torch_texts import max_tokens

    config = SimpleNamespace(max_position_embeddings=positions, model_type=kind, pad_token_id=pad)
    assert max_tokens(SimpleNamespace(model_max_length=stated), config) == expected


def test_threads_share_a_tokenizer(fresh_process: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    encoder = task.load(spec_of(tiny_bert(tmp_path)), address=None, threads=1, paths=False)
    raws = [text.encode() for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(encoder.prepare, [raws] * 40))
    first = [(ids.tolist(), was_cut) for ids, _, was_cut in outcomes[0]]
    assert {was_cut for _, was_cut in first} == {False, True}
    for outcome in outcomes:
        assert [(ids.tolist(), was_cut) for ids, _, was_cut in outcome] == first


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_a_head_are_those_of_the_library_s_own_pipeline(tmp_path, count, problem):
    """A reranker has one output, whose softmax is 1 for every text."""
    import torch
    from transformers import AutoConfig, BertForSequenceClassification, pipeline

    folder = tiny_bert(tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.num_labels, config.problem_type = count, problem
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    stir(model)
    model.save_pretrained(folder)
    texts = ["the cat sat", "a dog", "blue house"]
    encoder = TorchTextEncoder(spec_of(folder, layer=None, task="classify"), "cpu", 1)
    items = [item for item, *_ in encoder.prepare([text.encode() for text in texts])]
    library = pipeline("text-classification", model=str(folder), tokenizer=str(folder), top_k=None)
    for ours, theirs in zip(encoder.run(items), library(texts), strict=True):
        scores = {each["label"]: each["score"] for each in theirs}
        expected = [scores[f"LABEL_{number}"] for number in range(count)]
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
