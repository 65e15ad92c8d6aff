"""A nightly run of `embed` with output.mode sync, beside the full run that it equals.

    python scripts/bench/sync.py --texts 100000 --out sync

A table of so many short texts and a light encoder (BERT, 2 layers of 144, random weights), each run
a process of its own: a full run in mode overwrite, the first run in mode sync, one after 1% of the
texts were changed, and one after nothing was. Writes sync.json: seconds, whole and by phase, rows
that ran the model.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import gpu_corpus
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine, measure


def write(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)


def run(folder: Path, out: str, mode: str) -> dict[str, Any]:
    values = {
        "input.path": folder / "in.parquet",
        "input.id": "id",
        "input.content": "text",
        "input.modality": "text",
        "model.name": f"hf:{folder}/model",
        "model.runtime": "torch",
        "output.path": folder / out,
        "output.mode": mode,
    }
    command = [sys.executable, "jobs/embed.py", *(f"--set={k}={v}" for k, v in values.items())]
    measured = measure(command, folder / "log", {})
    told = json.loads((folder / out / "_manifest.json").read_text("utf-8"))
    facts = {"seconds": measured.seconds, "by_phase": told["seconds"], "counts": told["counts"]}
    return {**facts, "model_loads": told["model_loads"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    drawn = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="ember-sync-") as name:
        folder = Path(name)
        gpu_corpus.bert(folder / "model", hidden=144, layers=2, tiny=False)
        texts = [text.decode() for text in gpu_corpus.texts(given.texts)]
        write(folder / "in.parquet", texts)
        told = {"full": run(folder, "full", "overwrite"), "first": run(folder, "out", "sync")}
        for place in drawn.sample(range(len(texts)), len(texts) // 100):
            texts[place] = " ".join(reversed(texts[place].split()))
        write(folder / "in.parquet", texts)
        told["1% changed"] = run(folder, "out", "sync")
        told["nothing changed"] = run(folder, "out", "sync")
    told["machine"] = machine()
    Path(f"{given.out}.json").write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    for name, facts in told.items():
        if isinstance(facts, dict) and "seconds" in facts:
            print(f"{name}: {facts['seconds']:.1f} s, {facts['counts']['embedded']} rows ran")


if __name__ == "__main__":
    main()
