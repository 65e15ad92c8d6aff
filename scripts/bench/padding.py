"""The share of padding among the tokens that a text model is given, by corpus and size of task.

    python scripts/bench/padding.py --model FOLDER agnews.parquet:text stsb.parquet:text_a

No model is run: the texts are tokenized, and cut into batches as a worker on a CPU does it. Beside
the corpora that are given stand lengths drawn from distributions, 4,000 each. `calls` is what the
calls of the model cost in themselves, in tokens, as a share of the tokens without padding; 24 a
call, as with MiniLM in torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ember.worker.batching import plan_batches

Lengths = npt.NDArray[np.int64]

# Rows, tokens and padding of a batch, as ember.worker.models.torch_texts has them on a CPU.
_BATCH = (128, 1024, 16)
_WINDOW = 2048
_CALL = 24
_ROWS = 4000
_TASKS = (475, 2000)  # of 3,800 rows on two cores; by default, of many rows


def drawn() -> Iterator[tuple[str, Lengths]]:
    """Lengths from 3 to 512 tokens, by name."""
    rng = np.random.default_rng(0)
    uniform = rng.integers(3, 513, _ROWS)
    short, long = rng.normal(12, 3, _ROWS), rng.normal(300, 60, _ROWS)
    shapes: dict[str, Any] = {
        "all equal": np.full(_ROWS, 40),
        "uniform": uniform,
        "lognormal": rng.lognormal(np.log(40), 0.8, _ROWS),
        "bimodal": np.where(rng.random(_ROWS) < 0.5, short, long),
        "1% long among short": np.where(rng.random(_ROWS) < 0.01, uniform, short),
    }
    for name, lengths in shapes.items():
        yield name, np.clip(lengths, 3, 512).astype(np.int64)


def tokenized(given: str, model: Path) -> Lengths:
    from transformers import AutoTokenizer

    file, _, column = given.rpartition(":")
    texts = [text for text in pq.read_table(file)[column].to_pylist() if text]
    tokenizer = AutoTokenizer.from_pretrained(model)
    return np.array([len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]])


def shares(lengths: Lengths, task: int) -> tuple[float, float]:
    """Padding as a share of what the model is given, and calls as one of the tokens."""
    padded = calls = 0
    for start in range(0, len(lengths), min(task, _WINDOW)):
        costs = np.sort(lengths[start : start + min(task, _WINDOW)]).tolist()
        runs = plan_batches(costs, *_BATCH)
        padded += sum(len(run) * costs[run[-1]] for run in runs)
        calls += len(runs)
    tokens = int(lengths.sum())
    return (padded - tokens) / padded, _CALL * calls / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", nargs="*", metavar="FILE:COLUMN")
    parser.add_argument("--model", type=Path, help="folder of the tokenizer")
    args = parser.parse_args()
    corpora = [(Path(each).stem, tokenized(each, args.model)) for each in args.corpora]
    head = (f"{task} rows a task: padding  calls" for task in _TASKS)
    print(f"{'':22}{'median':>8}  {'  '.join(head)}")
    rng = np.random.default_rng(1)
    for name, lengths in [*corpora, *drawn()]:
        mixed = rng.permutation(lengths)
        cells = (shares(mixed, task) for task in _TASKS)
        line = "  ".join(
            f"{padding:>{20 + len(str(task))}.1%} {calls:>6.1%}"
            for task, (padding, calls) in zip(_TASKS, cells, strict=True)
        )
        print(f"{name:22}{int(np.median(lengths)):>8}  {line}")


if __name__ == "__main__":
    main()
