"""Models of transformers in OpenVINO: the vectors of plain transformers, or left to torch."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converted import converted
from corpora import picture
from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.models import prepare
from ember.worker.models.chunks import Chunking
from ember.worker.models.fast_tokenizer import FastTokenizer
from ember.worker.models.openvino_check import Unsuited, agree_roughly
from ember.worker.models.openvino_images import OpenvinoImageEncoder
from ember.worker.models.openvino_texts import OpenvinoTextEncoder
from ember.worker.models.openvino_transformers import convert
from ember.worker.models.text_tokens import TextTokens
from ember.worker.rows import RowError
from image_models import VIT
from odd_images import odd_images
from text_models import text_model
from tiny_models import MAX_TOKENS, needs_openvino, spec_of, stir, tiny_bert, tiny_resnet

pytestmark = needs_openvino
TEXTS = ["a cat sat on the mat", "dogs", "the " * 60, "a", "ÀÉ ﬁ ½ 数 😀", "[SEP] house [PAD]"]


def rgb(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def filled(raws: list[bytes | None], encoder: Any) -> Slot:
    (slot,) = encode([Slot(raws)], encoder, threads=2, timed=lambda *_: None)
    return slot


def image_folder(folder: Path, kind: str) -> Path:
    import torch
    import transformers

    if kind == "ResNet":
        return tiny_resnet(folder)
    torch.manual_seed(3)
    stages = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32}
    settings = stages if kind == "ConvNext" else VIT
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    stir(model)
    model.save_pretrained(folder)
    # As its own has it: blue first, and pictures that are too small have black around them.
    transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("ResNet", "avg_pool"), ("ViT", "cls"), ("ConvNext", "pooler")],
)
def test_images_equal_plain_transformers(tmp_path: Path, kind: str, layer: str) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    folder = image_folder(tmp_path / "model", kind)
    raws = [picture(seed, size) for seed, size in enumerate([(40, 30), (32, 32), (25, 64)] * 3)]
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    expected = []
    for raw in raws:
        with torch.no_grad():
            output = model(**processor(rgb(raw), return_tensors="pt"))
        hidden = output.last_hidden_state
        taken = {"avg_pool": hidden.mean((-1, -2)), "cls": hidden[:, 0]}
        expected.append((taken | {"pooler": output.pooler_output})[layer][0].flatten().numpy())
    spec = converted(spec_of(folder, modality="image", layer=layer), tmp_path / "converted", raws)
    exact = np.stack(expected)
    assert exact.std(axis=0).max() > 1e-3
    for threads in (1, 2, 3):
        slot = filled(raws, OpenvinoImageEncoder(spec, "cpu", threads, paths=None))
        assert np.abs(slot.vectors - exact).max() <= 1e-5 * np.abs(exact).max()


def test_odd_images_fail_as_in_torch(tmp_path: Path) -> None:
    folder = tiny_resnet(tmp_path / "model")
    spec = spec_of(folder)
    raws = [*odd_images().values(), b"", None, b"no picture", picture(1, (2000, 3))]
    ours = OpenvinoImageEncoder(converted(spec, tmp_path / "converted"), "cpu", 1, paths=None)
    slots = [filled(raws, each) for each in (task._build(spec, None, 1, None), ours)]
    assert slots[0].errors == slots[1].errors
    assert len(slots[0].errors) > 3
    np.testing.assert_allclose(slots[0].vectors, slots[1].vectors, atol=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_probabilities_are_those_of_the_library_s_pipeline(tmp_path: Path, several: bool) -> None:
    from transformers import pipeline

    folder = tiny_bert(tmp_path, labels=("ant", "bee", "cow"))
    config = json.loads((folder / "config.json").read_text())
    kind = "multi_label_classification" if several else "single_label_classification"
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": kind}))
    spec = converted(spec_of(folder, layer=None, task="classify"), tmp_path / "converted")
    assert Path(spec.path, "config.json").read_bytes() == (folder / "config.json").read_bytes()
    scores = filled([text.encode() for text in TEXTS], OpenvinoTextEncoder(spec, "cpu", 1)).vectors
    ask = pipeline("text-classification", str(folder), device="cpu", top_k=None)
    for text, ours in zip(TEXTS, scores, strict=True):
        found = {each["label"]: each["score"] for each in ask([text], truncation=True)[0]}
        np.testing.assert_allclose(ours, [found[name] for name in ("ant", "bee", "cow")], atol=1e-5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A torch folder, and what it was converted into."""
    folder = tiny_bert(tmp_path_factory.mktemp("bert"))
    return folder, Path(converted(spec_of(folder), folder / "converted").path)


def test_threads_share_out_a_batch_in_the_order_of_its_rows(bert: tuple[Path, Path]) -> None:
    spec = replace(spec_of(bert[0]), path=str(bert[1]), runtime="openvino")
    one = OpenvinoTextEncoder(spec, "cpu", 1)
    items = [
        item for item, *_ in one.prepare([f"{n} cats {'and ' * n}".encode() for n in range(7)])
    ]
    three = OpenvinoTextEncoder(spec, "cpu", 3)
    for rows in range(1, 8):
        np.testing.assert_allclose(three.run(items[:rows]), one.run(items[:rows]), atol=1e-5)


def test_chunks_are_those_of_torch(bert: tuple[Path, Path]) -> None:
    spec = spec_of(bert[0])
    texts = ["the cat sat " * 30, "a", "x" * 200]
    found = [
        task._build(each, None, 1, None).splitter(Chunking(10, 3))
        for each in (spec, replace(spec, path=str(bert[1]), runtime="openvino"))
    ]
    for text in texts:
        assert found[0].spans(text) == found[1].spans(text)


@given(st.lists(st.text(max_size=80).filter(str.strip), min_size=1, max_size=5))
def test_tokens_are_those_of_transformers(bert: tuple[Path, Path], texts: list[str]) -> None:
    from transformers import AutoTokenizer

    keys = ("input_ids", "token_type_ids")
    theirs = AutoTokenizer.from_pretrained(bert[0])
    ours = TextTokens(FastTokenizer(str(bert[1] / "tokenizer.json"), "right"), MAX_TOKENS, keys)
    for text, made in zip(texts, ours(texts), strict=True):
        expected = theirs(text, truncation=True, max_length=MAX_TOKENS)
        assert made.tolist() == [expected[key] for key in keys]


def test_workers_import_neither_torch_nor_transformers(bert: tuple[Path, Path]) -> None:
    """In a process of its own, as a worker is."""
    import subprocess
    import sys

    spec = replace(spec_of(bert[0]), path=str(bert[1]), runtime="openvino")
    program = f"""
import sys
from pathlib import Path
from types import SimpleNamespace
from ember.worker import task
from ember.worker.recipe import *
from ember.worker.spec import ModelSpec
encoder = task.load({spec!r}, address=None, threads=1, paths=None)
(item, *_), = encoder.prepare([b"a cat"])
assert len(encoder.run([item])) == 1
print(sorted({{"torch", "transformers", "tensorflow"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("xlm", "it cannot be converted: "),
        ("canine", "a row's vector is not that of torch: cosine "),
        ("reformer", "batches change it"),
    ],
)
def test_text_models_that_do_not_convert_are_left_to_torch(
    tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(Unsuited, match=reason):
        converted(spec_of(text_model(tmp_path, kind), modality="text"), tmp_path / "converted")


def test_processors_that_do_more_than_scale_and_shift_are_left_to_torch(tmp_path: Path) -> None:
    from transformers import LevitImageProcessorPil, ViTImageProcessorPil

    folder = image_folder(tmp_path / "model", "ViT")
    spec = spec_of(folder, modality="image")
    ViTImageProcessorPil(do_resize=False).save_pretrained(folder)
    with pytest.raises(Unsuited, match="its processor makes more of a picture than pixels of one"):
        converted(spec, tmp_path / "shapes")
    size = {"height": 32, "width": 32}
    LevitImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    with pytest.raises(Unsuited, match="makes other numbers of pixels than scale and shift"):
        converted(spec, tmp_path / "scales")


def test_rows_of_the_corpus_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that its tokenizer cuts in another way in transformers is found among the rows."""
    folder = tiny_bert(_made(tmp_path / "model"))
    plain = TextTokens._tokenize

    def strange(self: TextTokens, texts: list[str]) -> Any:
        made = plain(self, texts)
        if isinstance(self._tokenizer, FastTokenizer):
            return made
        pairs = zip(texts, made, strict=True)
        return [
            (tokens[:, ::-1] if "cow" in text else tokens, cut) for text, (tokens, cut) in pairs
        ]

    monkeypatch.setattr(TextTokens, "_tokenize", strange)
    convert(spec_of(folder), str(_made(tmp_path / "one")), [b"a dog", None, b""])
    with pytest.raises(Unsuited, match="makes other tokens of a text than transformers"):
        convert(spec_of(folder), str(_made(tmp_path / "two")), [b"a cow"])


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_reason_is_kept_in_place_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle
    from types import SimpleNamespace

    spec = spec_of(text_model(tmp_path / "model", "reformer"), modality="text")
    request = SimpleNamespace(buffer=io.BytesIO(pickle.dumps((spec, [], None))))
    monkeypatch.setattr("sys.stdin", request)
    assert prepare.main("transformers", str(tmp_path / "made")) == 0
    assert [each.name for each in (tmp_path / "made").iterdir()] == [prepare.UNSUITED]
    assert (tmp_path / "made" / prepare.UNSUITED).read_text() == "batches change it"


def test_a_gpu_is_not_silently_left_unused(bert: tuple[Path, Path]) -> None:
    spec = replace(spec_of(bert[0]), path=str(bert[1]), runtime="openvino")
    with pytest.raises(InvalidInput, match="use torch or auto"):
        OpenvinoTextEncoder(spec, "cuda", 1)


class Fixed:
    """An encoder whose rows are their own vectors, a little off."""

    def __init__(self, off: float, task: str) -> None:
        self.spec = SimpleNamespace(modality="image", task=task)
        self.off = off

    def prepare(self, raws: list[Any]) -> list[Any]:
        return [RowError("null content") if raw is None else (raw, 1) for raw in raws]

    def run(self, items: list[Any]) -> np.ndarray:
        return np.array(items, np.float32) + np.array([self.off, 0], np.float32)


@pytest.mark.parametrize(
    ("task", "off", "reason"),
    [
        ("embed", 0.01, None),
        ("embed", 0.2, "a row's vector at bfloat16 is not that of float32: cosine 0.98"),
        ("embed", np.nan, "cosine nan"),
        ("classify", 0.09, None),
        ("classify", 0.2, r"a row's probability at bfloat16 is 0\.20 off"),
    ],
)
def test_bfloat16_is_held_to_less(task: str, off: float, reason: str | None) -> None:
    rows = [[0.5, 0.5], None, [0.0, 1.0]]
    if reason is None:
        agree_roughly(Fixed(0, task), Fixed(off, task), rows)
        return
    with pytest.raises(Unsuited, match=reason):
        agree_roughly(Fixed(0, task), Fixed(off, task), rows)
    agree_roughly(Fixed(0, task), Fixed(off, task), [None])
