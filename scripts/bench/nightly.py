"""A nightly run with output.mode sync against a run over everything: its cost, and that both agree.

    python scripts/bench/nightly.py --rows 100000 --out nightly [--parts join,search,dedup]
        [--share 0.01] [--vectors minilm.npy] [--width 384]
    python scripts/bench/nightly.py --rows 100000 --out nightly --parts pipeline --encoder hf:FOLDER
        [--words agnews.parquet]

A table of so many rows; then --share of them change: half are new, a fifth are gone, and of the
rest the content is another. Each run is a process of its own: a first one with mode sync, one on
the changed table with mode sync, and one on the same table with mode overwrite, whose rows must be
the same. Seconds are those of the whole process, and of the run without its session.

join: the table with itself at a cosine of 0.85. search: the ten best of each row, without itself.
    The vectors are --vectors (an .npy matrix), enlarged as in similarity_kernel.py, or drawn from
    2,000 clusters with a falling spectrum.
dedup: short texts, a tenth of them copies with a word changed and a tenth in capitals. Their 30
    words are those of --words, a table with a column text, as often as there; else w0 to w49999.
pipeline: embed → dedup → search of such texts, as one pipeline that is run twice.

Adds to nightly.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from measure import formatted, machine, measure
from similarity_kernel import enlarge

THRESHOLD, K, CLUSTERS = 0.85, 10, 2000
JOBS = Path(__file__).resolve().parents[2] / "jobs"
Rows = dict[int, Any]


@dataclass(frozen=True)
class Kind:
    """Rows of a kind: made by number, written as a table, and the job that reads it."""

    make: Callable[[int], list[Any]]
    write: Callable[[Rows, Path], None]
    job: str
    settings: dict[str, Any]
    parts: tuple[str, ...] = ("",)


def drawn_vectors(given: argparse.Namespace, count: int) -> list[Any]:
    if given.vectors:
        return list(enlarge(np.load(given.vectors), 0, count, 0)[1])
    rng = np.random.default_rng(0)
    spectrum = np.geomspace(1, 0.05, given.width)
    centers = rng.standard_normal((CLUSTERS, given.width)) * spectrum
    noise = rng.standard_normal((count, given.width)) * spectrum
    rows = centers[rng.integers(0, CLUSTERS, count)] + 0.6 * noise
    return list((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


def drawn_texts(given: argparse.Namespace, count: int) -> list[str]:
    drawn = random.Random(0)
    words = [f"w{number}" for number in range(50_000)]
    if given.words:
        words = " ".join(pq.read_table(given.words)["text"].to_pylist()).split()
    texts: list[str] = []
    for number in range(count):
        dice = number % 10
        text = drawn.choices(words, k=30)
        if number > 10 and dice < 2:
            text = texts[number - 5].split()
            text[3] = f"x{number}"
        texts.append(" ".join(text).upper() if dice == 1 else " ".join(text))
    return texts


def write_vectors(rows: Rows, folder: Path) -> None:
    matrix = np.stack(list(rows.values()))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    vectors = flat.cast(pa.list_(pa.float32()))
    write(pa.table({"id": list(rows), "embedding": vectors}), folder)


def write_texts(rows: Rows, folder: Path) -> None:
    write(pa.table({"id": list(rows), "text": list(rows.values())}), folder)


def write(table: pa.Table, folder: Path) -> None:
    """As four files."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(table) // 4)
    for part in range(4):
        pq.write_table(table.slice(part * size, size), folder / f"part-{part}.parquet")


def changed(rows: Rows, fresh: list[Any], share: float) -> Rows:
    """The table of the night after. fresh: content that is not in it yet."""
    drawn = random.Random(1)
    count = round(len(rows) * share)
    found = dict(rows)
    keys = drawn.sample(list(rows), count - count // 2)
    gone = set(keys[: count // 5])
    for key in keys:
        if key in gone:
            del found[key]
        else:
            found[key] = fresh.pop()
    for number in range(count // 2):
        found[len(rows) + number] = fresh.pop()
    return found


def run(job: str, settings: dict[str, Any], out: Path, mode: str) -> dict[str, Any]:
    """Seconds of a job in a process of its own, and its manifest."""
    values = {**settings, "output.path": out, "output.mode": mode}
    command = [sys.executable, str(JOBS / f"{job}.py")]
    command += [f"--set={key}={value}" for key, value in values.items()]
    measured = measure(command, out.with_suffix(".log"), {})
    manifest = json.loads((out / "_manifest.json").read_text("utf-8"))
    phases = manifest["seconds"]
    inner = sum(phases.values()) - phases["session"]
    told = {"seconds": round(measured.seconds, 1), "without_session": round(inner, 1)}
    return {**told, "phases": phases, "work": manifest.get("work"), "sync": manifest.get("sync")}


def content(out: Path, parts: tuple[str, ...]) -> list[pa.Table]:
    tables = [pq.read_table(out / part) for part in parts]
    return [table.sort_by([(name, "ascending") for name in table.column_names]) for table in tables]


def measured(kind: Kind, count: int, share: float, folder: Path) -> dict[str, Any]:
    made = kind.make(round(count * (1 + share)) + 1)
    rows = dict(enumerate(made[:count]))
    source, out, full = (folder / name for name in ("in", "out", "full"))
    settings = {
        key: str(value).replace("SOURCE", str(source)) for key, value in kind.settings.items()
    }
    kind.write(rows, source)
    told = {"first": run(kind.job, settings, out, "sync")}
    kind.write(changed(rows, made[count:], share), source)
    told["nightly"] = run(kind.job, settings, out, "sync")
    told["full"] = run(kind.job, settings, full, "overwrite")
    same = content(out, kind.parts) == content(full, kind.parts)
    if not same:
        sys.exit(f"{kind.job}: the two tables are not the same")
    return told | {"rows": count, "share": share}


def kinds(given: argparse.Namespace) -> dict[str, Kind]:
    def vectors(count: int) -> list[Any]:
        return drawn_vectors(given, count)

    def texts(count: int) -> list[str]:
        return drawn_texts(given, count)

    both = {"id": "id", "path": "SOURCE"}
    join = {f"left.{key}": value for key, value in both.items()} | {"threshold": THRESHOLD}
    search = {f"queries.{key}": value for key, value in both.items()}
    search |= {"k": K, "exclude_self": "true"}
    dedup = {f"input.{key}": value for key, value in both.items()}
    dedup |= {"input.content": "text", "input.modality": "text", "report": "false"}
    return {
        "join": Kind(vectors, write_vectors, "join", join),
        "search": Kind(vectors, write_vectors, "search", search),
        "dedup": Kind(texts, write_texts, "dedup", dedup, ("kept", "removed")),
    }


def pipeline(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of each step of a pipeline, on a table and on the table of the night after."""
    source, out = folder / "in", folder / "out"
    texts = {"path": str(source), "id": "id", "content": "text", "modality": "text"}
    vectors = {"path": "$embed", "id": "id"}
    how = {"mode": "sync"}
    steps = {
        "embed": {"job": "embed", "input": texts, "model": {"name": given.encoder}},
        "dedup": {"job": "dedup", "input": texts, "report": False},
        "search": {"job": "search", "queries": vectors, "k": K, "exclude_self": True},
    }
    for name, step in steps.items():
        step["output"] = {"path": str(folder / name), **how}
    config = folder / "pipeline.yaml"
    config.write_text(yaml.safe_dump({"steps": steps, "output": {"path": str(out)}}), "utf-8")
    command = [sys.executable, str(JOBS / "pipeline.py"), f"--config={config}"]
    made = drawn_texts(given, round(given.rows * (1 + given.share)) + 1)
    rows = dict(enumerate(made[: given.rows]))
    told: dict[str, Any] = {"rows": given.rows, "share": given.share}
    for night in ("first", "nightly"):
        write_texts(rows, source)
        spent = measure(command, folder / f"{night}.log", {})
        manifests = {
            name: json.loads((folder / name / "_manifest.json").read_text("utf-8"))
            for name in steps
        }
        told[night] = {"seconds": round(spent.seconds, 1)} | {
            name: {key: each.get(key) for key in ("seconds", "sync", "work", "counts")}
            for name, each in manifests.items()
        }
        rows = changed(rows, made[given.rows :], given.share)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--vectors")
    parser.add_argument("--words")
    parser.add_argument("--encoder")
    parser.add_argument("--parts", default="join,search,dedup")
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    file = Path(f"{given.out}.json")
    report = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name in given.parts.split(","):
        with tempfile.TemporaryDirectory(prefix="ember-nightly-") as folder:
            if name == "pipeline":
                told = pipeline(given, Path(folder))
            else:
                told = measured(kinds(given)[name], given.rows, given.share, Path(folder))
        report[name] = told | {"machine": machine()}
        file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        print(name, json.dumps(told, indent=1), file=sys.stderr, flush=True)
    head = ["job", "rows", "first s", "nightly s", "full s", "share"]
    lines = [
        [
            name,
            each["rows"],
            *(each[night]["without_session"] for night in ("first", "nightly", "full")),
        ]
        for name, each in report.items()
        if name != "pipeline"
    ]
    print(formatted(head, [[*line, line[3] / line[4]] for line in lines]))


if __name__ == "__main__":
    main()
