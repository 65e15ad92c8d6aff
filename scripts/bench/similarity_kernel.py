"""Ember's exact kernels against faiss, in turn, in one run, on the same vectors and threads.

    OMP_NUM_THREADS=1 python scripts/bench/similarity_kernel.py --threads 1 --clock cpu \
        --vectors minilm.npy --peer <python with faiss-cpu>

OMP_NUM_THREADS as --threads: OpenMP's idle threads spin, and count as work.

The vectors (an .npy matrix of real embeddings) are enlarged to the number of rows asked for by
mixing pairs of them, sqrt(1 - a) x + sqrt(a) y with a between 0.05 and 0.5: the second moments of
the mixture are those of the original, and near rows appear at all distances. Each round times
Ember and faiss one after the other, so that other load on the machine falls on both; the ratio is
the median over rounds. "kernel" is the search alone on prepared blocks, as a join repeats it;
"whole" includes fitting the basis and packing both sides.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from ember.worker.vectors import bounds, filter_choice, fit_basis, prepare, threshold_pairs, top_k


def main() -> int:
    args = _arguments()
    queries, corpus = enlarge(np.load(args.vectors), args.queries, args.rows, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(args, queries, corpus, Path(folder))
        ember = Ember(queries, corpus, args)
        jobs = {"range": ember.join, "top_k": ember.search}
        report = [compare(name, jobs[name], ember, peer, args) for name in args.jobs.split(",")]
        peer.close()
    result = {
        "queries": len(queries), "corpus": len(corpus), "dimension": queries.shape[1],
        "threads": args.threads, "clock": args.clock, "threshold": args.threshold, "k": args.k,
        "processor": platform.processor() or platform.machine(), "faiss": peer.version,
        "jobs": report,
    }  # fmt: skip
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'job':8}{'faiss s':>9}{'kernel s':>9}{'ratio':>7}{'whole s':>9}{'ratio':>7}  agree")
    for row in report:
        print(
            f"{row['job']:8}{row['faiss']:9.2f}{row['kernel']:9.2f}{row['kernel_ratio']:7.2f}"
            f"{row['whole']:9.2f}{row['whole_ratio']:7.2f}  {row['agreement']}"
        )
    return 0 if all(row["agrees"] for row in report) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vectors", required=True, help=".npy matrix of real embeddings")
    parser.add_argument("--peer", required=True, help="python interpreter that has faiss-cpu")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--block-rows", type=int, default=16_384)
    parser.add_argument("--threshold", type=float, default=0.85)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: seconds of work of each process, for busy machines; with --threads 1 only",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="range,top_k")
    parser.add_argument("--precisions", default="float32,int8", help="filters to choose from")
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args()


def enlarge(
    vectors: np.ndarray, queries: int, rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Normalized float32 queries and corpus: the real vectors as they are, and mixtures of them."""
    rng = np.random.default_rng(seed)
    count, real = queries + rows, len(vectors)
    first = np.concatenate(
        [np.arange(min(real, count)), rng.integers(0, real, max(count - real, 0))]
    )
    share = rng.uniform(0.05, 0.5, count)
    share[:real] = 0.0
    mixed = np.sqrt(1 - share)[:, None] * vectors[first]
    mixed += np.sqrt(share)[:, None] * vectors[rng.integers(0, real, count)]
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    mixed = mixed[rng.permutation(count)].astype(np.float32)
    return mixed[:queries], mixed[queries:]


class Peer:
    """faiss behind a pipe."""

    def __init__(
        self, args: argparse.Namespace, queries: np.ndarray, corpus: np.ndarray, folder: Path
    ) -> None:
        self.folder = folder
        np.save(folder / "queries.npy", queries)
        np.save(folder / "corpus.npy", corpus)
        script = Path(__file__).with_name("faiss_peer.py")
        self.process = subprocess.Popen(
            [args.peer, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        setup = {"threads": args.threads, "clock": args.clock}
        setup |= {name: str(folder / f"{name}.npy") for name in ("queries", "corpus")}
        self.version = self._ask(setup)["version"]

    def run(self, job: str, **request: Any) -> float:
        return float(self._ask({"job": job, "out": str(self.folder / job), **request})["seconds"])

    def array(self, job: str, name: str) -> np.ndarray:
        return np.load(self.folder / f"{job}.{name}.npy")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the faiss process ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Ember:
    """The same jobs by Ember, with seconds for preparing and for searching."""

    def __init__(self, queries: np.ndarray, corpus: np.ndarray, args: argparse.Namespace) -> None:
        self.queries, self.corpus, self.args = queries, corpus, args
        for name in set(filter_choice.FILTERS) - set(args.precisions.split(",")):
            del filter_choice.FILTERS[name]
        filter_choice.measure(queries.shape[1])  # once in a process
        self.answer: Any = None

    def join(self) -> tuple[float, float]:
        def search(left: Any, blocks: list[Any]) -> Any:
            return [
                pairs
                for block in blocks
                for pairs in threshold_pairs(
                    left, block, self.args.threshold, threads=self.args.threads
                )
            ]

        return self._timed(search)

    def search(self) -> tuple[float, float]:
        return self._timed(
            lambda left, blocks: top_k(left, blocks, self.args.k, threads=self.args.threads)
        )

    def _timed(self, search: Callable[[Any, list[Any]], Any]) -> tuple[float, float]:
        clock = time.process_time if self.args.clock == "cpu" else time.perf_counter
        start = clock()
        basis = fit_basis(self.corpus, "cosine")
        left = prepare(self.queries, "cosine", basis)
        step = self.args.block_rows
        blocks = [
            prepare(
                self.corpus[at : at + step], "cosine", basis,
                ids=np.arange(at, min(at + step, len(self.corpus))),
            )
            for at in range(0, len(self.corpus), step)
        ]  # fmt: skip
        prepared = clock()
        self.answer = search(left, blocks)
        done = clock()
        return prepared - start, done - prepared


def compare(
    name: str, job: Callable[[], tuple[float, float]], ember: Ember, peer: Peer,
    args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Rounds of one job, in turn, and whether the answers are the same."""
    request = {"k": args.k} if name == "top_k" else {"threshold": args.threshold}
    job()
    peer.run(name, **request)
    rounds = [(peer.run(name, **request), *job()) for _ in range(args.rounds)]
    agrees, agreement = (
        agree_join(ember, peer, args) if name == "range" else agree_top_k(ember, peer)
    )
    return {
        "job": name,
        "faiss": statistics.median(f for f, _, _ in rounds),
        "kernel": statistics.median(s for _, _, s in rounds),
        "whole": statistics.median(p + s for _, p, s in rounds),
        "kernel_ratio": statistics.median(f / s for f, _, s in rounds),
        "whole_ratio": statistics.median(f / (p + s) for f, p, s in rounds),
        "rounds": rounds, "agrees": agrees, "agreement": agreement,
    }  # fmt: skip


def agree_join(ember: Ember, peer: Peer, args: argparse.Namespace) -> tuple[bool, str]:
    """The same pairs, but for those that float32 rounding in faiss puts on the other side."""
    limits = peer.array("range", "limits").astype(np.int64)
    rows = np.repeat(np.arange(len(limits) - 1), np.diff(limits))
    theirs = set(zip(rows.tolist(), peer.array("range", "ids").tolist(), strict=True))
    ours = {
        pair
        for chunk in ember.answer
        for pair in zip(chunk.left.tolist(), chunk.right.tolist(), strict=True)
    }
    differing = ours ^ theirs
    slack = bounds.dot_slack(ember.queries.shape[1])
    near = all(
        abs(float(ember.queries[i].astype(float) @ ember.corpus[j].astype(float)) - args.threshold)
        <= slack
        for i, j in differing
    )
    return near, f"{len(ours)} pairs, {len(differing)} differ (all within rounding: {near})"


def agree_top_k(ember: Ember, peer: Peer) -> tuple[bool, str]:
    """The same scores at each place within float32 rounding, and the share of equal ids."""
    ids, scores = ember.answer
    gap = float(np.abs(scores - peer.array("top_k", "scores")).max())
    same = float((ids == peer.array("top_k", "ids")).mean())
    slack = bounds.dot_slack(ember.queries.shape[1])
    return gap <= slack, f"{same:.4%} of ids equal, scores within {gap:.1e}"


if __name__ == "__main__":
    sys.exit(main())
