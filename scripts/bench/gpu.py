"""Ember's executor side on one GPU: are the vectors right, how fast is it, what does it wait for?

    scripts/bench/gpu                      # on a GPU, within 6 minutes
    scripts/bench/gpu --device cpu --tiny  # does the script itself run?

It needs no JVM, no Spark and no network: torch, transformers, pyarrow, numpy and pillow, and this
checkout. Weights, pictures and texts are generated, so that only speed and equality mean anything.

For ResNet-50, a BERT of MiniLM's shape and one of BERT-base's, in each precision, by line:

- equal: the largest difference from plain transformers on the CPU in float32, relative to the
  largest number, which must be within the manifest's tolerance, or the exit code is 1; and the
  lowest cosine.
- limit: rows a second if all arithmetic ran as fast as a product of large square matrices does on
  this device, without padding.
- model: the plain model, over and over on one batch that lies on the device.
- fed: Ember from prepared rows (pixels, tokens) to vectors, so with all copies and launches.
- prepare: Ember's threads alone, from JPEGs or texts to prepared rows.
- ember: the whole, from JPEGs or texts to vectors. The least of fed and prepare bounds it.
- loop: the plain loop of the libraries: processor or tokenizer, copy, model, copy back.
- from: what goes to the device, `pixels` (bytes) or `pixel_values` (numbers).
- busy: of the time of fed and of ember, the share in which a kernel ran, by torch's profiler.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

import gpu_corpus

from ember.worker.batching import encode
from ember.worker.device import claim
from ember.worker.encoder import Slot
from ember.worker.spec import RELATIVE_TOLERANCE, ModelSpec

CHECKED = 32
PRECISIONS = ("bfloat16", "float32", "float16")


@dataclass
class Case:
    """A model folder and the rows that go through it."""

    name: str
    modality: str
    folder: Path
    rows: Sequence[bytes]
    expected: Any = None
    operations: float = 0.0


@dataclass
class Line:
    """The figures of a model in one precision; rows a second but where it says otherwise."""

    model: str
    precision: str
    difference: float = 0.0
    cosine: float = 0.0
    equal: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    memory_gib: float = 0.0
    input: str = ""


def main() -> int:
    args = _arguments()
    claim("0" if args.device == "cuda" else None)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --device cpu --tiny tries the script itself")
        return 4
    end = perf_counter() + args.minutes * 60
    print(json.dumps(_machine(args)), flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), tiny=args.tiny)
        for case in cases:
            case.expected, case.operations = _reference(case)
        turns = [(precision, case) for precision in args.precisions for case in cases]
        for number, (precision, case) in enumerate(turns):
            # What is left of the time, shared out among what is left to do.
            share = (end - perf_counter()) / (len(turns) - number)
            if share < 1:
                print(f"no time left for {case.name} in {precision}")
                continue
            try:
                lines.append(_measured(case, precision, args, min(args.seconds, share / 12)))
            except Exception:  # the others may still tell something
                traceback.print_exc()
                lines.append(Line(case.name, precision))
            print(_told(lines[-1]), flush=True)
    if args.out:
        kept = {"machine": _machine(args), "lines": [asdict(line) for line in lines]}
        Path(args.out).write_text(json.dumps(kept, indent=1), "utf-8")
    return int(not all(line.equal for line in lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models and few rows")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 16))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each figure, at most")
    parser.add_argument("--minutes", type=float, default=5.5, help="of all, about")
    parser.add_argument("--out", help="all figures, as JSON")
    return parser.parse_args()


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers

    gpu = torch.cuda.get_device_name(0) if args.device == "cuda" else platform.processor()
    return {
        "device": gpu,
        "cores": os.cpu_count(),
        "threads": args.threads,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _cases(folder: Path, *, tiny: bool) -> list[Case]:
    shapes = {"MiniLM-shaped": (384, 6), "BERT-base": (768, 12)}
    for name in ("ResNet-50", *shapes):
        (folder / name).mkdir()
    gpu_corpus.resnet(folder / "ResNet-50", tiny=tiny)
    for name, (hidden, layers) in shapes.items():
        gpu_corpus.bert(folder / name, hidden=hidden, layers=layers, tiny=tiny)
    pictures = gpu_corpus.pictures(48 if tiny else 512)
    texts = gpu_corpus.texts(200 if tiny else 16_384)
    return [
        Case("ResNet-50", "image", folder / "ResNet-50", pictures),
        *(Case(name, "text", folder / name, texts) for name in shapes),
    ]


def _measured(case: Case, precision: str, args: argparse.Namespace, seconds: float) -> Line:
    import torch

    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    line = Line(case.name, precision)
    encoder = _encoder(case, precision, args)
    vectors = np.asarray(_vectors(encoder, case.rows[:CHECKED], args.threads))
    scale = np.abs(case.expected).max()
    line.difference = float(np.abs(vectors - case.expected).max() / scale)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(case.expected, axis=1)
    line.cosine = float(((vectors * case.expected).sum(1) / norms).min())
    line.equal = line.difference <= RELATIVE_TOLERANCE[precision]
    limit = _product(precision, args) / case.operations
    ready = encoder.prepare(case.rows)
    first = ready[0][0]
    line.input = ", ".join(first) if isinstance(first, dict) else "tokens"
    prepared = _Prepared(encoder)
    line.figures = {
        "limit": limit,
        "model": _model_alone(encoder, ready, args, seconds),
        "fed": _stream(prepared, ready, 1, seconds),
        "prepare": _prepare_alone(encoder, case.rows, args.threads, seconds),
        "ember": _stream(encoder, case.rows, args.threads, seconds),
        "loop": _loop(case, precision, encoder.batch_size, args, seconds),
    }
    if args.device == "cuda":
        runs = {"fed": (prepared, ready, 1), "ember": (encoder, case.rows, args.threads)}
        line.busy = {
            name: _busy(lambda run=run: _stream(*run, min(seconds, 0.5)))
            for name, run in runs.items()
        }
        line.memory_gib = torch.cuda.max_memory_allocated() / 2**30
    return line


def _told(line: Line) -> str:
    figures = "  ".join(f"{name} {value:,.0f}" for name, value in line.figures.items())
    busy = "  ".join(f"busy of {name} {value:.0%}" for name, value in line.busy.items())
    equal = "equal" if line.equal else "NOT EQUAL"
    return (
        f"{line.model}, {line.precision}: {equal} to {line.difference:.1e}, cosine "
        f"{line.cosine:.6f}  {figures}  {busy}  {line.memory_gib:.1f} GiB  "
        f"from {line.input}"
    )


def _encoder(case: Case, precision: str, args: argparse.Namespace) -> Any:
    spec = ModelSpec(
        name=f"hf:{case.name}",
        family="hf",
        modality=case.modality,
        path=str(case.folder),
        layer="avg_pool" if case.modality == "image" else "mean",
        runtime="torch",
        precision=precision,
        batch_size=8 if args.tiny else None,
        normalize=False,
        max_pixels=10_000_000,
        weights_sha256="",
        preprocessing="",
    )
    if case.modality == "image":
        from ember.worker.models.torch_images import TorchImageEncoder

        return TorchImageEncoder(spec, args.device, args.threads, paths=None)
    from ember.worker.models.torch_texts import TorchTextEncoder

    return TorchTextEncoder(spec, args.device, args.threads)


class _Prepared:
    """An encoder to which rows come prepared."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def prepare(self, raws: Sequence[Any]) -> list[Any]:
        return list(raws)


def _vectors(encoder: Any, rows: Sequence[bytes], threads: int) -> Any:
    (slot,) = encode([Slot(rows)], encoder, threads=threads, timed=lambda *_: None)
    assert not slot.errors, slot.errors
    return slot.vectors


def _stream(encoder: Any, rows: Sequence[Any], threads: int, seconds: float) -> float:
    """Rows a second of `encode`, over and over the rows, until the last have come out."""
    end = perf_counter() + seconds
    size = encoder.batch_size

    def slots() -> Iterator[Slot]:
        while True:
            for start in range(0, len(rows), size):
                if perf_counter() >= end:
                    return
                yield Slot(rows[start : start + size])

    begun = perf_counter()
    done = sum(
        len(slot.raws) for slot in encode(slots(), encoder, threads=threads, timed=lambda *_: None)
    )
    return done / (perf_counter() - begun)


def _prepare_alone(encoder: Any, rows: Sequence[bytes], threads: int, seconds: float) -> float:
    from concurrent.futures import ThreadPoolExecutor

    step = encoder.chunk_rows
    chunks = [rows[start : start + step] for start in range(0, len(rows), step)]
    begun, done = perf_counter(), 0
    with ThreadPoolExecutor(threads) as pool:
        while perf_counter() - begun < seconds:
            done += sum(map(len, pool.map(encoder.prepare, chunks[: 8 * threads])))
    return done / (perf_counter() - begun)


def _model_alone(encoder: Any, ready: Sequence[Any], args: Any, seconds: float) -> float:
    """The plain model on a batch that is there, of rows of about average length."""
    import torch

    middle = sorted(ready, key=lambda each: each[1])[len(ready) // 2]
    items = [middle[0]] * encoder.batch_size
    with torch.inference_mode():
        if hasattr(encoder, "call"):
            inputs, _ = encoder.call.inputs(items)
        else:
            inputs = encoder._inputs(items)
        return _rate(lambda: encoder.model(**inputs), len(items), args.device, seconds)


def _rate(call: Callable[[], Any], rows: int, device: str, seconds: float) -> float:
    """Rows a second of a call that is repeated, with a wait for the device at the end alone."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    call()
    wait()
    begun, done = perf_counter(), 0
    while perf_counter() - begun < seconds:
        for _ in range(4):
            call()
            done += rows
        wait()
    return done / (perf_counter() - begun)


def _product(precision: str, args: argparse.Namespace) -> float:
    """Operations a second of a product of large matrices."""
    import torch

    size = 512 if args.tiny else 8192
    one = torch.randn(size, size, device=args.device, dtype=getattr(torch, precision))
    with torch.inference_mode():
        return _rate(lambda: one @ one, 2 * size**3, args.device, min(args.seconds, 1.0))


def _reference(case: Case) -> tuple[Any, float]:
    """Vectors of the first rows by plain transformers on the CPU, and operations of a row."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    run = _plain(case, "cpu", torch.float32)
    counter = FlopCounterMode(display=False)
    with counter:
        vectors = np.concatenate([run(case.rows[row : row + 1]) for row in range(CHECKED)])
    return vectors, counter.get_total_flops() / CHECKED


def _plain(case: Case, device: str, dtype: Any) -> Callable[[Sequence[bytes]], Any]:
    """What a user writes: rows to vectors, a batch at a time."""
    import io

    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(case.folder, dtype=dtype).eval().to(device)

    def images(rows: Sequence[bytes]) -> Any:
        opened = [Image.open(io.BytesIO(row)).convert("RGB") for row in rows]
        pixels = processor(opened, return_tensors="pt")["pixel_values"].to(device, dtype)
        with torch.inference_mode():
            return model(pixel_values=pixels).last_hidden_state.mean((2, 3)).float().cpu().numpy()

    def texts(rows: Sequence[bytes]) -> Any:
        said = [row.decode() for row in rows]
        tokens = tokenizer(said, padding=True, truncation=True, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()

    if case.modality == "image":
        processor = AutoImageProcessor.from_pretrained(case.folder)
        return images
    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    return texts


def _loop(case: Case, precision: str, batch: int, args: Any, seconds: float) -> float:
    import torch

    run = _plain(case, args.device, getattr(torch, precision))
    run(case.rows[:batch])
    begun, done = perf_counter(), 0
    while perf_counter() - begun < seconds:
        for start in range(0, len(case.rows), batch):
            done += len(run(case.rows[start : start + batch]))
            if perf_counter() - begun >= seconds:
                break
    return done / (perf_counter() - begun)


def _busy(run: Callable[[], Any]) -> float:
    """The share of the time, from the first kernel's start to the last one's end, with one."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith("Mem")
    )
    if not spans:
        return float("nan")
    busy, until = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return busy / (until - spans[0][0])


if __name__ == "__main__":
    sys.exit(main())
