"""Where the seconds of a small job go, phase by phase, from its start until the process has ended.

    .venv/bin/python scripts/bench/startup.py --input images.parquet --rows 200 --model hf:FOLDER
    .venv/bin/python scripts/bench/startup.py … --tree . --tree ../before

How it is measured:

- Each run is `python jobs/embed.py` with its defaults on the first `--rows` rows of the input, a
  process of its own as a user starts it. With several `--tree`, checkouts of Ember with a `.venv`
  each (or the interpreter of this script), they take turns. One round comes first that warms the
  machine's caches, and Ember's own, and does not count.
- The phases are those of the run's manifest ("seconds"). What lies before and after them is seen
  from outside: the manifest's own time, the run's last word on stdout, the end of the process.
- The phase "embed" is divided by what the workers report ("task_seconds", which the workers share)
  and by when the first of them was forked. "model" is the model's own arithmetic, what it waits for
  images included.
- CPU seconds are of all processes together, by kind, as last seen before each ended.
- The table shows the smallest figure over the rounds of each phase, because what other programs
  take from a machine only ever adds to it; `--out` gets every single figure.

"ours" is the whole run without the session's start and the model's arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from measure import Watch, descendants, embed_command, formatted, machine

ROOT = Path(__file__).resolve().parents[2]
_SAMPLE_SECONDS = 0.05
_TICK = os.sysconf("SC_CLK_TCK")
_KINDS = ("driver", "java", "workers")


@dataclass(frozen=True)
class Run:
    """One run: seconds by phase, and CPU seconds by kind of process."""

    tree: str
    round: int
    phases: dict[str, float]
    cpu: dict[str, float]


class Phases(Watch):
    """The processes of a command, on Linux: their CPU seconds, and when the first worker began."""

    def __init__(self, root: int) -> None:
        super().__init__(root, _SAMPLE_SECONDS)
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._workers: dict[int, float] = {}

    def look(self) -> None:
        for pid, name, below_java in descendants(self.root):
            if stat := _stat(pid):
                python = below_java and name.startswith("python")
                java = below_java or name == "java"
                self._kinds[pid] = "workers" if python else "java" if java else "driver"
                self._seconds[pid] = (int(stat[11]) + int(stat[12])) / _TICK
                if python:
                    self._workers[pid] = int(stat[19]) / _TICK

    def cpu(self) -> dict[str, float]:
        """CPU seconds by kind, and of all."""
        found = dict.fromkeys(_KINDS, 0.0)
        for pid, spent in self._seconds.items():
            found[self._kinds[pid]] += spent
        return {**found, "all": sum(found.values())}

    def first_worker(self) -> float:
        """When the first worker was forked by Spark's daemon, in seconds since boot."""
        return sorted(self._workers.values())[1]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, the state first; none once it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def measured(command: list[str], folder: Path, out: Path) -> tuple[dict[str, float], Phases]:
    """Run the job. Seconds by phase in the order of time, and what was watched of it."""
    with (folder / "stderr").open("wb") as errors:
        begun, booted = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        watch = Phases(process.pid)
        watch.start()
        assert process.stdout is not None
        said = [(time.time(), line) for line in process.stdout]
        code = process.wait()
        ended = time.time()
        watch.stop()
    if code or not said:
        sys.exit((folder / "stderr").read_text("utf-8", "replace")[-5000:])
    manifest = json.loads((out / "_manifest.json").read_text("utf-8"))
    seconds = manifest["seconds"]
    # When the staged rows were complete and the manifest was written beside them.
    noted = (out / "_manifest.json").stat().st_mtime
    last_word = said[0][0]
    workers = max(1, manifest["workers"])
    task = {name: spent / workers for name, spent in manifest["task_seconds"].items()}
    counting = seconds.get("count", 0.0)
    first = watch.first_worker() - booted - (noted - begun - counting - seconds["embed"])
    model = task["model"] + task.get("prepare wait", 0.0)
    phases = {
        "Python, imports, between phases": noted - begun - sum(seconds.values()),
        **{name: spent for name, spent in seconds.items() if name not in ("embed", "count")},
        "embed: until the first worker": first,
        "embed: model's load": task["load"],
        "embed: model": model,
        "embed: all else": seconds["embed"] - first - task["load"] - model,
        "count": counting,
        "publish": last_word - noted,
        "exit": ended - last_word,
        "whole run": ended - begun,
    }
    phases["ours"] = phases["whole run"] - phases.get("session", 0.0) - model
    return {name: round(spent, 3) for name, spent in phases.items()}, watch


def runs(options: argparse.Namespace, folder: Path) -> Iterator[Run]:
    """Every run of every tree, the first round left out."""
    table = pq.read_table(options.input).slice(0, options.rows)
    source = folder / "input.parquet"
    pq.write_table(table, source, row_group_size=max(1, options.rows // 4))
    for number in range(options.rounds + 1):
        for tree in options.tree:
            name = tree.resolve().name
            out = folder / f"{name}-{number}"
            python = tree.resolve() / ".venv/bin/python"
            interpreter = str(python) if python.exists() else sys.executable
            command = embed_command(interpreter, tree.resolve(), options, source, out)
            phases, watch = measured(command, folder, out)
            print(f"round {number}, {name}: {phases['whole run']:.1f} s", file=sys.stderr)
            if number:
                yield Run(str(tree), number, phases, watch.cpu())


def report(done: list[Run], options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Print the tables; return everything for the JSON file."""
    trees = [str(tree) for tree in options.tree]
    named = ["", *(Path(tree).resolve().name for tree in trees)]
    print(
        f"{about['processor']}, {about['cores']} cores; {options.model}, {options.rows} rows, "
        f"smallest of {options.rounds} rounds\n"
    )
    smallest = {}
    for what in ("phases", "cpu"):
        names = list(dict.fromkeys(name for run in done for name in getattr(run, what)))
        smallest[what] = {
            name: {tree: _smallest(done, tree, what, name) for tree in trees} for name in names
        }
        title = "seconds" if what == "phases" else "CPU seconds"
        head = [f"{title} of", *named[1:]]
        print(formatted(head, [[name, *row.values()] for name, row in smallest[what].items()]))
        print()
    return {
        "machine": about,
        "options": {key: str(value) for key, value in vars(options).items()},
        "smallest": smallest,
        "runs": [asdict(run) for run in done],
    }


def _smallest(done: list[Run], tree: str, what: str, name: str) -> float | None:
    found = [getattr(run, what).get(name) for run in done if run.tree == tree]
    return min((each for each in found if each is not None), default=None)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, help="Parquet of encoded images, or of texts")
    add("--id", default="image_id", help="what the id column is called")
    add("--content", default="content", help="the column of image bytes or texts")
    add("--modality", default="image", choices=("image", "text"))
    add("--model", required=True)
    add("--rows", type=int, default=200)
    add("--rounds", type=int, default=3)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings")
    add("--tree", action="append", type=Path, help="a checkout of Ember; by default this one")
    add("--out", type=Path, help="a JSON file for every figure")
    options = parser.parse_args()
    options.tree = options.tree or [ROOT]
    return options


def main() -> None:
    options = parse_options()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="ember-bench-") as folder:
        done = list(runs(options, Path(folder)))
    facts = report(done, options, about)
    if options.out:
        options.out.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
