"""Text encoders of all kinds: each text's vector is that of plain transformers, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converted import RUNTIMES, as_run_by
from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Encoder, Slot
from text_models import ARCHITECTURES, POSITIONS, VOCABULARY, text_model, word_tokenizer
from tiny_models import needs_openvino, spec_of

# What of the positions in the configuration a text can take, where that is not all of them.
LONGEST = dict.fromkeys(("t5", "longt5", "funnel", "xlnet"), 2048) | dict.fromkeys(
    ("roberta", "camembert", "xmod", "ibert", "longformer", "mpnet", "data2vec-text"),
    POSITIONS - 2,
)


def words(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng([count, seed])
    return " ".join(f"w{number}" for number in rng.integers(0, VOCABULARY - 4, count))


TEXTS = [words(count, seed) for seed in (0, 1) for count in (2, 5, 12, 27, 33, 36, 38, 60)]


# Of those that OpenVINO takes, the ones that differ in how they look at texts.
CONVERTED = [
    *("albert", "bart", "convbert", "deberta-v2", "distilbert", "fnet", "ibert", "modernbert"),
    *("mpnet", "nystromformer", "roberta", "t5", "xmod"),
]


def load(folder: Path, runtime: str = "torch", **changes: Any) -> Encoder:
    spec = as_run_by(runtime, spec_of(folder, modality="text", **changes), folder / "converted")
    return task._build(spec, None, 1, False)


def run(encoder: Encoder, texts: list[str]) -> Slot:
    (slot,) = encode(
        [Slot([text.encode() for text in texts])], encoder, threads=2, timed=lambda *_: None
    )
    return slot


def reference(folder: Path, longest: int, layer: str = "mean") -> np.ndarray:
    """Plain transformers: each text alone, by a model that saw no other."""
    import copy

    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    if model.config.is_encoder_decoder:
        model = model.encoder
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
        torch.manual_seed(0)
        with torch.no_grad():
            hidden = copy.deepcopy(model)(**inputs).last_hidden_state[0]
        rows.append(hidden.mean(0) if layer == "mean" else hidden[0])
    return torch.stack(rows).numpy()


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()
    assert expected.std(axis=0).max() > 1e-3  # rows differ, so a mix-up would show


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        *((kind, "torch") for kind in sorted(set(ARCHITECTURES) - {"canine"})),
        *(pytest.param(kind, "openvino", marks=needs_openvino) for kind in CONVERTED),
    ],
)
def test_vectors_are_those_of_one_text_at_a_time(tmp_path: Path, kind: str, runtime: str) -> None:
    encoder = load(text_model(tmp_path, kind), runtime)
    longest = LONGEST.get(kind, POSITIONS)
    assert encoder.max_tokens == longest
    slot = run(encoder, TEXTS)
    assert slot.errors == {}
    close(slot.vectors, reference(tmp_path, longest))


@pytest.mark.parametrize(
    ("kind", "together", "fresh"),
    [
        ("bert", "any", False),
        ("fnet", "equal", False),  # takes no mask
        ("convbert", "equal", False),  # convolves over padding
        ("nystromformer", "equal", False),  # so does this one
        ("big_bird", "equal", True),  # after a short text it attends to long ones in full
        ("reformer", "equal", True),  # hashes at random
    ],
)
def test_batches_are_what_the_model_bears(
    tmp_path: Path, kind: str, together: str, fresh: bool
) -> None:
    encoder = load(text_model(tmp_path, kind))
    assert (encoder.fit.together, encoder.fit.fresh) == (together, fresh)
    assert bool(encoder.notes) == (together != "any")
    assert sum("equal length" in note for note in encoder.notes) == (together == "equal")


def test_model_that_takes_one_length_only_says_so(tmp_path: Path) -> None:
    """Masks of padding do not fit Nyströmformer's landmarks in transformers 5."""
    folder = text_model(tmp_path, "nystromformer", segment_means_seq_len=32)
    with pytest.raises(InvalidInput, match=r"cannot embed a text: RuntimeError: shape .* invalid"):
        load(folder)


def test_canine_takes_texts_too_short_for_its_strides(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "canine")
    slot = run(load(folder), [*TEXTS, "w5", ""])
    assert list(slot.errors) == [len(TEXTS) + 1]
    assert np.abs(slot.vectors[len(TEXTS)]).max() > 0.1
    close(slot.vectors[: len(TEXTS)], reference(folder, POSITIONS))


def test_folder_with_the_encoder_alone_is_the_encoder_of_the_whole(tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    whole = text_model(tmp_path, "t5")
    T5EncoderModel.from_pretrained(whole).save_pretrained(tmp_path / "alone")
    word_tokenizer(tmp_path / "alone")
    assert (run(load(whole), TEXTS).vectors == run(load(tmp_path / "alone"), TEXTS).vectors).all()


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_missing_weights_of_an_encoder_are_named(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    file = text_model(tmp_path, kind) / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in sorted(weights) if name.startswith("encoder") and "1" in name)
    del weights[lost]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InvalidInput, match=f"lacks the weights {lost}"):
        load(tmp_path)


def test_model_that_needs_more_than_a_text_says_so(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "xmod", default_language=None)
    with pytest.raises(InvalidInput, match=r"cannot embed a text: ValueError: Input language unk"):
        load(folder)


def test_layer_that_a_text_model_lacks_is_refused_at_loading(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no layer 'pooler'"):
        load(text_model(tmp_path, "distilbert"), layer="pooler")


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        *(("gpt2", "torch"), ("bart", "torch"), ("bert", "torch")),
        pytest.param("bert", "openvino", marks=needs_openvino),
    ],
)
def test_classes_are_those_of_one_text_at_a_time(tmp_path: Path, kind: str, runtime: str) -> None:
    """GPT-2 reads the last token that is no padding, and refuses batches without one."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = text_model(tmp_path, kind)
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    model.config.pad_token_id = None if kind == "gpt2" else 1
    model.save_pretrained(folder)
    encoder = load(folder, runtime, layer=None, task="classify")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in TEXTS:
        inputs = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=encoder.max_tokens
        )
        with torch.no_grad():
            expected.append(model(**inputs).logits[0].softmax(0))
    close(run(encoder, TEXTS).vectors, torch.stack(expected).numpy())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_text_without_a_token_is_an_error_row(tmp_path: Path, runtime: str) -> None:
    folder = text_model(tmp_path, "bert")
    word_tokenizer(folder, special=False)
    encoder = load(folder, runtime)
    slot = run(encoder, ["abc", "12 %", "\u200b", "a"])
    assert slot.errors == dict.fromkeys((1, 2), "no token: the tokenizer finds none in this text")
    assert np.abs(slot.vectors[[0, 3]]).min(axis=1).all()


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = text_model(tmp_path, "bert", vocab_size=100)
    with pytest.raises(InvalidInput, match=r"knows 120 tokens and its model 100; the folder mixes"):
        load(folder)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_added_token_without_a_vector_is_an_error_row(tmp_path: Path, runtime: str) -> None:
    folder = text_model(tmp_path, "bert")
    tokenizer = word_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[MY PAD]", "additional_special_tokens": ["[NEW]"]})
    tokenizer.save_pretrained(folder)
    slot = run(load(folder, runtime), [*TEXTS, "w1 [NEW] w2"])
    assert list(slot.errors) == [len(TEXTS)]
    assert slot.errors[len(TEXTS)].startswith("unknown token: the tokenizer says 12")
    close(slot.vectors[:-1], reference(folder, POSITIONS))
