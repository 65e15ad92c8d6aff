"""What `join --dry-run` foretells of a table joined with itself, against the run.

    python scripts/bench/forecast.py --vectors minilm.npy --rows 200000 1000000 --out forecast.json

The vectors (an .npy matrix of real embeddings) are enlarged as in similarity_kernel.py. Of each
number of rows: pairs, seconds without the session's start, and the peaks of a worker's memory, of
the disk beside the output and of the node's own, foretold and seen. Both cores should be free.
Writes forecast.json and, of several numbers of rows, forecast.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from measure import Watch, formatted, machine, measure
from similarity import THRESHOLD
from similarity_kernel import enlarge

FORETELL = """
import json, sys
from dataclasses import asdict
from ember.comparison.forecast import forecast_join
from ember.spark.session import spark_session
with spark_session("benchmark") as spark:
    told = forecast_join(spark.read.parquet(sys.argv[1]), None, "cosine", float(sys.argv[2]))
    print("FORETOLD", json.dumps(asdict(told)))
"""
CHUNK = 250_000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vectors", required=True, help=".npy matrix of real embeddings")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--folder", help="where tables go; a temporary folder by default")
    parser.add_argument("--out", default="forecast.json")
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "threshold": THRESHOLD, "runs": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for count in args.rows:
            told, seen = compared(np.load(args.vectors), count, Path(folder, str(count)))
            report["runs"].append({"rows": count, "foretold": told, "seen": seen})
            rows = [[what, told[what], seen[what], told[what] / seen[what]] for what in seen]
            head = [f"{count} rows", "foretold", "seen", "ratio"]
            print(formatted(head, rows), flush=True)
            Path(args.out).write_text(json.dumps(report, indent=2) + "\n")
    if len(report["runs"]) > 1:
        plot(report["runs"], Path(args.out).with_suffix(".png"))
    return 0


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Seconds and pairs found against rows, all logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = np.array([float(run["rows"]) for run in runs])
    figure, every = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axes, what in zip(every, ("seconds", "pairs"), strict=True):
        for name, style in (("seen", "o-"), ("foretold", "x--")):
            axes.loglog(rows, [run[name][what] for run in runs], style, label=name)
        last = runs[-1]["seen"][what]
        axes.loglog(rows, last * (rows / rows[-1]) ** 2, ":", label="slope of rows squared")
        axes.set(xlabel="rows joined with themselves", ylabel=what, xticks=rows)
        axes.set_xticklabels([f"{int(count) // 1000}k" for count in rows])
        axes.minorticks_off()
        axes.legend()
    figure.savefig(path, dpi=120)


def compared(
    vectors: np.ndarray, count: int, folder: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """What is foretold of a join of so many rows, and what is seen."""
    folder.mkdir(parents=True)
    source = folder / "rows.parquet"
    write(chunks(vectors, count), source)
    log, output, local = folder / "log", folder / "out" / "pairs", folder / "local"
    measure([sys.executable, "-c", FORETELL, str(source), str(THRESHOLD)], log, {})
    line = next(line for line in log.read_text().splitlines() if line.startswith("FORETOLD "))
    told = json.loads(line.partition(" ")[2])
    job = str(Path(__file__).resolve().parents[2] / "jobs/join.py")
    given = {"left.path": source, "left.id": "id", "threshold": THRESHOLD, "output.path": output}
    given["limits.max_pairs"] = 10**12
    settings = [f"--set={key}={value}" for key, value in given.items()]
    watch = Disk(output.parent, local)
    watch.start()
    run = measure([sys.executable, job, *settings], log, {"SPARK_LOCAL_DIRS": str(local)})
    watch.stop()
    manifest = json.loads((output / "_manifest.json").read_text())
    spent = manifest["seconds"]
    seen = {
        "pairs": manifest["counts"]["rows"],
        "seconds": sum(spent[phase] for phase in ("pack", "join", "merge")),
        "memory": run.worker_mib * 2**20,
        "scratch": watch.peaks[0],
        "node": watch.peaks[1],
    }
    return told, seen


class Disk(Watch):
    """The most bytes that were in some folders at once."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(os.getpid(), every=1.0)
        self.folders = folders
        self.peaks = [0] * len(folders)

    def look(self) -> None:
        sizes = [sum(_sizes(folder)) for folder in self.folders]
        self.peaks = list(map(max, self.peaks, sizes))


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it has just been deleted
                yield Path(place, name).stat().st_size


def chunks(vectors: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for number, start in enumerate(range(0, count, CHUNK)):
        yield enlarge(vectors, min(CHUNK, count - start), 1, number)[0]


def write(matrices: Iterator[np.ndarray], path: Path) -> None:
    """Vectors as Parquet, with their numbers as ids."""
    kind = pa.schema([("id", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    first = 0
    with pq.ParquetWriter(path, kind) as writer:
        for matrix in matrices:
            offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
            column = pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)))
            ids = pa.array(np.arange(first, first + len(matrix)))
            writer.write_table(pa.table([ids, column], schema=kind), row_group_size=10_000)
            first += len(matrix)


if __name__ == "__main__":
    sys.exit(main())
