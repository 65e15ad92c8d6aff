"""Workers with one thread each, or one worker with a thread for each core: rows per second, memory.

    .venv/bin/python scripts/bench/workers.py --input images.parquet --model hf:FOLDER --rows 400
    .venv/bin/python scripts/bench/workers.py --input texts.parquet --id text_id --content text \\
        --modality text --model hf:FOLDER --rows 3800

How it is measured:

- Each run is `python jobs/embed.py` with its defaults, in turn with `spark.task.cpus` of 1 (a
  worker for each core, each with a copy of the model), of all cores (one worker), and on one core,
  Java included. A first run that does not count converts the model.
- Rows per second are those of the model: rows over the seconds that a worker spent in the model and
  waiting for prepared rows, by the manifest, so that start-up does not blur what scales.
- Memory is of all workers together while the model ran, at its largest: what belongs to a
  process alone, and with it each page that several share, divided among them (Pss), so that weights
  that are mapped into several workers would count once.

The table has the medians over `--rounds`; `--out` gets every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from measure import Watch, descendants, embed_command, formatted, machine, middle

ROOT = Path(__file__).resolve().parents[2]


class Workers(Watch):
    """The memory of Spark's Python workers: the largest sum of Pss, in MiB."""

    def __init__(self, root: int) -> None:
        super().__init__(root)
        self.mib = 0.0

    def look(self) -> None:
        workers = [pid for pid, name, below in descendants(self.root) if below and "py" in name]
        self.mib = max(self.mib, sum(map(_pss, workers)) / 1024)


def _pss(pid: int) -> int:
    """The proportional set size of a process in KiB; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:"), 0)


def ways() -> dict[str, tuple[list[str], int, int]]:
    """What is compared: what stands before the command, the workers, the threads of each."""
    cores = sorted(os.sched_getaffinity(0))
    first = ["taskset", "--cpu-list", str(cores[0])]
    return {
        "one core": (first, 1, 1),
        f"{len(cores)} workers x 1 thread": ([], len(cores), 1),
        f"1 worker x {len(cores)} threads": ([], 1, len(cores)),
    }


def measured(way: str, options: argparse.Namespace, source: Path, folder: Path) -> dict[str, Any]:
    """One run; its seconds, its model's rows per second, and the memory of its workers."""
    before, workers, threads = ways()[way]
    out = folder / "out"
    submit = f"--master local[{workers * threads}] --conf spark.task.cpus={threads} pyspark-shell"
    job = embed_command(sys.executable, ROOT, options, source, out)
    command = [*before, *job, "--set", "output.mode=overwrite"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYSPARK_SUBMIT_ARGS": submit}
        )
        watch = Workers(process.pid)
        watch.start()
        code = process.wait()
        watch.stop()
    if code:
        sys.exit((folder / "log").read_text("utf-8", "replace")[-5000:])
    manifest = json.loads((out / "_manifest.json").read_text("utf-8"))
    task = manifest["task_seconds"]
    busy = (task["model"] + task.get("prepare wait", 0.0)) / manifest["workers"]
    return {
        "way": way,
        "embed_seconds": manifest["seconds"]["embed"],
        "model_rows_per_second": options.rows / busy,
        "workers": manifest["workers"],
        "workers_mib": watch.mib,
    }


def runs(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    source = folder / "input.parquet"
    table = pq.read_table(options.input).slice(0, options.rows)
    pq.write_table(table, source, row_group_size=max(1, options.rows // 8))
    for number in range(options.rounds + 1):
        for way in ways():
            if number or way == next(iter(ways())):
                run = measured(way, options, source, folder)
                if number:
                    print(f"round {number}, {way}: {run}", file=sys.stderr)
                    yield {"round": number, **run}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, help="a Parquet file")
    add("--id", default="image_id")
    add("--content", default="content")
    add("--modality", default="image", choices=["image", "text"])
    add("--model", required=True, help="as model.name")
    add("--rows", type=int, default=400)
    add("--rounds", type=int, default=1)
    add("--set", action="append", default=[], help="a further setting of the job")
    add("--out", type=Path, help="a JSON file for every figure")
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        done = list(runs(options, Path(folder)))
    names = ("embed_seconds", "model_rows_per_second", "workers_mib")
    rows = [
        [way, *(middle(run[name] for run in done if run["way"] == way) for name in names)]
        for way in ways()
    ]
    print(f"{about['processor']}, {about['cores']} cores; {options.model}, {options.rows} rows\n")
    print(formatted(["", "embed, s", "model rows/s", "workers, MiB"], rows))
    if options.out:
        found = {"machine": about, "options": vars(options), "runs": done}
        options.out.write_text(json.dumps(found, indent=1, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
