"""Texts through a sentence-transformers folder: the libraries alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peer_task import Task, openvino_queue, read, write

BATCH = 32
# Tokens of a request, its padding included.
_BUDGET = 1024


def pooled_network(folder: str, *, traced: bool = False) -> tuple[Any, Any, int]:
    """A torch module from (ids, mask) to vectors, its tokenizer, and its length in tokens.

    The mean over the tokens of the mask, and length 1 where the folder has Normalize.
    traced: for a tracer, which cannot follow how transformers makes a mask of its own from (n, t).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    path = Path(folder)
    modules = json.loads((path / "modules.json").read_text("utf-8"))
    normalizes = any(module["type"].endswith("Normalize") for module in modules)
    limits = json.loads((path / "sentence_bert_config.json").read_text("utf-8"))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

        def forward(self, ids: Any, mask: Any) -> Any:
            attention = mask[:, None, None, :].bool() if traced else mask
            hidden = self.model(input_ids=ids, attention_mask=attention).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            vectors = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
            return torch.nn.functional.normalize(vectors, dim=1) if normalizes else vectors

    return Network().eval(), AutoTokenizer.from_pretrained(folder), limits["max_seq_length"]


def tokenized(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
    return tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]


def padded(rows: Sequence[list[int]], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (n, t) and their mask, padded to the longest of the rows."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), fill, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return ids, mask


def torch_loop(task: Task) -> None:
    """transformers alone: sorted by length, batches of 32, inference_mode."""
    import torch

    network, tokenizer, longest = pooled_network(task.model)
    ids, texts = read(task)
    tokens = tokenized(tokenizer, texts, longest)
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    found: list[Any] = [None] * len(tokens)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = padded([tokens[row] for row in rows], tokenizer.pad_token_id)
            vectors = network(*map(torch.from_numpy, batch)).numpy()
            for row, vector in zip(rows, vectors, strict=True):
                found[row] = vector
    write(task, ids, np.stack(found))


def openvino_loop(task: Task) -> None:
    """The converted model in throughput mode: sorted by length, at most 1,024 tokens a request."""
    from transformers import AutoTokenizer

    queue, outputs = openvino_queue(f"{task.folder}/openvino.xml")
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    limits = json.loads(Path(task.model, "sentence_bert_config.json").read_text("utf-8"))
    ids, texts = read(task)
    tokens = tokenized(tokenizer, texts, limits["max_seq_length"])
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    batches = list(by_budget(order, tokens))
    for number, rows in enumerate(batches):
        batch = padded([tokens[row] for row in rows], tokenizer.pad_token_id)
        queue.start_async(dict(enumerate(batch)), number)
    queue.wait_all()
    found = np.empty((len(texts), outputs[0].shape[1]), np.float32)
    for number, rows in enumerate(batches):
        found[rows] = outputs[number]
    write(task, ids, found)


def by_budget(order: Sequence[int], tokens: Sequence[list[int]]) -> Iterator[list[int]]:
    """Rows in their order, cut so that rows × the longest of them stays within the budget."""
    batch: list[int] = []
    for row in order:
        longest = len(tokens[batch[0]]) if batch else 0
        if batch and (len(batch) + 1) * max(longest, len(tokens[row])) > _BUDGET:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def sentences(task: Task, *, threads: int = 0) -> Any:
    """sentence-transformers on torch, in float32."""
    import torch
    from sentence_transformers import SentenceTransformer

    if threads:
        torch.set_num_threads(threads)
    return SentenceTransformer(task.model, device="cpu")


def sentence_transformers(task: Task) -> None:
    """`encode` of the whole list, which it sorts by length; batches of 32, its default."""
    ids, texts = read(task)
    write(task, ids, sentences(task).encode(texts, batch_size=BATCH))


def sentence_openvino(task: Task) -> None:
    """The same with `backend="openvino"`, its documented export made once and saved."""
    from sentence_transformers import SentenceTransformer

    settings = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
    folder = str(Path(task.folder, "sentence-openvino"))
    model = SentenceTransformer(folder, backend="openvino", device="cpu", model_kwargs=settings)
    ids, texts = read(task)
    write(task, ids, model.encode(texts, batch_size=BATCH))
