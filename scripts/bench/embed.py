"""Ember's `embed` against the usual ways to embed a table: speed, memory, start-up, same answers.

    python scripts/bench/embed.py --input images.parquet --rows 400
    python scripts/bench/embed.py --input texts.parquet --text --model hf:FOLDER \\
        --id pair_id --content text_a --rows 20000

How it is measured:

- The peers are those of embed_peers.py: Spark's `predict_batch_udf` with the documented recipe, a
  naive pandas UDF, and a plain loop of the model's library. Ember is `python jobs/embed.py` with
  its defaults, as a user starts it. All read the same Parquet file and the same weights, have the
  same cores, compute in float32 and write Parquet.
- The input is enlarged to `--rows` rows by repeating it, shuffled with a seed and numbered anew.
- Each run is a process of its own, timed from its start until it has ended, and the peers take
  turns: all of them, then all of them again. One round over a few rows comes first, which warms
  the machine's caches and does not count.
- Every peer runs over `--rows` rows and over a quarter of them in each round. Steady rows per
  second are the difference in rows over the difference in seconds, so whatever does not depend on
  the number of rows drops out, for all in the same way. Start-up is the rest: the seconds of the
  whole run less rows / steady rate. With few rows, or on a busy machine, both are noise.
- Memory is the largest peak of a process that computes (see measure.py).
- Every table is held against Ember's, id by id: the largest |difference| of a row relative to the
  largest value of that row must not exceed `--tolerance`; else the benchmark ends with exit code 1.
- The table shows medians over the rounds; `--out` gets every single figure.

It must have the machine for itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import Measured, formatted, machine, measure, middle

from ember.worker.spec import KERAS_INPUT_SIZE

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "ember": "Ember",
    "predict_batch_udf": "Spark predict_batch_udf",
    "pandas_udf": "naive pandas UDF",
    "loop": "plain library loop",
}
_WARM_ROWS = 32
_ROW_GROUPS = 8


@dataclass(frozen=True)
class Corpus:
    """A table of `rows` rows, written for this benchmark."""

    path: Path
    rows: int


@dataclass
class Result:
    """One run of one peer; the last three are Ember's alone, from its manifest."""

    peer: str
    round: int
    rows: int
    measured: Measured
    difference: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    task_seconds: dict[str, float] = field(default_factory=dict)
    workers: int = 0


class Bench:
    """The settings, the folder for inputs and outputs, and the runs done so far."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.modality = "text" if options.text else "image"
        self.name = options.model.partition(":")[2]
        self.results: list[Result] = []
        self.weights = "" if options.text else self._weights()
        full = self._corpus(options.rows)
        self.warm = self._corpus(min(_WARM_ROWS, options.rows))
        self.sizes = [self._corpus(max(1, options.rows // 4)), full]

    def rounds(self) -> None:
        """Run everything, and check every answer."""
        self._round(0, self.warm)
        self.results.clear()
        for number in range(1, self.options.repeat + 1):
            for corpus in self.sizes:
                self._round(number, corpus)

    def _round(self, number: int, corpus: Corpus) -> None:
        answer: tuple[np.ndarray, np.ndarray] | None = None
        for peer, label in PEERS.items():
            out = self.folder / f"{peer}-{number}-{corpus.rows}"
            result = self._run(peer, number, corpus, out)
            ids, vectors = read_answer(out, self.options.id, corpus.rows, label)
            if answer is None:
                answer = ids, vectors
            result.difference = difference(answer, (ids, vectors), label)
            print(
                f"round {number}, {corpus.rows} rows, {label}: "
                f"{result.measured.seconds:.1f} s, difference {result.difference:.1e}",
                file=sys.stderr,
            )
            if result.difference > self.options.tolerance:
                sys.exit(
                    f"{label} and Ember differ by {result.difference:.2e} relative, more "
                    f"than {self.options.tolerance:g}: they do not compute the same"
                )
            self.results.append(result)

    def _run(self, peer: str, number: int, corpus: Corpus, out: Path) -> Result:
        command = self._ember(corpus, out) if peer == "ember" else self._peer(peer, corpus, out)
        # As for any user without a network: nothing is looked for on the hub.
        offline = {"HF_HUB_OFFLINE": "1"}
        measured = measure(command, out.with_suffix(".log"), offline)
        result = Result(peer, number, corpus.rows, measured)
        if peer == "ember":
            manifest = json.loads((out / "_manifest.json").read_text("utf-8"))
            result.phases = manifest["seconds"]
            result.task_seconds = manifest["task_seconds"]
            result.workers = manifest["workers"]
        return result

    def _ember(self, corpus: Corpus, out: Path) -> list[str]:
        options = self.options
        settings = {
            "input.path": corpus.path,
            "input.id": options.id,
            "input.content": options.content,
            "input.modality": self.modality,
            "model.name": options.model,
            "output.path": out,
        }
        if self.weights:
            settings["model.weights"] = self.weights
        given = [f"{key}={value}" for key, value in settings.items()] + options.set
        sets = [part for each in given for part in ("--set", each)]
        return [sys.executable, str(ROOT / "jobs" / "embed.py"), *sets]

    def _peer(self, peer: str, corpus: Corpus, out: Path) -> list[str]:
        options = self.options
        arguments = {"--input": corpus.path, "--id": options.id, "--content": options.content}
        if peer != "weights":
            arguments["--partitions-per-core"] = options.partitions_per_core
        return self._command(peer, out, {**arguments, "--weights": self.weights})

    def _command(self, peer: str, out: Path, arguments: dict[str, Any]) -> list[str]:
        size = 0 if self.options.text else KERAS_INPUT_SIZE[self.name]
        arguments |= {"--output": out, "--model": self.name, "--size": size}
        arguments["--modality"] = self.modality
        flat = [str(part) for pair in arguments.items() for part in pair]
        script = Path(__file__).with_name("embed_peers.py")
        return [self.options.peer_python, str(script), peer, *flat]

    def _weights(self) -> str:
        """The one file of weights that everybody loads."""
        given = self.options.weights
        if given not in ("random", "imagenet"):
            return str(Path(given).resolve(strict=True))
        file = self.folder / "model.weights.h5"
        command = self._command("weights", file, {"--weights": given})
        measure(command, self.folder / "weights.log", {})
        return str(file)

    def _corpus(self, rows: int) -> Corpus:
        options = self.options
        column = pq.read_table(options.input, columns=[options.content]).column(0)
        order = np.random.default_rng(0).permutation(options.rows)[:rows]
        ids = pa.array(np.arange(rows))
        table = pa.table({options.id: ids, options.content: column.take(order % len(column))})
        path = self.folder / f"input-{rows}.parquet"
        pq.write_table(table, path, row_group_size=max(1, -(-rows // _ROW_GROUPS)))
        return Corpus(path, rows)


def read_answer(path: Path, key: str, rows: int, peer: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids ascending (n,), vectors (n, d). Ends the program unless every row has a vector."""
    table = pq.read_table(path, columns=[key, "embedding"]).sort_by(key)
    embedding = table.column("embedding").combine_chunks()
    if len(table) != rows or embedding.null_count:
        sys.exit(f"{peer} gave {len(table)} rows, {embedding.null_count} null, for {rows} rows")
    return table.column(key).to_numpy(), np.stack(embedding.to_numpy(zero_copy_only=False))


def difference(
    expected: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], peer: str
) -> float:
    """The largest over all rows of max |expected - found| / max |expected|."""
    if not np.array_equal(expected[0], found[0]) or expected[1].shape != found[1].shape:
        sys.exit(f"{peer} gave other ids or another dimension than Ember")
    if not (np.isfinite(expected[1]).all() and expected[1].any(axis=1).all()):
        sys.exit("Ember gave vectors that are zero or not finite; these weights compare nothing")
    gap = np.abs(expected[1] - found[1]).max(axis=1) / np.abs(expected[1]).max(axis=1)
    return float(np.nan_to_num(gap, nan=np.inf).max())


@dataclass(frozen=True)
class Figures:
    """What one peer came to: medians over the rounds. None: too noisy to say."""

    seconds: float | None
    rate: float | None
    steady: float | None
    startup: float | None
    worker_mib: float | None
    tree_mib: float | None
    difference: float


def figures(results: list[Result], peer: str, rows: int) -> Figures:
    """The figures of `peer` from all its runs, where the whole run has `rows` rows."""
    own = [result for result in results if result.peer == peer]
    whole = [result for result in own if result.rows == rows]
    steady = middle(_steady(own))
    seconds = middle(result.measured.seconds for result in whole)
    return Figures(
        seconds=seconds,
        rate=middle(rows / result.measured.seconds for result in whole),
        steady=steady,
        startup=seconds - rows / steady if seconds and steady else None,
        worker_mib=middle(result.measured.worker_mib for result in whole),
        tree_mib=middle(result.measured.tree_mib for result in whole),
        difference=max(result.difference for result in own),
    )


def _steady(results: list[Result]) -> Iterator[float | None]:
    """Rows per second between the small and the large run of each round."""
    rounds: dict[int, list[Result]] = {}
    for result in results:
        rounds.setdefault(result.round, []).append(result)
    for pair in rounds.values():
        small, *_, large = sorted(pair, key=lambda result: result.rows)
        seconds = large.measured.seconds - small.measured.seconds
        yield (large.rows - small.rows) / seconds if seconds > 0 else None


def startup_phases(results: list[Result], rows: int) -> dict[str, float]:
    """Seconds of Ember's whole run by phase (medians), with what lies outside its phases.

    "load" is part of "embed": the model's load in each worker, its library's import included.
    """
    whole = [result for result in results if result.peer == "ember" and result.rows == rows]
    phases = {
        name: round(middle(result.phases[name] for result in whole) or 0, 2)
        for name in whole[0].phases
    }
    loads = (result.task_seconds.get("load", 0) / max(1, result.workers) for result in whole)
    phases["load, mean of the workers"] = round(middle(loads) or 0, 2)
    outside = (result.measured.seconds - sum(result.phases.values()) for result in whole)
    phases["outside the phases"] = round(middle(outside) or 0, 2)
    return phases


def ratios(summary: dict[str, Figures]) -> dict[str, dict[str, float | None]]:
    """Ember's figure over each peer's: more is better for rates, less for memory and start-up."""
    own = summary["ember"]
    names = ("rate", "steady", "startup", "worker_mib", "tree_mib")
    return {
        peer: {name: _ratio(getattr(own, name), getattr(other, name)) for name in names}
        for peer, other in summary.items()
        if peer != "ember"
    }


def _ratio(own: float | None, other: float | None) -> float | None:
    return own / other if own is not None and other else None


def report(bench: Bench, about: dict[str, Any]) -> dict[str, Any]:
    """Print the tables; return everything for the JSON file."""
    rows = bench.options.rows
    summary = {peer: figures(bench.results, peer, rows) for peer in PEERS}
    against = ratios(summary)
    phases = startup_phases(bench.results, rows)
    print(
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB; "
        f"{bench.options.model}, {rows} rows, medians of {bench.options.repeat}\n"
    )
    head = ["", "whole s", "rows/s", "steady rows/s", "start-up s", "worker MiB", "all MiB", "diff"]
    print(
        formatted(head, [[PEERS[peer], *asdict(each).values()] for peer, each in summary.items()])
    )
    head = ["Ember over", "rows/s", "steady rows/s", "start-up", "worker MiB", "all MiB"]
    print("\n" + formatted(head, [[PEERS[peer], *each.values()] for peer, each in against.items()]))
    print("\n" + formatted(["Ember's whole run by phase", "s"], list(phases.items())))
    return {
        "machine": about,
        "options": {key: str(value) for key, value in vars(bench.options).items()},
        "versions": {name: version(name) for name in ("pyspark", "tensorflow", "keras", "torch")},
        "medians": {peer: asdict(each) for peer, each in summary.items()},
        "ember_over": against,
        "ember_phases": phases,
        "runs": [asdict(result) for result in bench.results],
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, help="Parquet of encoded images, or of texts")
    add("--text", action="store_true", help="texts, with an hf: encoder folder as --model")
    add("--id", default="image_id", help="what the id column is called")
    add("--content", default="content", help="the column of image bytes or texts")
    add("--rows", type=int, default=400)
    add("--repeat", type=int, default=2, help="rounds")
    add("--model", default="keras:ResNet50", help="keras:NAME, or with --text hf:FOLDER")
    add("--weights", default="random", help="random, imagenet, or a file saved without the top")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="further settings of Ember")
    add("--tolerance", type=float, default=1e-4)
    add("--partitions-per-core", type=int, default=2, help="of the Spark peers")
    add("--peer-python", default=sys.executable, help="the interpreter that runs the peers")
    add("--out", type=Path, help="a JSON file for every figure")
    options = parser.parse_args()
    family, _, name = options.model.partition(":")
    if options.text and (family != "hf" or not Path(name).is_dir()):
        parser.error("--text needs --model hf:FOLDER, a transformers folder on this machine")
    if not options.text and (family != "keras" or name not in KERAS_INPUT_SIZE):
        parser.error("images need --model keras:NAME, with a name of keras.applications")
    if options.rows < 8 or options.repeat < 1:
        parser.error("at least 8 rows and one round are needed")
    return options


def main() -> None:
    options = parse_options()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="ember-bench-") as folder:
        bench = Bench(options, Path(folder))
        bench.rounds()
    everything = report(bench, about)
    if options.out:
        options.out.write_text(json.dumps(everything, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
