"""Ember's `embed` and `classify` against the usual ways to do it, in turn, on one machine.

    scripts/bench/peers                        # once: the environment of the others
    python scripts/bench/embed.py --data FOLDER --out embed.json
    python scripts/bench/embed.py --data FOLDER --out embed.json --case image-hf --rounds 3 \\
        --variant int8 model.precision=int8 --only openvino

How it is measured:

- Cases, contestants and rows are the table of embed_cases.py; how each contestant works is in
  embed_peers.py, and its versions are in the output. Ember is `python jobs/embed.py` with its
  defaults, as a user starts it; a `--variant` is the same with further settings.
- All read one Parquet file and the same weights, have the same cores, compute in float32 (but for
  variants that say otherwise) and write Parquet. The input is enlarged to the number of rows so
  that no two rows are equal. What OpenVINO loops and sentence-transformers convert once and keep
  is made beforehand, as Ember keeps what it converts; the seconds of Ember's first run are given.
- Each run is a process of its own, timed from its start until it has ended. In a round each
  contestant runs once over all rows, another one first each time; before the odd rounds each runs
  over an eighth of the rows. Steady rates and ratios come from both: embed_summary.py says how.
- Every answer is held against Ember's, id by id. Where one agrees less than the case allows, the
  table says so and the exit code is 1. How a variant agrees is a figure of its own.
- What is not installed, fails or takes longer than `--limit` is named and left out.

It must have the machine for itself. The JSON file keeps its other cases, so that cases can be run
one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from embed_answers import agreement, answer
from embed_cases import CASES, LABELS, NEEDS, Case, write_corpora
from embed_environment import importable, versions
from embed_limit import product_gflops
from embed_peers import PEERS
from embed_summary import disagreeing, markdown
from measure import instruction_sets, machine, measure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Nothing is looked for on the hub, and nobody counts uses.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}
_SMALL = 8


class Bench:
    """One case: its inputs and models in a folder, and the runs done so far."""

    def __init__(
        self, name: str, options: argparse.Namespace, found: set[str], folder: Path
    ) -> None:
        self.name, self.options, self.found, self.folder = name, options, found, folder
        self.case: Case = CASES[name]
        self.rows = options.rows or self.case.rows
        self.small = self.rows // _SMALL
        self.inputs = write_corpora(self.case, options.data, [self.small, self.rows], folder)
        self.variants: dict[str, list[str]] = {"ember": []}
        self.variants |= {variant: sets for variant, *sets in options.variant}
        self.missing: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.first: dict[str, float] = {}
        self.agreement: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Everything; returns what the JSON file says of the case."""
        about = self._models()
        contestants = self._contestants()
        for variant in self.variants:  # the caches are empty: what is converted is kept in them
            self.first[variant] = self._run(variant, -1, self.small)["seconds"]
            self._run(variant, 0, self.small)  # at whose end Java's classes are archived
        for number in range(1, self.options.rounds + 1):
            turn = number % len(contestants)
            order = contestants[turn:] + contestants[:turn]
            for rows in (self.small, self.rows) if number % 2 else (self.rows,):
                self._round(order, number, rows)
        for variant in self.variants:
            later = [run["seconds"] for run in self.runs if self._is_small(run, variant)]
            self.first[variant] -= median(later)
        return self._result(about)

    def _is_small(self, run: dict[str, Any], contestant: str) -> bool:
        return (run["contestant"], run["rows"]) == (contestant, self.small)

    def _result(self, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "title": self.case.title,
            "rows": self.rows,
            "small_rows": self.small,
            "rounds": self.options.rounds,
            **about,
            "settings": self.variants,
            "labels": {**{each: _label(each) for each in self.variants}, **LABELS},
            "first": self.first,
            "agreement": self.agreement,
            "least_agreement": self.case.agreement,
            "missing": self.missing,
            "runs": self.runs,
        }

    def _models(self) -> dict[str, Any]:
        """Make the models of the case; what is known of them."""
        self._say("the models are made")
        given = {"--input": self.inputs[self.rows], "--content": self.case.content}
        given |= {"--output": self.folder / "models"}
        given |= {"--source": self.case.source(self.options.data)}
        self._script("embed_models.py", [self.name], given, self.folder / "models.log")
        about = json.loads((self.folder / "models" / "about.json").read_text("utf-8"))
        about.pop("labels", None)
        return about

    def _contestants(self) -> list[str]:
        """Who takes part, Ember and its variants first; others are noted as missing."""
        wanted = self.options.only or self.case.contestants
        chosen = [each for each in PEERS[self.name] if each in wanted]
        present = []
        for each in chosen:
            absent = [module for module in self._needs(each) if module not in self.found]
            if absent:
                self.missing[each] = f"not installed ({', '.join(absent)})"
                self._say(f"{LABELS[each]}: {self.missing[each]}")
            else:
                present.append(each)
        return [*self.variants, *present]

    def _needs(self, contestant: str) -> tuple[str, ...]:
        if self.name == "image-keras" and contestant == "library":
            return ("tensorflow",)
        return NEEDS[contestant]

    def _round(self, order: list[str], number: int, rows: int) -> None:
        outputs = {}
        for contestant in order:
            if contestant in self.missing:
                continue
            try:
                run = self._run(contestant, number, rows)
            except SystemExit as error:
                if contestant in self.variants:
                    raise
                self.missing[contestant] = f"failed or took more than {self.options.limit} s"
                self._say(f"{LABELS[contestant]}: {self.missing[contestant]}\n{error}")
                continue
            self.runs.append(run)
            outputs[contestant] = self._output(contestant, number, rows)
        self._compare(outputs, rows)

    def _output(self, contestant: str, number: int, rows: int) -> Path:
        return self.folder / f"{contestant}-{number}-{rows}"

    def _run(self, contestant: str, number: int, rows: int) -> dict[str, Any]:
        out = self._output(contestant, number, rows)
        log = out.with_suffix(".log")
        if contestant in self.variants:
            environment = {**_OFFLINE, "EMBER_CACHE": str(self.folder / f"cache-{contestant}")}
            measured = measure(self._ember(contestant, rows, out), log, environment)
            manifest = json.loads((out / "_manifest.json").read_text("utf-8"))
            kept = ("seconds", "task_seconds", "workers", "model")
            more: dict[str, Any] = {"manifest": {key: manifest.get(key) for key in kept}}
        else:
            given = {"--input": self.inputs[rows], "--output": out, "--id": "id"}
            given |= {"--content": self.case.content, "--folder": self.folder / "models"}
            measured = self._script("embed_peers.py", [self.name, contestant], given, log)
            more = {}
        self._say(f"round {number}, {rows} rows, {_label(contestant)}: {measured.seconds:.1f} s")
        return {"contestant": contestant, "round": number, "rows": rows, **asdict(measured), **more}

    def _ember(self, variant: str, rows: int, out: Path) -> list[str]:
        models = self.folder / "models"
        settings = {
            "input.path": self.inputs[rows],
            "input.id": "id",
            "input.content": self.case.content,
            "input.modality": self.case.modality,
            "model.name": self.case.model.format(folder=models),
            "output.path": out,
        }
        if self.case.weights:
            settings["model.weights"] = self.case.weights.format(folder=models)
        given = [f"{key}={value}" for key, value in settings.items()] + self.variants[variant]
        sets = [part for each in given for part in ("--set", each)]
        return [sys.executable, str(ROOT / "jobs" / f"{self.case.job}.py"), *sets]

    def _script(self, name: str, first: list[str], given: dict[str, Any], log: Path) -> Any:
        flat = [str(part) for pair in given.items() for part in pair]
        command = [self.options.peer_python, str(HERE / name), *first, *flat]
        return measure(command, log, _OFFLINE, self.options.limit)

    def _compare(self, outputs: dict[str, Path], rows: int) -> None:
        """Note how each answer agrees with Ember's, at the worst of all its runs."""
        own = answer(outputs.pop("ember"), rows)
        for contestant, path in outputs.items():
            found = agreement(own, answer(path, rows))
            self.agreement[contestant] = min(found, self.agreement.get(contestant, 1.0))

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


def _label(contestant: str) -> str:
    if contestant in LABELS:
        return LABELS[contestant]
    return "Ember" if contestant == "ember" else f"Ember, {contestant}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    peers = ROOT / ".bench-venv" / "bin" / "python"
    add = parser.add_argument
    add("--data", type=Path, default=os.environ.get("EMBER_TEST_DATA"), help="see embed_cases.py")
    add("--case", nargs="+", choices=CASES, default=list(CASES), help="all by default")
    add(
        "--only",
        nargs="+",
        choices=LABELS,
        help="these contestants beside Ember, in place of each case's own",
    )
    add("--rounds", type=int, default=2)
    add("--rows", type=int, help="in place of each case's own number")
    add(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME KEY=VALUE",
        help="a further run of Ember with these settings; may be given again",
    )
    add("--limit", type=float, default=900, help="seconds that a contestant may take")
    add("--peer-python", default=str(peers if peers.exists() else sys.executable))
    add("--out", type=Path, help="the JSON file, whose other cases are kept")
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        parser.error("--data (or EMBER_TEST_DATA) has to name the folder of the corpora")
    if options.rounds < 1 or (options.rows is not None and options.rows < 2 * _SMALL):
        parser.error(f"at least one round and {2 * _SMALL} rows are needed")
    for name, *sets in options.variant:
        if name in ("ember", *LABELS) or not all("=" in each for each in sets):
            parser.error(f"--variant {name}: a name of its own, then settings as KEY=VALUE")
    return options


def main() -> None:
    options = parse_options()
    about = {**machine(), "instructions": instruction_sets(), "gflops": product_gflops()}
    needs = {"tensorflow", *(module for each in NEEDS.values() for module in each)}
    modules = importable(options.peer_python, needs)
    kept: dict[str, Any] = {"cases": {}}
    if options.out and options.out.exists():
        kept = json.loads(options.out.read_text("utf-8"))
    for name in options.case:
        with tempfile.TemporaryDirectory(prefix="ember-bench-") as folder:
            case = Bench(name, options, modules, Path(folder)).run()
        case["machine"] = about
        case["versions"] = {
            "ember": versions(sys.executable),
            "peers": versions(options.peer_python),
        }
        kept["cases"][name] = case
        print(markdown(case) + "\n", flush=True)
        if options.out:
            options.out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    if any(disagreeing(kept["cases"][name]) for name in options.case):
        sys.exit(1)


if __name__ == "__main__":
    main()
