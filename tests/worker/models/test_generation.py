"""Texts that a model writes: those of plain transformers row by row, whatever the batches."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.batching import encode
from ember.worker.models import generation_steps
from ember.worker.models.generation import Description, Request, TextSlot
from ember.worker.models.generation_steps import TokenSampler, gumbel, row_seed
from ember.worker.spec import Generation, ModelSpec, Sampling
from ember.worker.stats import TaskStats
from tiny_models import spec_of, tiny_blip, tiny_captioner, tiny_git, tiny_gpt2

POSITIONS = 48
NEW = 14
PROMPTS = [
    *("a dog", "the cat sat on", "x y z", "hello", "A photo of", "Z!?.,", "12345", "a", "dog" * 30),
    *(f"a big blue house {number} " + "w" * number for number in range(0, 40, 3)),
]
SAMPLING = Sampling(temperature=0.7, top_k=20, top_p=0.9, seed=3)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    makers: dict[str, Callable[[Path], Path]]
    makers = {"captioner": tiny_captioner, "blip": tiny_blip, "git": tiny_git}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


def writer(folder: Path, *, modality: str = "text", batch_size: int | None = None, **how: Any):
    generation = Generation(**{"max_new_tokens": NEW, **how})
    return spec_of(
        folder,
        modality=modality,
        task="generate",
        layer=None,
        batch_size=batch_size,
        generation=generation,
    )


def written(
    spec: ModelSpec, requests: list[Request], stats: TaskStats | None = None
) -> tuple[list[str | None], dict[int, str]]:
    model = task.load(spec, address=None, threads=1, paths=False)
    slot = TextSlot(requests, None, stats or TaskStats())
    list(encode([slot], model, threads=2, timed=lambda *_: None))
    return slot.texts, slot.errors


def texts(
    spec: ModelSpec, requests: list[Request], stats: TaskStats | None = None
) -> list[str | None]:
    found, errors = written(spec, requests, stats)
    assert errors == {}
    return found


def requests(prompts: list[str] = PROMPTS) -> list[Request]:
    return [Request(prompt.encode(), key=number) for number, prompt in enumerate(prompts)]


def plain(folder: Path, **how: Any) -> list[str]:
    """Plain transformers, one prompt at a time, greedy."""
    return [text for text, _ in plain_tokens(folder, **how)]


def plain_tokens(folder: Path, **how: Any) -> list[tuple[str, int]]:
    """The texts, each with its number of tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        room = POSITIONS - how.get("max_new_tokens", NEW)
        inputs = {name: each[:, -room:] for name, each in inputs.items()}
        output = model.generate(
            **inputs,
            **{"max_new_tokens": NEW, **how},
            do_sample=False,
            pad_token_id=model.config.eos_token_id,
        )
        new = output[0, inputs["input_ids"].shape[1] :]
        found.append((tokenizer.decode(new, skip_special_tokens=True), len(new)))
    return found


@pytest.fixture(scope="session")
def greedy_tokens(gpt2: Path) -> list[tuple[str, int]]:
    return plain_tokens(gpt2)


@pytest.fixture(scope="session")
def greedy(greedy_tokens: list[tuple[str, int]]) -> list[str]:
    found = [text for text, _ in greedy_tokens]
    assert len(set(found)) > 15  # rows differ, so a mix-up would show
    assert len({len(text) for text in found}) > 3
    return found


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_texts_equal_plain_transformers_whatever_the_batches(
    gpt2: Path,
    greedy: list[str],
    greedy_tokens: list[tuple[str, int]],
    batch_size: int | None,
) -> None:
    spec = writer(gpt2, batch_size=batch_size)
    stats = TaskStats()
    assert texts(spec, requests(), stats) == greedy
    assert texts(spec, requests()[::-1]) == greedy[::-1]
    model = task.load(spec, address=None, threads=1, paths=False)
    prepared = model.prepare(requests())
    too_long = sum(len(prompt) > POSITIONS - NEW for prompt in PROMPTS)
    assert 0 < too_long < len(PROMPTS)
    assert sum(was_cut for _, _, was_cut in prepared) == too_long
    lengths = [tokens for _, tokens in greedy_tokens]
    assert min(lengths) < NEW  # some of them end with the end token
    assert stats.counts["generated_tokens"] == sum(lengths)


def test_lengths_and_stop_strings(gpt2: Path, greedy: list[str]) -> None:
    assert texts(writer(gpt2, max_new_tokens=4), requests()) == plain(gpt2, max_new_tokens=4)
    longer = {"max_new_tokens": 16, "min_new_tokens": 12}
    stats = TaskStats()
    assert texts(writer(gpt2, **longer), requests(), stats) == plain(gpt2, **longer)
    assert stats.counts["generated_tokens"] >= 12 * len(PROMPTS)

    stop = (greedy[2][3:5], greedy[2][-1])
    stats = TaskStats()
    stopped = texts(writer(gpt2, stop=stop, batch_size=7), requests(), stats)
    cut = [min((text.find(each) for each in stop if each in text), default=-1) for text in greedy]
    assert stopped == [
        text if place < 0 else text[:place] for text, place in zip(greedy, cut, strict=True)
    ]
    assert 0 < sum(place >= 0 for place in cut) < len(cut)
    assert stats.counts["generated_tokens"] < sum(map(len, greedy))


def test_a_folder_s_penalties_do_not_see_the_padding(tmp_path: Path) -> None:
    folder = tiny_gpt2(tmp_path, repetition_penalty=1.7, no_repeat_ngram_size=2, do_sample=True)
    expected = plain(folder)
    assert texts(writer(folder), requests()) == expected
    assert expected != plain(folder, repetition_penalty=1.0, no_repeat_ngram_size=0)


def test_a_sampled_text_depends_on_prompt_key_and_seed_alone(gpt2: Path) -> None:
    rows = requests()
    alone = texts(writer(gpt2, sampling=SAMPLING, batch_size=1), rows)
    for batch_size in (None, 4):
        spec = writer(gpt2, sampling=SAMPLING, batch_size=batch_size)
        order = np.random.default_rng(0).permutation(len(rows))
        assert texts(spec, [rows[row] for row in order]) == [alone[row] for row in order]
        assert texts(spec, rows[3:9]) == alone[3:9]
    others = texts(writer(gpt2, sampling=replace(SAMPLING, seed=4)), rows)
    same_prompt = texts(
        writer(gpt2, sampling=SAMPLING), [replace(rows[0], key=n) for n in range(9)]
    )
    assert sum(one == other for one, other in zip(others, alone, strict=True)) < 4
    assert len(set(same_prompt)) > 6
    assert same_prompt[0] == alone[0]


@pytest.mark.parametrize(
    "how",
    [
        Sampling(1.0, None, None, 0),
        Sampling(0.6, 5, None, 0),
        Sampling(1.3, None, 0.7, 0),
        Sampling(1.0, 7, 0.6, 0),
    ],
)
def test_tokens_come_as_often_as_transformers_own_filters_say(how: Sampling) -> None:
    import torch
    from scipy.stats import chisquare
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    scores = torch.randn(1, 12)
    wanted = TemperatureLogitsWarper(how.temperature)(None, scores)
    if how.top_k:
        wanted = TopKLogitsWarper(how.top_k)(None, wanted)
    if how.top_p:
        wanted = TopPLogitsWarper(how.top_p)(None, wanted)
    shares = wanted.softmax(dim=1)[0].double().numpy()

    rows, steps = 4000, 5
    sampler = TokenSampler(torch, how, [row_seed(0, key) for key in range(rows)], careful=False)
    counts = np.zeros(12, int)
    for _ in range(steps):
        chosen = sampler(torch.zeros(rows, 1, dtype=torch.int64), scores.expand(rows, 12))
        counts += np.bincount(chosen.argmax(dim=1).numpy(), minlength=12)
    assert (counts[shares == 0] == 0).all()
    possible = shares > 0
    expected = shares[possible] / shares[possible].sum() * rows * steps
    assert possible.sum() > 2
    assert chisquare(counts[possible], expected).pvalue > 1e-3


def test_noise_of_rows_steps_and_tokens_is_independent() -> None:
    import torch

    keys = torch.tensor([row_seed(5, key) for key in (0, 1, -1, 2**62)])
    tokens = torch.arange(20_000).expand(4, -1)
    noise = torch.stack([gumbel(torch, keys, step, tokens) for step in (0, 1)])
    flat = noise.reshape(8, -1).numpy()
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.03
    assert np.abs(np.corrcoef(flat[:, 1:], flat[:, :-1])[:8, 8:]).max() < 0.03
    # The mean of a Gumbel variable is Euler's constant, its variance pi^2 / 6.
    assert flat.mean(axis=1) == pytest.approx(np.full(8, 0.5772), abs=0.05)
    assert flat.var(axis=1) == pytest.approx(np.full(8, np.pi**2 / 6), abs=0.1)
    part = gumbel(torch, keys[2:3], 1, tokens[:1, 70:90])  # whatever else is asked for
    assert torch.equal(part[0], noise[1, 2, 70:90])


def choose(scores: np.ndarray, how: Sampling | None, key: int) -> tuple[int, bool]:
    import torch

    sampler = TokenSampler(torch, how, [row_seed(0, key)] * len(scores), careful=True)
    given = torch.from_numpy(scores)
    chosen = sampler(torch.zeros(len(scores), 1, dtype=torch.int64), given).argmax(dim=1)
    return chosen.tolist(), [marks[0] for marks in sampler.in_doubt()]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    spacing=st.sampled_from([1e-6, 1e-5, 1e-4, 0.1]),
    top_k=st.sampled_from([None, 1, 3, 10]),
    top_p=st.sampled_from([None, 0.3, 0.8]),
    sampled=st.booleans(),
)
def test_what_rounding_could_turn_is_in_doubt(
    seed: int, spacing: float, top_k: int | None, top_p: float | None, sampled: bool
) -> None:
    """Scores that differ by a fifth of the slack give the same token, or are in doubt."""
    rng = np.random.default_rng(seed)
    scores = 5 + np.round(rng.normal(size=(1, 30)) * 3) * spacing
    scores[0, 0] = 10 if spacing == 0.1 else scores.max()  # at times a clear winner
    moved = scores + rng.uniform(-1, 1, (40, 30)) * 0.2 * generation_steps.SLACK * scores.max()
    how = Sampling(1.0, top_k, top_p, 0) if sampled else None
    chosen, doubts = choose(np.concatenate([scores, moved]).astype(np.float32), how, seed)
    for token, doubt in zip(chosen[1:], doubts[1:], strict=True):
        assert token == chosen[0] or (doubt and doubts[0])


def test_rows_in_doubt_are_run_alone(
    gpt2: Path, greedy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = TaskStats()
    assert texts(writer(gpt2), requests(), stats) == greedy
    assert stats.counts["rows_run_alone"] < 3
    monkeypatch.setattr(generation_steps, "SLACK", 0.05)
    assert texts(writer(gpt2), requests(), stats) == greedy
    assert stats.counts["rows_run_alone"] > 8
    # Half of the numbers of a float; so coarse, each row would be in doubt.
    low = replace(writer(gpt2), precision="bfloat16")
    alone = stats.counts["rows_run_alone"]
    assert len(texts(low, requests(), stats)) == len(PROMPTS)
    assert stats.counts["rows_run_alone"] == alone


def test_clear_choices_are_not_in_doubt() -> None:
    scores = np.random.default_rng(0).normal(size=(500, 200)).astype(np.float32) * 3
    for how in (None, Sampling(1.0, 50, 0.9, 0), Sampling(0.8, None, None, 0)):
        _, doubts = choose(scores, how, 1)
        assert sum(doubts) < 5


def blocks(number: int) -> bytes:
    """A picture of a few large blocks of color."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((40, 30)).save(stream, "PNG")
    return stream.getvalue()


SAID = 8
IMAGES = [blocks(number) for number in range(6)]


def plain_captions(folder: Path, prompts: list[str | None]) -> list[str]:
    """Plain transformers, one image at a time, as its documentation does it."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    images, tokenizer = (
        each.from_pretrained(folder) for each in (AutoImageProcessor, AutoTokenizer)
    )
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    kind = model.config.model_type
    found = []
    for data, prompt in zip(IMAGES, prompts, strict=True):
        inputs = dict(images(Image.open(io.BytesIO(data)), return_tensors="pt"))
        start = 1
        if prompt and kind == "blip":
            inputs |= tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            start = inputs["input_ids"].shape[1] - 1  # it drops the end token
        elif prompt:
            said = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
            import torch

            first = 1 if kind != "git" else tokenizer.cls_token_id
            said = torch.cat([torch.tensor([[first]]), said], dim=1)
            start = said.shape[1]
            inputs["input_ids" if kind == "git" else "decoder_input_ids"] = said
        output = model.generate(**inputs, max_new_tokens=SAID, do_sample=False)
        found.append(tokenizer.decode(output[0, start:], skip_special_tokens=True))
    return found


@pytest.mark.parametrize("name", ["captioner", "blip", "git"])
def test_captions_equal_plain_transformers(captioners: dict[str, Path], name: str) -> None:
    folder = captioners[name]
    bare = plain_captions(folder, [None] * len(IMAGES))
    prompts = ["a", "a dog", None, "a", "a big dog", "cat"]
    prompted = plain_captions(folder, prompts)
    assert len(set(bare)) > 3
    assert sum(one != other for one, other in zip(bare, prompted, strict=True)) > 3
    rows = [Request(data) for data in IMAGES]
    spoken = [
        Request(data, prompt.encode() if prompt else None)
        for data, prompt in zip(IMAGES, prompts, strict=True)
    ]
    for batch_size in (1, 4):
        spec = writer(folder, modality="image", batch_size=batch_size, max_new_tokens=SAID)
        assert texts(spec, rows) == bare
        assert texts(spec, spoken) == prompted


def test_bad_rows_are_told_and_leave_the_others_alone(
    gpt2: Path, greedy: list[str], captioners: dict[str, Path]
) -> None:
    bad = [
        Request(None),
        Request(b""),
        Request(b" \n"),
        Request(b"\xff"),
        Request(None, problem="missing value: {x}"),
    ]
    found, errors = written(writer(gpt2), [*bad, *requests()])
    assert found == [None] * 5 + greedy
    assert errors == {
        0: "null content",
        1: "empty content",
        2: "empty content",
        3: "invalid text: not UTF-8 at byte 0",
        4: "missing value: {x}",
    }
    good = IMAGES[0]
    rows = [
        *(
            Request(None),
            Request(b"no image"),
            Request(good[:99]),
            Request(good, b" "),
            Request(good, b"w" * 40),
        ),
        *(Request(good, problem="missing value: {x}"), Request(good)),
    ]
    found, errors = written(writer(captioners["captioner"], modality="image"), rows)
    assert [text is None for text in found] == [True] * 6 + [False]
    reasons = [errors[row].split(":")[0] for row in range(6)]
    assert reasons == [
        *("null content", "not an image", "truncated image", "empty content", "prompt too long"),
        "missing value",
    ]


def test_scores_that_are_no_numbers_are_an_error_of_the_row(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_gpt2(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"][len("<>") + 23] = float("nan")  # the letter x
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for how in ({}, {"sampling": SAMPLING}):
        found, errors = written(writer(folder, **how), requests(["a dog", "axe", "hello"]))
        assert errors == {1: "not finite: the model returned NaN or infinity"}
        assert None not in (found[0], found[2])


def test_batches_are_halved_when_memory_runs_out(
    gpt2: Path, greedy: list[str], fresh_process: pytest.MonkeyPatch
) -> None:
    spec = writer(gpt2, batch_size=16)
    model = task.load(spec, address=None, threads=1, paths=False)
    generate = model.model.generate

    def limited(input_ids: Any, **given: Any) -> Any:
        if len(input_ids) > 3:
            raise MemoryError
        return generate(input_ids=input_ids, **given)

    fresh_process.setattr(model.model, "generate", limited)
    assert texts(spec, requests()) == greedy
    assert model.batch_size <= 3


def test_a_stream_of_batches_keeps_ids_and_order(gpt2: Path, greedy: list[str]) -> None:
    rows = len(PROMPTS)
    nothing = pa.nulls(rows, pa.string())
    whole = pa.RecordBatch.from_arrays(
        [
            pa.array([f"id-{number}" for number in range(rows)]),
            pa.array([*PROMPTS[:-1], None]),
            *(nothing, nothing, pa.array(range(rows), pa.int64())),
        ],
        names=["id", "content", "prompt", "problem", "key"],
    )
    stats = TaskStats()
    parts = [whole.slice(0, 1), whole.slice(1, 0), whole.slice(1, 9), whole.slice(10)]
    out = pa.Table.from_batches(
        task.run_batches(
            parts,
            writer(gpt2),
            Description(),
            stats=stats,
        )
    )
    assert out.schema.names == ["id", "description", "status", "error"]
    assert out["id"].to_pylist() == whole["id"].to_pylist()
    assert out["description"].to_pylist() == [*greedy[:-1], None]
    assert out["error"].to_pylist() == [None] * (rows - 1) + ["null content"]
    report = stats.report(0, None)["tasks"][0]
    assert report["rows"] == rows
    assert report["counts"]["generated_tokens"] > rows


def test_models_that_do_not_fit_are_invalid(
    gpt2: Path, bert_folder: Path, captioners: dict[str, Path], tmp_path: Path
) -> None:
    load = partial(task.load, address=None, threads=1, paths=False)
    with pytest.raises(InvalidInput, match="takes 48 tokens in all, prompt included"):
        load(writer(gpt2, max_new_tokens=48))
    with pytest.raises(InvalidInput, match="takes 48 tokens in all"):
        load(writer(captioners["captioner"], modality="image", max_new_tokens=48))
    with pytest.raises(InvalidInput, match="lacks the weights cls"):
        load(writer(bert_folder))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load(writer(gpt2, modality="image"))
    for folder, kind in ((gpt2, "text"), (captioners["captioner"], "image")):
        for file in folder.iterdir():
            if "tokenizer" not in file.name:
                (tmp_path / file.name).write_bytes(file.read_bytes())
        with pytest.raises(InvalidInput, match=r"holds no tokenizer|backend tokenizer"):
            load(writer(tmp_path, modality=kind))


def test_how_texts_are_written_is_part_of_the_fingerprint(gpt2: Path) -> None:
    spec = writer(gpt2)
    assert spec.fingerprint != writer(gpt2, max_new_tokens=19).fingerprint
    assert spec.fingerprint != writer(gpt2, sampling=SAMPLING).fingerprint
    assert spec.fingerprint == replace(spec, batch_size=3).fingerprint
    told = spec.describe()
    assert json.loads(json.dumps(told))["generation"]["max_new_tokens"] == NEW
    assert "relative_tolerance" not in told
    # An embedding's is what it was before there were texts.
    assert "generation" not in spec_of(gpt2, modality="text").describe()
