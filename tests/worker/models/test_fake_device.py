"""Models of every family on a GPU that is not there: all that a batch needs lies on it.

Under torch's FakeTensorMode tensors have shapes, types and devices, and no values; an operation
across devices is refused. A model is loaded as workers load it. What it is tried for needs values,
and is taken from the same model on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from PIL import Image
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ember.worker.models import torch_runtime
from ember.worker.models.feeding import Feed
from ember.worker.models.torch_images import TorchImageEncoder
from ember.worker.models.torch_runtime import TorchModel
from ember.worker.models.torch_texts import TorchTextEncoder
from ember.worker.spec import ModelSpec
from image_models import WITH_CLASS_TOKEN, WITHOUT_CLASS_TOKEN
from odd_images import encoded, picture
from sentence_folders import resolved, sentence_folder
from text_models import text_model
from tiny_models import spec_of, stir, tiny_bert, tiny_dual

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w1", "w2 w2"]


class Watching(TorchDispatchMode):
    """Notes each operation with the devices of its tensors, and what waits for a device."""

    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[Any] = []
        self.elsewhere: list[str] = []
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # Those without dimensions are numbers to torch, which go along with a launch.
        given, results = (
            [each for each in tree_leaves(some) if isinstance(each, torch.Tensor) and each.ndim]
            for some in ((args, kwargs), made)
        )
        if name in self.waits:
            self.waiting.append(name)
        if (
            name in ("to", "_to_copy")
            and given
            and given[0].device.type == "cpu"
            and results[0].is_cuda
        ):
            self.copied.append(results[0])
        elif name not in ("lift_fresh", "detach", "detach_", "device") and {
            each.device.type for each in [*given, *results]
        } - {"cuda"}:
            self.elsewhere.append(f"{name} of {[str(each.device) for each in [*given, *results]]}")
        return made


class FakeFeed(Feed):
    """Results stay where they are."""

    def fetch(self, result: Any) -> Callable[[], Any]:
        return lambda: result


def with_values(load: Callable[..., Any]) -> Callable[..., Any]:
    """A function that loads, outside of the mode: models look at some values when they are made."""

    def outside(*args: Any, **settings: Any) -> Any:
        with unset_fake_temporarily():
            return load(*args, **settings)

    return outside


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    kind_of = TorchModel._kind

    def kind(self: TorchModel, library: Any) -> Any:
        return SimpleNamespace(from_pretrained=with_values(kind_of(self, library).from_pretrained))

    monkeypatch.setattr(TorchModel, "_kind", kind)

    def swap(before: Any, after: Any) -> None:
        """Of a weight that was made in the mode, which torch does not swap."""
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        before.fake_device = after.device

    monkeypatch.setattr(torch.utils, "swap_tensors", swap)
    monkeypatch.setattr(safetensors.torch, "load_file", with_values(safetensors.torch.load_file))
    monkeypatch.setattr(torch_runtime, "require_cuda", lambda *_: None)
    monkeypatch.setattr(torch_runtime, "feed_for", FakeFeed)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU that is not there")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@contextmanager
def numbers_of(mode: FakeTensorMode) -> Iterator[None]:
    """`torch.tensor` for models with which the mode would compute on a GPU that is there."""
    of_numbers = torch.tensor

    def tensor(data: Any, *, device: Any = "cpu", **settings: Any) -> Any:
        with unset_fake_temporarily():
            made = of_numbers(data, **settings)
        return mode.from_tensor(made).to(device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", tensor)
        yield


def check(
    model: TorchModel,
    items: Sequence[Any],
    shape: tuple[int, ...],
    *,
    copies: bool = False,
    elsewhere: bool = False,
    numbers: bool = False,
) -> None:
    """All weights on the GPU, and of a batch all but the copies of its arrays there.

    copies: the model itself copies more. elsewhere: and works on the CPU.
    """
    kept = [*model.model.parameters(), *model.model.buffers()]
    assert {each.device.type for each in kept} == {"cuda"}
    kinds = {each.dtype for each in model.model.parameters()}
    assert kinds == {getattr(torch, model.spec.precision)}
    with Watching() as watching:
        result = model.start(items)()
    assert watching.waiting == []
    assert elsewhere or watching.elsewhere == []
    arrays = len(items[0]) if isinstance(items[0], dict) else len(items[0]) + 1  # with the mask
    assert copies or len(watching.copied) == arrays
    assert (result.device.type, result.dtype, result.shape) == ("cuda", torch.float32, shape)


def images_on_gpu(monkeypatch: pytest.MonkeyPatch, spec: ModelSpec) -> None:
    plain = TorchImageEncoder(spec, "cpu", 1, paths=None)
    items = [plain.processed(Image.new("RGB", (40, 30), (9, 99, number))) for number in range(3)]
    expected = np.asarray(plain.run(items)).shape
    for name in ("_check_class_token", "_refuse_chance"):
        monkeypatch.setattr(TorchImageEncoder, name, lambda *_: None)
    with fake_gpu(monkeypatch):
        monkeypatch.setattr(FakeFeed, "in_flight", 2)
        model = TorchImageEncoder(spec, "cuda", 1, paths=None)
        rows = [encoded(picture(40, 30 + number), "PNG") for number in range(3)]
        check(model, [item for item, *_ in model.prepare(rows)], expected)
        weights = [each for each in model.model.parameters() if each.ndim == 4]
        pixels = model._inputs([item for item, *_ in model.prepare(rows)])["pixel_values"]
        assert pixels.dtype == getattr(torch, spec.precision)
        for each in [*weights, *([pixels] if pixels.ndim == 4 else [])]:
            assert each.is_contiguous(memory_format=torch.channels_last)


def texts_on_gpu(
    monkeypatch: pytest.MonkeyPatch, spec: ModelSpec, texts: Sequence[str] = TEXTS, **known: bool
) -> None:
    plain = TorchTextEncoder(spec, "cpu", 1)
    items = [item for item, *_ in plain.prepare([text.encode() for text in texts])]
    items = [items[row] for row in next(iter(plain.fit.groups([each.shape[1] for each in items])))]
    expected = plain.run(items).shape

    def as_on_the_cpu(self: TorchTextEncoder, full: bool) -> Any:
        self._restore = lambda: None
        self.call.padding = plain.call.padding
        return plain.fit, plain.rows.vocabulary

    monkeypatch.setattr(TorchTextEncoder, "_try", as_on_the_cpu)
    monkeypatch.setattr(TorchTextEncoder, "_check_dimension", lambda *_: None)
    with fake_gpu(monkeypatch) as mode:
        model = TorchTextEncoder(spec, "cuda", 1)
        with numbers_of(mode) if known.get("numbers") else nullcontext():
            check(model, items, expected, **known)


# Kinds whose code in transformers differs.
IMAGES = ["ViT", "Dinov2WithRegisters", "Beit", "Yolos", "Swin", "Swinv2", "FocalNet"]
IMAGES += ["Hiera", "ConvNext", "PvtV2", "Aimv2Vision"]
TEXTS_OF = ["albert", "bart", "bert", "convbert", "deberta", "distilbert", "electra", "fnet"]
TEXTS_OF += ["funnel", "modernbert", "mpnet", "nystromformer", "roberta", "roformer", "t5", "xlnet"]


@pytest.mark.parametrize("kind", IMAGES)
def test_image_models(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = getattr(transformers, f"{kind}Config")(
        **{**WITH_CLASS_TOKEN, **WITHOUT_CLASS_TOKEN}[kind]
    )
    model = getattr(transformers, f"{kind}Model")(config).eval()
    stir(model)
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    images_on_gpu(monkeypatch, spec_of(tmp_path, modality="image"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("task", ["embed", "classify"])
def test_convolutions_in_every_precision(
    resnet_folder: Path, precision: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"embed": "avg_pool", "classify": None}[task]
    spec = spec_of(resnet_folder, precision=precision, task=task, layer=layer)
    images_on_gpu(monkeypatch, spec)


@pytest.mark.parametrize("kind", TEXTS_OF)
def test_text_models(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts_on_gpu(monkeypatch, spec_of(text_model(tmp_path, kind)))


@pytest.mark.parametrize("kind", ["deberta-v2", "gpt2"])
def test_models_that_make_numbers_of_their_own(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts_on_gpu(monkeypatch, spec_of(text_model(tmp_path, kind)), numbers=True, copies=True)


@pytest.mark.parametrize("kind", ["big_bird", "longt5"])
def test_models_that_do_a_part_on_the_cpu(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In transformers, whatever the device: random blocks by numpy, positions of blocks."""
    texts_on_gpu(
        monkeypatch, spec_of(text_model(tmp_path, kind)), numbers=True, copies=True, elsewhere=True
    )


@pytest.mark.parametrize("kind", ["flaubert", "led", "longformer", "reformer", "xlm", "xmod"])
def test_models_that_wait_for_the_device(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ask it for a number, for which they wait: on a GPU for their own batch alone."""
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        texts_on_gpu(monkeypatch, spec_of(text_model(tmp_path, kind)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("layer", ["mean", "cls", "pooler"])
def test_layers_of_texts_in_low_precision(
    bert_folder: Path, precision: str, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(bert_folder, precision=precision, layer=layer)
    texts_on_gpu(monkeypatch, spec, ["the cat", "a dog sat on a mat"])


def test_classes_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_bert(tmp_path, labels=("a", "b", "c"))
    texts_on_gpu(monkeypatch, spec_of(folder, task="classify", layer=None), ["the cat", "a dog"])


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_both_towers(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_dual(tmp_path, kind)
    spec = spec_of(folder, modality="text", layer="pooler")
    texts_on_gpu(monkeypatch, spec, ["the cat", "a dog sat on a mat"])
    images_on_gpu(monkeypatch, spec_of(folder, modality="image", layer="pooler"))


MODES = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("modules", ["normalize", "dense", "gelu", "residual"])
def test_modules_of_sentence_transformers(
    bert_folder: Path, tmp_path: Path, modules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"tokens_first": modules == "dense", "truncate_dim": 7 * (modules == "gelu") or None}
    folder = sentence_folder(tmp_path, bert_folder, MODES, modules, **settings)
    texts_on_gpu(monkeypatch, resolved(folder), ["the cat", "a dog sat on a mat"])


def test_a_tensor_left_behind_would_be_found(
    resnet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(resnet_folder)
    monkeypatch.setattr(TorchImageEncoder, "_check_class_token", lambda *_: None)
    monkeypatch.setattr(TorchImageEncoder, "_refuse_chance", lambda *_: None)
    with fake_gpu(monkeypatch):
        model = TorchImageEncoder(spec, "cuda", 1, paths=None)
        monkeypatch.setattr(model.feed, "device", torch.device("cpu"))
        items = [model.processed(Image.new("RGB", (40, 30)))]
        with pytest.raises(RuntimeError, match="found at least two devices, cpu and cuda:0"):
            model._begin_alike(items)
