"""The export of a faiss index: what faiss finds in it is what Ember's search finds."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ember
from corpora import leftovers, manifest, write
from ember.comparison import vector_files, vector_store
from ember.errors import InvalidInput
from ember.worker.vectors.faiss_file import FlatIndexFile

FLOATS = pa.list_(pa.float32())
METRICS = ["cosine", "inner_product", "euclidean"]


def corpus(path, count=100, bad=0):
    matrix = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    ids = pa.array([f"i{n:03}" for n in range(count)])
    rows = pa.array([*matrix[: count - bad], *([None] * bad)], FLOATS)
    order = pa.array(np.random.default_rng(1).permutation(count))
    write(path, 30, key=ids.take(order), embedding=rows.take(order))
    return str(path), matrix


@pytest.mark.parametrize("metric", METRICS)
def test_the_file_is_the_one_that_faiss_writes(tmp_path, metric):
    faiss = pytest.importorskip("faiss")
    rows = np.random.default_rng(2).normal(size=(50, 7)).astype(np.float32)
    with FlatIndexFile(str(tmp_path / "ours"), metric, 7, 50) as index:
        odd, even = np.arange(1, 50, 2), np.arange(0, 50, 2)
        index.put(odd, rows[odd])
        index.put(even, rows[even])
    theirs = faiss.IndexFlatL2(7) if metric == "euclidean" else faiss.IndexFlatIP(7)
    scaled = rows / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    theirs.add(scaled.astype(np.float32) if metric == "cosine" else rows)
    faiss.write_index(theirs, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_file_that_lacks_rows_is_an_error(tmp_path):
    index = FlatIndexFile(str(tmp_path / "f"), "cosine", 2, 3)
    with pytest.raises(ValueError, match="1 are missing"), index:
        index.put(np.array([0, 2]), np.ones((2, 2), np.float32))


def test_export_writes_an_index_that_faiss_searches_with_its_ids(run_job, tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(vector_files, "BLOCK_BYTES", 40 * 4 * 6)  # several blocks
    path, matrix = corpus(tmp_path / "in.parquet", bad=2)
    out = tmp_path / "work" / "out dir"
    settings = {"corpus__path": path, "corpus__id": "key", "output__path": out}
    assert run_job("export", "--dry-run", **settings) == (0, "")
    assert not out.parent.exists()
    code, message = run_job("export", **settings)
    assert (code, "2 of 100 rows have no usable vector" in message) == (3, True), message
    assert leftovers(out.parent) == ["out dir.rejected"]
    assert run_job("export", **settings, limits__max_failed_fraction=0.05) == (0, "")
    assert manifest(out)["counts"] == {"rows": 98, "rejected": 2}
    ids = pq.read_table(out / "ids.parquet")
    assert ids["position"].to_pylist() == list(range(98))
    index = faiss.read_index(str(out / "index.faiss"))
    queries = matrix[:98] / np.linalg.norm(matrix[:98], axis=1, keepdims=True)
    found = index.search(queries, 1)[1][:, 0]
    assert ids["id"].take(pa.array(found)).to_pylist() == [f"i{n:03}" for n in range(98)]
    code, message = run_job("export", **settings)
    assert (code, "exists; set output.mode" in message) == (2, True)


@pytest.mark.parametrize("shared", [True, False])
def test_ids_of_any_atomic_type_are_exported_in_their_order(spark, tmp_path, monkeypatch, shared):
    pytest.importorskip("faiss")
    monkeypatch.setattr(vector_store, "is_local", lambda spark: shared)
    ids = pa.array([3_000_000, 1_000_000, 2_000_000], pa.timestamp("us", "UTC"))
    write(tmp_path / "t.parquet", id=ids, embedding=pa.array([[3.0], [1.0], [2.0]], FLOATS))
    table = spark.read.parquet(str(tmp_path / "t.parquet"))
    with pytest.warns(DeprecationWarning, match="export_faiss is deprecated; use ember.export"):
        ember.export_faiss(table, str(tmp_path / "out"), "inner_product")
    assert pq.read_table(tmp_path / "out" / "ids.parquet")["id"].to_pylist() == sorted(
        ids.to_pylist()
    )
    written = (tmp_path / "out" / "index.faiss").read_bytes()
    assert np.frombuffer(written[-12:], np.float32).tolist() == [1.0, 2.0, 3.0]


def test_what_cannot_be_exported_is_refused(spark, tmp_path, monkeypatch):
    table = spark.read.parquet(corpus(tmp_path / "in.parquet", 5)[0])
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InvalidInput, match="faiss is not installed here"):
        ember.export(table, str(tmp_path / "out"), id="key")
    monkeypatch.undo()
    pytest.importorskip("faiss")
    with pytest.raises(InvalidInput, match="no vectors to make an index of"):
        ember.export(table.filter("key = ''"), str(tmp_path / "out"), id="key")
    with pytest.raises(InvalidInput, match="unknown metric"):
        ember.export(table, str(tmp_path / "out"), metric="dot", id="key")
    assert leftovers(tmp_path) == ["in.parquet"]
