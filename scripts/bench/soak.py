"""A long embed job: do its rate and the memory of its processes stay flat?

    .venv/bin/python scripts/bench/soak.py --rows 1000000 --out soak

Pictures of 32 x 32 pixels, no two equal, through a ResNet of two stages with random weights: so
light a model that what is measured is Ember and Spark around it. The job is a process of its own on
all cores. Every ten seconds the rows that are done, by the job's log, and the resident memory of
Java, of the largest Python worker and of the driver are noted. Printed is a line for each tenth of
the rows; all of it goes into soak.json.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gpu_corpus import resnet
from measure import Watch, descendants, formatted, machine, resident, watched
from PIL import Image

JOB = Path(__file__).resolve().parents[2] / "jobs" / "embed.py"
FILE_ROWS, SIDE, EVERY, PARTS = 25_000, 32, 10.0, 10
DONE = re.compile(r"(\d+) of \d+ rows, ")
KINDS = ("java", "worker", "driver")


class Soak(Watch):
    """Notes (seconds, rows done, MiB of each of KINDS) while the job runs."""

    def __init__(self, log: Path, root: int) -> None:
        super().__init__(root, EVERY)
        self._log = log
        self._start = perf_counter()
        self.seen: list[tuple[float, int, dict[str, float]]] = []

    def look(self) -> None:
        memory = dict.fromkeys(KINDS, 0.0)
        for pid, name, below_java in descendants(self.root):
            kind = "worker" if below_java else "java" if name == "java" else "driver"
            memory[kind] = max(memory[kind], resident(pid))
        found = DONE.findall(self._log.read_text("utf-8", "replace"))
        rows = int(found[-1]) if found else 0
        self.seen.append((perf_counter() - self._start, rows, memory))


def write(folder: Path, rows: int, part: int) -> None:
    """A file of pictures of noise, drawn from its number."""
    drawn = np.random.default_rng(part)
    first = part * FILE_ROWS
    count = min(FILE_ROWS, rows - first)
    contents = []
    for _ in range(count):
        stream = io.BytesIO()
        pixels = drawn.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG", quality=80)
        contents.append(stream.getvalue())
    table = pa.table({"image_id": range(first, first + count), "content": contents})
    pq.write_table(table, folder / f"part-{part:04}.parquet")


def run(rows: int, folder: Path) -> dict[str, object]:
    source, model, log = folder / "in", folder / "resnet", folder / "log"
    source.mkdir()
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write, source, rows), range(-(-rows // FILE_ROWS))))
    resnet(model, tiny=True)
    values = {
        "input.path": source,
        "input.id": "image_id",
        "input.modality": "image",
        "model.name": f"hf:{model}",
        "output.path": folder / "out",
    }
    command = [sys.executable, str(JOB), *(f"--set={key}={value}" for key, value in values.items())]
    seconds, watch = watched(partial(Soak, log), command, log, {})
    manifest = json.loads((folder / "out" / "_manifest.json").read_text("utf-8"))
    told = {"rows": rows, "seconds": round(seconds, 1), "phases": manifest["seconds"]}
    told |= {"counts": manifest["counts"], "seen": watch.seen}
    return told | {"files": len(list((folder / "out").glob("*.parquet")))}


def tenths(seen: list[tuple[float, int, dict[str, float]]], rows: int) -> list[list[float]]:
    """Of each tenth: rows when it ends, rows a second in it, the largest memory in it by kind."""
    lines = []
    start, done = next((each[:2] for each in seen if each[1]), (0.0, 0))
    for part in range(1, PARTS + 1):
        until = rows * part // PARTS
        within = [each for each in seen if done < each[1] <= until]
        if not within:
            continue
        end, count, _ = within[-1]
        memory = [max(each[2][kind] for each in within) for kind in KINDS]
        lines.append([count, (count - done) / max(end - start, 1e-9), *memory])
        start, done = end, count
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ember-soak-") as folder:
        told = run(given.rows, Path(folder))
    told["machine"] = machine()
    Path(f"{given.out}.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    lines = tenths(told["seen"], given.rows)
    print(formatted(["rows", "rows/s", *(f"{kind} MiB" for kind in KINDS)], lines))
    print({key: told[key] for key in ("seconds", "phases", "counts", "files")})


if __name__ == "__main__":
    main()
