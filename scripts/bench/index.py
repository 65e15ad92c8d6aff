"""Searches of one corpus with a kept index (`index.path`), beside those that pack it each time.

    python scripts/bench/index.py --vectors minilm.npy --rows 1000000 --out index
        [--queries 200 20000]

The vectors (an .npy matrix of real embeddings) are enlarged as in similarity_kernel.py; the corpus
is files of 100,000 rows. Of each number of queries, processes of their own: a search without an
index, one that makes it, one that uses it, and, with the first number, one after a file of 1% of
the rows was added and one after a file was taken away. The neighbors have to be the same as those
of a search without. Writes index.json: seconds, whole and by phase, and bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from measure import formatted, machine, measure
from similarity_kernel import enlarge

FILE_ROWS = 100_000
JOB = str(Path(__file__).resolve().parents[2] / "jobs/search.py")


def write(vectors: np.ndarray, first: int, path: Path) -> None:
    flat = pa.array(vectors.ravel())
    embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    columns = {
        "id": pa.array(np.arange(first, first + len(vectors))),
        "embedding": embedding.cast(pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), path)


def neighbors(out: Path) -> pa.Table:
    return pq.read_table(out).sort_by([("query_id", "ascending"), ("rank", "ascending")])


class Searches:
    """Runs in one folder, and what they took."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.report: dict[str, Any] = {"machine": machine(), "runs": []}

    def run(self, what: str, queries: int, *, index: bool) -> None:
        out = self.folder / ("kept" if index else "plain")
        shutil.rmtree(out, ignore_errors=True)
        given = {
            "queries.path": self.folder / f"queries-{queries}.parquet",
            "queries.id": "id",
            "corpus.path": self.folder / "corpus",
            "corpus.id": "id",
            "output.path": out,
            **({"index.path": self.folder / "index"} if index else {}),
        }
        command = [sys.executable, JOB, *(f"--set={key}={value}" for key, value in given.items())]
        measured = measure(command, self.folder / "log", {})
        told = json.loads((out / "_manifest.json").read_text("utf-8"))
        facts = {"run": what, "queries": queries, "seconds": measured.seconds}
        facts |= {"by_phase": told["seconds"], "index": told.get("index", {}).get("was")}
        self.report["runs"].append(facts)
        phases = {key: round(value, 1) for key, value in told["seconds"].items()}
        print(f"{what}, {queries} queries: {measured.seconds:.1f} s {phases}", flush=True)
        self.out.write_text(json.dumps(self.report, indent=2) + "\n", "utf-8")

    def check(self) -> None:
        """Raise SystemExit unless the last two runs found the same."""
        if not neighbors(self.folder / "kept").equals(neighbors(self.folder / "plain")):
            raise SystemExit("a search with the index found something else")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vectors", required=True, help=".npy matrix of real embeddings")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[200, 20_000])
    parser.add_argument("--folder", help="where tables go; a temporary folder by default")
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    vectors = np.load(given.vectors)
    with tempfile.TemporaryDirectory(prefix="ember-index-", dir=given.folder) as name:
        folder = Path(name)
        searches = Searches(folder, Path(f"{given.out}.json"))
        corpus = folder / "corpus"
        corpus.mkdir()
        for first in range(0, given.rows, FILE_ROWS):
            count = min(FILE_ROWS, given.rows - first)
            asked, rows = enlarge(vectors, max(given.queries), count, first // FILE_ROWS)
            write(rows, first, corpus / f"{first}.parquet")
        for count in given.queries:
            write(asked[:count], 0, folder / f"queries-{count}.parquet")
        for count in given.queries:
            searches.run("without an index", count, index=False)
            if count == given.queries[0]:
                searches.run("makes the index", count, index=True)
                searches.check()
            searches.run("uses the index", count, index=True)
            searches.check()
        extra = given.rows // 100
        write(enlarge(vectors, 0, extra, 10**6)[1], given.rows, corpus / "more.parquet")
        searches.run("1% of the rows are new", given.queries[0], index=True)
        (corpus / "0.parquet").unlink()
        searches.run("a file is gone", given.queries[0], index=True)
        searches.run("without an index", given.queries[0], index=False)
        searches.check()
        size = sum(file.stat().st_size for file in (folder / "index").rglob("part-*"))
        searches.report["index_bytes_a_row"] = size / given.rows
        searches.out.write_text(json.dumps(searches.report, indent=2) + "\n", "utf-8")
    runs = searches.report["runs"]
    print(formatted(["run", "seconds"], [[run["run"], run["seconds"]] for run in runs]))


if __name__ == "__main__":
    main()
