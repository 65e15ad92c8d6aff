"""A search with a kept index on executors that see no folder of the driver's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.processes import LOCAL_CLUSTER, finished, settings, start
from corpora import leftovers, manifest, write

ROWS, DIMENSION, K = 300, 8, 3


def test_an_index_is_brought_up_to_date_by_executors(run_job, tmp_path):
    matrix = np.random.default_rng(0).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    corpus = tmp_path / "corpus"
    corpus.mkdir()

    def add(name, numbers):
        vectors = pa.array([*matrix[numbers]], pa.list_(pa.float32()))
        write(corpus / name, id=[f"i{n:03}" for n in numbers], embedding=vectors)

    add("first.parquet", range(100))
    add("second.parquet", range(100, 200))
    out, index = tmp_path / "work" / "out", tmp_path / "work" / "index"
    job = {
        "queries__path": corpus,
        "queries__id": "id",
        "corpus__path": corpus,
        "corpus__id": "id",
        "index__path": index,
        "k": K,
        "output__path": out,
        "output__mode": "overwrite",
    }
    assert run_job("search", **job) == (0, "")
    add("third.parquet", range(200, ROWS))
    add("second.parquet", range(100, 190))
    process = start([*LOCAL_CLUSTER, "jobs/search.py", *settings(**job)], tmp_path / "log")
    code, told = finished(process, tmp_path / "log")
    assert code == 0, told
    assert manifest(out)["index"]["was"] == "brought up to date (files: 1 new, 1 changed, 0 gone)"

    there = [n for n in range(ROWS) if not 190 <= n < 200]
    unit = matrix[there] / np.linalg.norm(matrix[there].astype(np.float64), axis=1, keepdims=True)
    best = np.argsort(-(unit @ unit.T), axis=1, kind="stable")[:, :K]
    found = {
        (row["query_id"], row["rank"]): row["neighbor_id"] for row in pq.read_table(out).to_pylist()
    }
    assert found == {
        (f"i{there[q]:03}", rank + 1): f"i{there[best[q, rank]]:03}"
        for q in range(len(there))
        for rank in range(K)
    }
    assert leftovers(out.parent) == ["index", "out"]
    for link in index.rglob("sent-*"):  # of files that are there, for who still fetches them
        assert link.with_name(link.name[len("sent-0123456789ab-") :]).exists()
