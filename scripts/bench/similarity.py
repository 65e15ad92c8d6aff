"""Whole search and join jobs: against the kernel alone, against nearestByJoin, by size, in memory.

    python scripts/bench/similarity.py --vectors minilm.npy --out similarity
        [--parts kernel,spark,cost,memory,within] [--queries 20000] [--rows 200000]

The vectors (an .npy matrix of real embeddings) are enlarged as in similarity_kernel.py, which has
the comparison with faiss. Writes similarity.json and, for the cost by rows, similarity.png.

kernel: the job's phases `pack` and the comparison itself, from its manifest, against the kernel on
    blocks of the same size and as many threads: its comparison alone, and with the making of blocks
    of a matrix in memory, which the job's comparison includes. Medians of --rounds: of the kernel
    when it has done the same once before, of the job in a session that has done it twice before
    (its workers run, its classes are loaded and compiled); beside them the session's first run.
spark: row pairs per second of a search job and of Spark's nearestByJoin, both on all cores; the
    latter on fewer rows, since it compares all of them in the JVM.
cost: seconds of a join of a table with itself for 10, 20, 50, 100 and 200 thousand rows.
memory: the largest peak of a worker in a join of --rows x 768 values with itself.
within: a join of --rows with themselves in groups of two; where half of the rows are one group and
    the others a thousand; and without groups. The pairs are counted by the kernel, group by group.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from measure import Measured, formatted, machine, measure
from similarity_kernel import enlarge

from ember.comparison.vector_files import block_rows
from ember.worker.vectors import (
    filter_choice,
    fit_basis,
    join_basis,
    prepare,
    threshold_pairs,
    top_k,
)
from ember.worker.vectors.basis import Basis
from ember.worker.vectors.block import Block

SESSION = """
import importlib, json, sys
from ember.spark.session import spark_session
main = importlib.import_module(f"ember.jobs.{sys.argv[1]}").main
with spark_session("benchmark"):
    sys.exit(max(main(arguments) for arguments in json.loads(sys.argv[2])))
"""
COSTS = (10_000, 20_000, 50_000, 100_000, 200_000)
THRESHOLD, K = 0.85, 10
NEAREST = """
import sys, time
from pyspark.sql import SparkSession, functions as F
spark = SparkSession.builder.config("spark.ui.enabled", "false").getOrCreate()
left = spark.read.parquet(sys.argv[1]).toDF("query_id", "asked")
right = spark.read.parquet(sys.argv[2]).toDF("neighbor_id", "there").cache()
right.count()
score = "aggregate(zip_with(asked, there, (x, y) -> x * y), 0D, (s, x) -> s + x)"
start = time.perf_counter()
found = left.nearestByJoin(right, F.expr(score), 10, mode="exact", direction="similarity")
rows = found.select("query_id", "neighbor_id").collect()
print("SECONDS", time.perf_counter() - start)
import json
json.dump([[r[0], r[1]] for r in rows], open(sys.argv[3], "w"))
"""


def main() -> int:
    args = _arguments()
    vectors = np.load(args.vectors)
    report: dict[str, Any] = {"machine": machine(), "threshold": THRESHOLD, "k": K}
    parts = {"kernel": kernel, "spark": spark, "cost": cost, "memory": memory, "within": within}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.parts.split(","):
            report[name] = parts[name](vectors, args, Path(folder))
            print(f"\n{name}\n{formatted(report[name]['head'], report[name]['rows'])}")
    if "cost" in report:
        plot(report["cost"], Path(f"{args.out}.png"))
    Path(f"{args.out}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vectors", required=True, help=".npy matrix of real embeddings")
    parser.add_argument("--parts", default="kernel,spark,cost,memory")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="similarity", help="where the figures go, without ending")
    return parser.parse_args()


def kernel(vectors: np.ndarray, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The job's speed as a share of the kernel's."""
    queries, corpus = enlarge(vectors, args.queries, args.rows, args.seed)
    files = table(queries, folder / "queries"), table(corpus, folder / "corpus")
    rows = []
    for name, compare in (("join", _join), ("search", _search)):
        alone = [_alone(compare, queries, corpus) for _ in range(1 + args.rounds)][1:]
        making, seconds, found = (float(each) for each in np.median(alone, axis=0))
        manifests = run(name, files, folder, times=2 + args.rounds)["manifests"]
        if any(each["counts"]["rows"] != found for each in manifests):
            told = [each["counts"]["rows"] for each in manifests]
            sys.exit(f"the {name} jobs have {told} rows, not {found:.0f}")
        phases = [[each["seconds"][phase] for phase in ("pack", name)] for each in manifests]
        for session, spent in (("new", phases[0]), ("warm", np.median(phases[2:], axis=0))):
            shares = np.array([seconds, making + seconds]) / sum(spent)
            rows.append([name, session, *map(float, (*spent, seconds, making, *shares))])
    head = ["job", "session", "packing s", "comparison s", "kernel s", "its blocks s"]
    head += ["kernel/job", "with blocks"]
    return {"head": head, "rows": rows, "queries": args.queries, "corpus": args.rows}


def _alone(
    compare: Callable[[list[Block], list[Block]], int], queries: np.ndarray, corpus: np.ndarray
) -> tuple[float, float, int]:
    """Seconds to make blocks of two matrices, seconds to compare them, and rows of the result."""
    filter_choice.measure(corpus.shape[1])
    start = time.perf_counter()
    joins = compare is _join
    basis = join_basis(corpus, "cosine", THRESHOLD) if joins else fit_basis(corpus, "cosine")
    left, right = _blocks(queries, basis), _blocks(corpus, basis)
    made = time.perf_counter()
    found = compare(left, right)
    return made - start, time.perf_counter() - made, found


def _blocks(matrix: np.ndarray, basis: Basis) -> list[Block]:
    step = block_rows(matrix.shape[1])
    numbers = np.arange(len(matrix))
    return [
        prepare(matrix[at : at + step], "cosine", basis, ids=numbers[at : at + step])
        for at in range(0, len(matrix), step)
    ]


def _join(left: list[Block], right: list[Block]) -> int:
    threads = len(os.sched_getaffinity(0))
    return sum(
        len(pairs.score)
        for one in left
        for other in right
        for pairs in threshold_pairs(one, other, THRESHOLD, threads=threads)
    )


def _search(left: list[Block], right: list[Block]) -> int:
    threads = len(os.sched_getaffinity(0))
    return sum(int((top_k(one, right, K, threads=threads)[0] >= 0).sum()) for one in left)


def spark(vectors: np.ndarray, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Row pairs per second: the search job, and nearestByJoin on what it can do in some minutes."""
    rows = []
    few = 50, 20_000  # all pairs of vectors are sorted: more would fill the disk
    small = enlarge(vectors, *few, args.seed)
    files = table(small[0], folder / "few"), table(small[1], folder / "some")
    answer = folder / "nearest.json"
    code = folder / "nearest.py"
    code.write_text(NEAREST)
    log = folder / "nearest.log"
    command = [sys.executable, str(code), files[0], files[1], str(answer)]
    memory = "--driver-memory 6g pyspark-shell"
    measure(command, log, {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": memory})
    seconds = next(
        float(line.split()[1]) for line in log.read_text().splitlines() if line[:7] == "SECONDS"
    )
    job = run("search", files, folder)
    ours = pq.read_table(job["output"], columns=["query_id", "neighbor_id"]).to_pylist()
    theirs = {tuple(pair) for pair in json.loads(answer.read_text())}
    same = len(theirs & {(row["query_id"], row["neighbor_id"]) for row in ours}) / len(theirs)
    slow = few[0] * few[1] / seconds
    rows.append(["nearestByJoin", few[0], few[1], seconds, slow, 1.0])
    queries, corpus = enlarge(vectors, args.queries, args.rows, args.seed)
    files = table(queries, folder / "queries"), table(corpus, folder / "corpus")
    phases = run("search", files, folder)["manifests"][0]["seconds"]
    spent = phases["pack"] + phases["search"]
    fast = args.queries * args.rows / spent
    rows.append(["ember search", args.queries, args.rows, spent, fast, fast / slow])
    head = ["", "queries", "rows", "seconds", "pairs/s", "ratio"]
    return {"head": head, "rows": rows, "same_neighbors": same}


def cost(vectors: np.ndarray, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of a self-join by rows."""
    rows = []
    for count in COSTS:
        matrix, _ = enlarge(vectors, count, 1, args.seed)
        job = run("join", (table(matrix, folder / f"rows{count}"), None), folder)
        phases = job["manifests"][0]["seconds"]
        pairs = job["manifests"][0]["counts"]["rows"]
        seconds = phases["pack"] + phases["join"]
        rows.append([f"{count}", seconds, count * (count - 1) / 2 / seconds, pairs])
    return {"head": ["rows", "seconds", "row pairs/s", "pairs found"], "rows": rows}


def plot(report: dict[str, Any], path: Path) -> None:
    """Seconds against rows, both logarithmic, with the slope of a cross product."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = np.array([float(row[0]) for row in report["rows"]])
    seconds = np.array([row[1] for row in report["rows"]])
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.loglog(rows, seconds, "o-", label="ember join, packing included")
    axes.loglog(rows, seconds[-1] * (rows / rows[-1]) ** 2, ":", label="slope of rows squared")
    axes.set(xlabel="rows joined with themselves", ylabel="seconds", xticks=rows)
    axes.set_xticklabels([f"{int(count) // 1000}k" for count in rows])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=150)


def memory(vectors: np.ndarray, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Peak memory of a worker, for a quarter of the rows and for all of them."""
    wide = np.concatenate([vectors, vectors[:, ::-1]], axis=1)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    rows = []
    for count in (args.rows // 4, args.rows):
        matrix, _ = enlarge(wide, count, 1, args.seed)
        job = run("join", (table(matrix, folder / f"wide{count}"), None), folder)
        phases = job["manifests"][0]["seconds"]
        rows.append([f"{count} x {matrix.shape[1]}", job["measured"].worker_mib, phases["join"]])
    return {"head": ["rows", "worker MiB", "join s"], "rows": rows}


def within(vectors: np.ndarray, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of a self-join by groups."""
    matrix, _ = enlarge(vectors, args.rows, 1, args.seed)
    half, numbers = args.rows // 2, np.arange(args.rows)
    divided = {
        "of two": numbers // 2,
        "half and a thousand": np.where(numbers < half, 0, 1 + numbers % 1000),
        "none": None,
    }
    rows = []
    for name, groups in divided.items():
        file = table(matrix, folder / f"groups {name}", **({} if groups is None else {"g": groups}))
        more: dict[str, Any] = {} if groups is None else {"within": "[g]"}
        job = run("join", (file, None), folder, **more)["manifests"][0]
        pairs = _pairs_in_groups(matrix, np.zeros_like(numbers) if groups is None else groups)
        if job["counts"]["rows"] != pairs:
            sys.exit(f"the join in groups {name} has {job['counts']['rows']} rows, not {pairs}")
        rows.append([name, job["seconds"]["pack"], job["seconds"]["join"], pairs])
    return {"head": ["groups", "packing s", "comparison s", "pairs"], "rows": rows}


def _pairs_in_groups(matrix: np.ndarray, groups: np.ndarray) -> int:
    """Pairs of different rows of one group that reach the threshold."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    found = 0
    for rows in np.split(order, ends):
        some = matrix[rows]
        if len(rows) < 4096:
            above = (some @ some.T) >= np.float32(THRESHOLD)
            found += (int(above.sum()) - len(rows)) // 2
        else:
            every = _blocks(some, join_basis(some, "cosine", THRESHOLD))
            found += (_join(every, every) - len(rows)) // 2
    return found


def table(matrix: np.ndarray, path: Path, **more: np.ndarray) -> str:
    """Write vectors as Parquet, with their numbers as ids. more: other columns."""
    if not path.exists():
        offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
        column = pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1)))
        columns = {"id": pa.array(np.arange(len(matrix))), "embedding": column, **more}
        pq.write_table(pa.table(columns), path, row_group_size=10_000)
    return str(path)


def run(
    name: str,
    files: tuple[str, str | None],
    folder: Path,
    *,
    times: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """Run a job on two tables, or on one with itself; its manifests, memory and output.

    times: that it is run, in one session; the output is the last run's. more: settings.
    """
    outputs = [folder / f"{name}{number}.out" for number in range(times)]
    given = [f"--set={key}={value}" for key, value in more.items()]
    runs = [_settings(name, files, output) + given for output in outputs]
    command = [sys.executable, "-c", SESSION, name, json.dumps(runs)]
    measured: Measured = measure(command, folder / f"{name}.log", {})
    manifests = [json.loads((output / "_manifest.json").read_text()) for output in outputs]
    return {"manifests": manifests, "measured": measured, "output": outputs[-1]}


def _settings(name: str, files: tuple[str, str | None], output: Path) -> list[str]:
    sides = ("left", "right") if name == "join" else ("queries", "corpus")
    settings: dict[str, Any] = {"output.path": output, "output.mode": "overwrite"}
    settings |= {"threshold": THRESHOLD} if name == "join" else {"k": K}
    for side, file in zip(sides, files, strict=True):
        if file:
            settings |= {f"{side}.path": file, f"{side}.id": "id"}
    return [f"--set={key}={value}" for key, value in settings.items()]


if __name__ == "__main__":
    sys.exit(main())
