"""Feeding a GPU, with a double of torch.cuda that keeps the order of what it is asked to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.models import torch_runtime
from ember.worker.models.feeding import Feed, OverlappingFeed, feed_for
from ember.worker.models.torch_images import TorchImageEncoder
from ember.worker.models.torch_runtime import TorchModel
from ember.worker.models.torch_texts import TorchTextEncoder
from odd_images import encoded, picture
from tiny_models import spec_of

CPU = torch.device("cpu")


class Cuda:
    """torch.cuda, as far as a feed uses it, with a log; all work is done at once, on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str]] = []
        self.streams: list[Any] = []
        self.current = "default"
        cuda = self

        class Stream:
            def __init__(self, _: Any) -> None:
                self.name = f"stream {len(cuda.streams)}"
                cuda.streams.append(self)

            def wait_stream(self, other: str) -> None:
                cuda.log.append((self.name, f"waits for {other}"))

            def wait_event(self, event: Any) -> None:
                cuda.log.append((self.name, f"after {event.name}"))

        class Event:
            def __init__(self, *, blocking: bool) -> None:
                assert blocking

            def record(self) -> None:
                self.name = cuda.current
                cuda.log.append((self.name, "result"))

            def synchronize(self) -> None:
                cuda.log.append((self.name, "waited for"))

        for name, double in {
            "Stream": Stream,
            "Event": Event,
            "stream": self.stream,
            "current_stream": lambda _: next(
                each for each in self.streams if each.name == self.current
            ),
            "default_stream": lambda _: "default",
        }.items():
            monkeypatch.setattr(torch.cuda, name, double)
        monkeypatch.setattr(OverlappingFeed, "_pinned", lambda _, *given: self.pinned(*given))

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def pinned(self, shape: Sequence[int], kind: Any) -> Any:
        self.log.append((self.current, "copy"))
        return torch.empty(tuple(shape), dtype=kind)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def test_a_cpu_has_one_batch_at_a_time_and_a_gpu_two(cuda: Cuda) -> None:
    assert type(feed_for(CPU)) is Feed
    assert feed_for(CPU).in_flight == 1
    assert type(feed_for(torch.device("cuda"))) is OverlappingFeed
    assert feed_for(torch.device("cuda")).in_flight == 2


@pytest.mark.parametrize("kind", [Feed, OverlappingFeed])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_arrays_arrive_as_they_are(cuda: Cuda, kind: type[Feed], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 200, (3, 4, 5)).astype(dtype) for _ in range(6)]
    odd = [each.transpose(2, 0, 1)[::-1].copy()[:, ::2] for each in arrays]  # no plain memory
    feed = kind(CPU)
    for given in (arrays, odd):
        np.testing.assert_array_equal(feed.stack(given).numpy(), np.stack(given))
        np.testing.assert_array_equal(feed.place(given[0]).numpy(), given[0])
        assert feed.stack(given).numpy().dtype == dtype
    result = torch.from_numpy(rng.normal(size=(6, 9)).astype(np.float32))
    with feed.batch():
        wait = feed.fetch(result[:, :7])  # as where vectors are cut
    np.testing.assert_array_equal(wait(), result[:, :7].numpy())


def test_batches_take_turns_on_two_streams(cuda: Cuda) -> None:
    feed = OverlappingFeed(CPU)
    waits = []
    for number in range(3):
        with feed.batch():
            waits.append(feed.fetch(feed.place(np.full((2, 2), number, np.float32))))
    assert [wait()[0, 0] for wait in waits] == [0, 1, 2]
    batch = ["waits for default", "copy", "copy", "result"]
    names = ["stream 0", "stream 1", "stream 0"]
    expected = [(name, what) for name in names for what in batch]
    assert cuda.log == [*expected, *((name, "waited for") for name in names)]
    assert cuda.current == "default"


def test_a_batch_in_order_is_copied_beside_the_one_before_and_computed_after_it(
    cuda: Cuda,
) -> None:
    feed = OverlappingFeed(CPU)
    for _ in range(2):
        with feed.batch():
            placed = feed.place(np.zeros((2, 2), np.float32))
            feed.in_order()
            feed.fetch(placed)
    assert cuda.log == [
        ("stream 0", "waits for default"),
        ("stream 0", "copy"),
        ("stream 0", "copy"),
        ("stream 0", "result"),
        ("stream 1", "waits for default"),
        ("stream 1", "copy"),
        ("stream 1", "after stream 0"),
        ("stream 1", "copy"),
        ("stream 1", "result"),
    ]


@pytest.mark.parametrize("kept", [False, True])
def test_a_model_that_keeps_tensors_takes_batches_in_order(
    bert_folder: Path, kept: bool, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(module: Any, _: Any, output: Any) -> None:
        module.last_seen = output[0]

    load = TorchTextEncoder._load

    def loaded(self: TorchTextEncoder, library: Any) -> Any:
        model = load(self, library)
        if kept:
            model.embeddings.register_forward_hook(keep)
        return model

    monkeypatch.setattr(TorchTextEncoder, "_load", loaded)
    monkeypatch.setattr(torch_runtime, "feed_for", OverlappingFeed)
    model = model_of(bert_folder, TEXTS)
    cuda.log.clear()
    (slot,) = encode([Slot(TEXTS)], model, threads=1, timed=lambda *_: None)
    assert slot.vectors is not None
    # The first batch has no other before it.
    batches = [name for name, what in cuda.log if what == "waits for default"]
    waiting = [name for name, what in cuda.log if what.startswith("after stream")]
    assert len(batches) >= 3
    assert waiting == (batches[1:] if kept else [])


TEXTS = [b"the cat", b"a dog sat on a mat", b"blue", None, b"the house of a cat", b"runs"] * 5
PICTURES = [encoded(picture(40 + number, 30), "PNG") for number in range(9)] + [None, b"?"]


def model_of(folder: Path, rows: Sequence[bytes | None]) -> TorchModel:
    if rows is TEXTS:
        return TorchTextEncoder(spec_of(folder, batch_size=3), "cpu", 1)
    return TorchImageEncoder(spec_of(folder, batch_size=3), "cpu", 1, paths=None)


@pytest.mark.parametrize("kind", ["texts", "pictures"])
def test_encoders_start_the_next_batch_first(
    bert_folder: Path, resnet_folder: Path, kind: str, cuda: Cuda
) -> None:
    folder, rows = {"texts": (bert_folder, TEXTS), "pictures": (resnet_folder, PICTURES)}[kind]
    model = model_of(folder, rows)
    (plain,) = encode([Slot(rows)], model, threads=1, timed=lambda *_: None)
    model.feed = OverlappingFeed(CPU)
    assert model.in_flight == 2
    cuda.log.clear()
    (fed,) = encode([Slot(rows)], model, threads=1, timed=lambda *_: None)
    assert fed.errors == plain.errors
    np.testing.assert_array_equal(fed.vectors, plain.vectors)
    turns = [what for _, what in cuda.log if what in ("result", "waited for")]
    batches = len(turns) // 2
    assert batches >= 3
    assert turns == ["result", *["result", "waited for"] * (batches - 1), "waited for"]


PROCESSORS = {
    "ViTImageProcessorPil": {"size": {"height": 32, "width": 32}},
    "ConvNextImageProcessorPil": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "CLIPImageProcessorPil": {
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
    },
    # Blue first, and nothing but 0 to 1.
    "MobileViTImageProcessorPil": {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
    },
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_go_to_a_gpu_as_bytes(
    resnet_folder: Path, tmp_path: Path, name: str, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And become there the numbers that the processor makes."""
    shutil.copytree(resnet_folder, tmp_path, dirs_exist_ok=True)
    getattr(transformers, name)(**PROCESSORS[name]).save_pretrained(tmp_path)
    plain = model_of(tmp_path, PICTURES)
    monkeypatch.setattr(torch_runtime, "feed_for", OverlappingFeed)
    model = model_of(tmp_path, PICTURES)
    ours, theirs = (each.prepare(PICTURES[:9]) for each in (model, plain))
    assert {(each["pixels"].dtype, each["pixels"].shape) for each, _ in ours} == {
        (np.dtype(np.uint8), (32, 32, 3))
    }
    made, expected = (
        each._inputs([item for item, _ in items])["pixel_values"]
        for each, items in ((model, ours), (plain, theirs))
    )
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    assert made.is_contiguous(memory_format=torch.channels_last)
    (fed,) = encode([Slot(PICTURES)], model, threads=1, timed=lambda *_: None)
    (known,) = encode([Slot(PICTURES)], plain, threads=1, timed=lambda *_: None)
    assert fed.errors == known.errors
    np.testing.assert_allclose(fed.vectors, known.vectors, rtol=1e-4, atol=1e-5)


def test_a_processor_that_leaves_sizes_different_is_asked_itself(
    resnet_folder: Path, tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(resnet_folder, tmp_path, dirs_exist_ok=True)
    transformers.ViTImageProcessorPil(do_resize=False).save_pretrained(tmp_path)
    monkeypatch.setattr(torch_runtime, "feed_for", OverlappingFeed)
    ((item, _), *_) = model_of(tmp_path, PICTURES).prepare(PICTURES[:1])
    assert item.keys() == {"pixel_values"}


def test_a_model_that_is_put_back_has_one_batch_at_a_time(bert_folder: Path, cuda: Cuda) -> None:
    model = TorchTextEncoder(spec_of(bert_folder), "cpu", 1)
    model.feed = OverlappingFeed(CPU)
    model.fit = replace(model.fit, fresh=True)
    assert model.in_flight == 1


def test_a_picture_that_is_too_large_beside_others_is_tried_alone(
    resnet_folder: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then is it an error of the row."""
    model = model_of(resnet_folder, PICTURES)
    monkeypatch.setattr(
        model, "_encode", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("no memory"))
    )
    odd = {"pixel_values": np.zeros((3, 64, 64), np.float32)}
    with pytest.raises(torch.OutOfMemoryError):
        model.start([odd])
    (error,) = model.run([odd])
    assert str(error) == "unusable image: the model says of 3x64x64: no memory"


def test_float32_is_not_tf32_on_a_gpu(bert_folder: Path) -> None:
    torch.backends.cudnn.allow_tf32 = True
    TorchTextEncoder(spec_of(bert_folder), "cpu", 1)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
