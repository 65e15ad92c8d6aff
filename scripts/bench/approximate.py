"""Approximate against exact search by Spark jobs, on the same vectors: recall, pairs, CPU seconds.

    python scripts/bench/approximate.py --vectors minilm.npy --queries 20000 --rows 200000

The vectors (an .npy matrix of real embeddings) are enlarged with their spectrum kept; see
similarity_kernel.py. Both searches are run whole by `jobs/search.py`, in sessions of their own. The
recall over all queries is counted against the exact job's answer and compared with the interval
that the approximate job measured on its sample. CPU seconds are those of Spark's Python workers and
of all processes of the job, from the kernel's own accounts, so that other load on the machine does
not count; start-up, reading and packing are in them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import descendants, formatted, machine
from similarity_kernel import enlarge

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    args = _arguments()
    queries, corpus = enlarge(np.load(args.vectors), args.queries, args.rows, args.seed)
    result: dict[str, Any] = {"machine": machine(), **vars(args)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, rows in (("queries", queries), ("corpus", corpus)):
            _write(folder / f"{side}.parquet", rows)
        for mode in ("exact", "approximate"):
            result[mode] = _run(folder, mode, args)
        exact, found = (_ids(folder / mode) for mode in ("exact", "approximate"))
    told = result["approximate"]["search"]
    if told["mode"] == "exact":
        sys.exit(f"the approximate job searched exactly: {told['reason']}")
    shared = [len(np.intersect1d(*pair)) for pair in zip(exact, found, strict=True)]
    low, high = told["recall"]["interval_95"]
    recall = float(np.mean(shared) / args.k)
    result["recall_of_all_queries"] = recall
    result["inside_interval"] = low <= recall <= high
    _print(result)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if recall >= low and told["fraction_of_pairs_scored"] <= 0.2 else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vectors", required=True, help=".npy matrix of real embeddings")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args()


def _write(path: Path, rows: np.ndarray) -> None:
    flat = pa.array(rows.ravel())
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1])
    vectors = pa.ListArray.from_arrays(offsets, flat)
    table = pa.table({"id": np.arange(len(rows)), "embedding": vectors})
    pq.write_table(table, path, row_group_size=20_000)


def _run(folder: Path, mode: str, args: argparse.Namespace) -> dict[str, Any]:
    """The manifest of one job, and the CPU seconds of all its processes."""
    settings = {
        "queries.path": folder / "queries.parquet", "queries.id": "id",
        "corpus.path": folder / "corpus.parquet", "corpus.id": "id",
        "k": args.k, "mode": mode, "recall": args.recall, "output.path": folder / mode,
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "jobs" / "search.py")]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    process = subprocess.Popen(command)
    used: dict[int, float] = {}
    workers: set[int] = set()
    while process.poll() is None:
        for pid, name, below_java in descendants(process.pid):
            used[pid] = max(used.get(pid, 0.0), _cpu_seconds(pid))
            if below_java and name.startswith("python"):
                workers.add(pid)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the {mode} job failed; its message is above")
    manifest: dict[str, Any] = json.loads((folder / mode / "_manifest.json").read_text())
    return {
        "seconds": manifest["seconds"],
        "worker_cpu_seconds": sum(used[pid] for pid in workers),
        "cpu_seconds": sum(used.values()),
        "search": manifest.get("search"),
    }


def _cpu_seconds(pid: int) -> float:
    """Of a process so far, in user and system mode; 0 when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0.0
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ids(folder: Path) -> np.ndarray:
    """(q, k) neighbors of the queries in order."""
    table = pq.read_table(folder).sort_by([("query_id", "ascending"), ("rank", "ascending")])
    ids: np.ndarray = table["neighbor_id"].to_numpy().reshape(-1, table["rank"].to_numpy().max())
    return ids


def _print(result: dict[str, Any]) -> None:
    exact, found = result["exact"], result["approximate"]
    told = found["search"]
    low, high = told["recall"]["interval_95"]
    rows = [
        ["pairs scored, share of all", 1.0, told["fraction_of_pairs_scored"]],
        ["in lists alone", 1.0, told["fraction_scanned"]],
        *(
            [f"{name} s", exact[name], found[name]]
            for name in ("worker_cpu_seconds", "cpu_seconds")
        ),
        ["wall s", *(sum(run["seconds"].values()) for run in (exact, found))],
    ]
    table = [[*row, row[1] / row[2]] for row in rows]
    print(formatted(["", "exact", "approximate", "ratio"], table))
    print(
        f"{told['probes']} of {told['lists']} lists; recall measured on "
        f"{told['recall']['on_queries']} queries {told['recall']['measured']:.4f} "
        f"[{low:.4f}, {high:.4f}]; on all {result['queries']}: "
        f"{result['recall_of_all_queries']:.4f}, inside: {result['inside_interval']}"
    )


if __name__ == "__main__":
    sys.exit(main())
