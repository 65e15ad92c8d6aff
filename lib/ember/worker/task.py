"""The worker: Arrow record batches in, Arrow record batches out, one model load per process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter
from time import perf_counter
from typing import Protocol, runtime_checkable

import pyarrow as pa

from ember.errors import InvalidInput
from ember.worker.batching import encode
from ember.worker.device import Device, claim, hide_triton
from ember.worker.encoder import Encoder, Slot
from ember.worker.equal_rows import EqualRows
from ember.worker.models.chunks import Chunking, Splitter, chunk_slots, joined, texts_in
from ember.worker.models.generation import request_slot
from ember.worker.models.model_folder import loading
from ember.worker.results import Embedding, Result, to_batch
from ember.worker.row_paths import PathRules
from ember.worker.rows import raw_values
from ember.worker.spec import ModelSpec
from ember.worker.stats import TaskStats, WorkerRecord

__all__ = ["embed_batches", "load", "normalizes_means", "record", "run_batches", "splitter"]

_log = logging.getLogger(__name__)

# Rows of an output batch. Small, so that rows travel on while others are still being embedded.
_SLOT_ROWS = 512

# Models of this process by fingerprint. Never evicted: a worker serves one job, so it holds one
# model, or a few where a notebook embeds with several; the process ends with its executor.
_Key = tuple[str, int | None, PathRules | None]
_loaded: dict[_Key, Encoder] = {}
_records: dict[_Key, WorkerRecord] = {}


def record(spec: ModelSpec, *, paths: PathRules | None) -> WorkerRecord:
    """How often this process loaded this model, how long that took, on which device it runs."""
    nothing = WorkerRecord(loads=0, load_seconds=0.0, device="")
    return _records.get(_key(spec, paths), nothing)


def _key(spec: ModelSpec, paths: PathRules | None) -> _Key:
    return spec.fingerprint, spec.batch_size, paths or None


def load(spec: ModelSpec, *, address: str | None, threads: int, paths: PathRules | None) -> Encoder:
    """The model of `spec`, loaded on the first call of this process and kept.

    address: the GPU that Spark assigned, None for the CPU; bound on the first call.
    threads: for the model's own computation on a CPU.
    paths: where files may be that rows name; None where the content is the bytes.

    Raises InvalidInput when the files do not make the model that the spec describes, and
    DeviceMissing when the GPU is not usable.
    """
    key = _key(spec, paths)
    if key not in _loaded:
        start = perf_counter()
        with loading(spec.name, spec.path):
            encoder = _build(spec, address, threads, paths)
        _loaded[key] = encoder
        before = record(spec, paths=paths)
        notes: tuple[str, ...] = getattr(encoder, "notes", ())
        for note in notes:
            _log.warning("%s: %s", spec.name, note)
        _records[key] = WorkerRecord(
            loads=before.loads + 1,
            load_seconds=before.load_seconds + perf_counter() - start,
            device=encoder.device,
            max_tokens=getattr(encoder, "max_tokens", None),
            notes=notes,
        )
    return _loaded[key]


def splitter(encoder: Encoder, chunking: Chunking) -> Splitter:
    """What cuts texts into chunks for this model. Raises InvalidInput as `Splitter` does."""
    if not isinstance(encoder, _Splitting):
        raise InvalidInput("chunk is for embeddings of texts; leave it out")
    return encoder.splitter(chunking)


@runtime_checkable
class _Splitting(Protocol):
    def splitter(self, chunking: Chunking) -> Splitter: ...


def _build(spec: ModelSpec, address: str | None, threads: int, paths: PathRules | None) -> Encoder:
    device = claim(address)
    # Read by the tokenizers' thread pool when it starts.
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if spec.runtime == "tensorflow":
        from ember.worker.models.keras_runtime import KerasImageEncoder

        return KerasImageEncoder(spec, device, threads, paths=paths)
    if spec.runtime == "openvino":
        from ember.worker.models.openvino_encoders import openvino_encoder

        return openvino_encoder(spec, device, threads, paths=paths)
    if spec.runtime == "torch":
        hide_triton()
        return _of_torch(spec, device, threads, paths)
    raise InvalidInput(f"runtime {spec.runtime} cannot run {spec.name}")


def _of_torch(spec: ModelSpec, device: Device, threads: int, paths: PathRules | None) -> Encoder:
    texts, writes = spec.modality == "text", spec.task == "generate"
    if texts and writes:
        from ember.worker.models.generation_texts import TorchTextGenerator

        return TorchTextGenerator(spec, device, threads)
    if writes:
        from ember.worker.models.generation_images import TorchImageDescriber

        return TorchImageDescriber(spec, device, threads, paths=paths)
    if texts:
        from ember.worker.models.torch_texts import TorchTextEncoder

        return TorchTextEncoder(spec, device, threads)
    from ember.worker.models.torch_images import TorchImageEncoder

    return TorchImageEncoder(spec, device, threads, paths=paths)


def _content_slot(part: pa.RecordBatch) -> Slot:
    return Slot(raw_values(part.column(1)), part.select([0]))


def embed_batches(
    batches: Iterable[pa.RecordBatch],
    spec: ModelSpec,
    *,
    address: str | None = None,
    threads: int = 1,
    paths: PathRules | None = None,
    stats: TaskStats | None = None,
    chunking: Chunking | None = None,
) -> Iterator[pa.RecordBatch]:
    """Embed every row of a stream of batches; with `spec.normalize`, to unit length.

    The result of `run_batches` is the column `embedding` list<float>.
    """
    yield from run_batches(
        batches,
        spec,
        Embedding(spec.normalize or normalizes_means(spec, chunking)),
        address=address,
        threads=threads,
        paths=paths,
        stats=stats,
        chunking=chunking,
    )


def normalizes_means(spec: ModelSpec, chunking: Chunking | None) -> bool:
    """Are means of chunks brought to the unit length that the model's vectors have?"""
    pooled = chunking is not None and chunking.pool is not None
    return pooled and spec.text is not None and spec.text.normalizes


def run_batches(
    batches: Iterable[pa.RecordBatch],
    spec: ModelSpec,
    result: Result,
    *,
    address: str | None = None,
    threads: int = 1,
    paths: PathRules | None = None,
    stats: TaskStats | None = None,
    chunking: Chunking | None = None,
) -> Iterator[pa.RecordBatch]:
    """Run the model on every row of a stream of batches.

    batches: columns (id of any type, content string or binary), any names, any sizes; for a model
        that writes texts those of `ember.worker.models.generation`.
    result: what a row's line of the model's matrix becomes.
    chunking: how texts are cut into chunks; None: they are not.
    stats: updated while the batches are taken.

    Yields batches (id, the result's column, status string, error string), rows in the order of
    the input: `status` is "ok" with a result, or "error" with a null result and a reason. With
    chunks that are not pooled, batches (id, chunk int, start int, end int, …) with a row for each
    chunk of a text, or one row where the text fails.
    """
    stats = stats or TaskStats()
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return  # no row, no model
    start = perf_counter()
    encoder = load(spec, address=address, threads=threads, paths=paths)
    stats.timed("load", perf_counter() - start)
    parts = _parts(chain([first], filled))
    if chunking is not None:
        slots = chunk_slots(parts, splitter(encoder, chunking), whole=chunking.pool is not None)
    elif spec.task == "generate":
        slots = (request_slot(part, stats) for part in parts)
    else:
        slots = (_content_slot(part) for part in parts)
    equal = _equal_rows(spec)
    done = encode(
        equal.distinct(slots) if equal else slots,
        encoder,
        threads=max(1, threads),
        timed=stats.timed,
        counted=stats.count,
    )
    for slot in equal.restored(done) if equal else done:
        stats.truncated += len(slot.truncated)
        if chunking is None:
            stats.rows += len(slot.raws)
            yield to_batch(slot, result)
        else:
            stats.rows += texts_in(slot)
            stats.count("chunks", len(slot.raws))
            yield to_batch(joined(slot, unit=spec.normalize) if chunking.pool else slot, result)
    if equal:
        stats.count("equal_rows", equal.found)


def _equal_rows(spec: ModelSpec) -> EqualRows | None:
    """What finds rows that need not go through the model; None where equal rows get other texts."""
    if spec.generation is None:
        return EqualRows()
    return None if spec.generation.sampling else EqualRows(attrgetter("asked"))


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, _SLOT_ROWS):
            yield batch.slice(start, _SLOT_ROWS)
