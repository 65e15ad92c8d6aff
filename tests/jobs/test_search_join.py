"""The search and join jobs: tables, manifests, rejected rows, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import leftovers, manifest, write

FLOATS = pa.list_(pa.float32())


@pytest.fixture
def run(run_job):
    return run_job


def embeddings(path, count=50, bad=0):
    matrix = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    rows = [*matrix[: count - bad], *([None] * bad)]
    return write(
        path, image_id=[f"i{n:03}" for n in range(count)], embedding=pa.array(rows, FLOATS)
    )


def test_search_writes_ranked_neighbors_and_a_manifest(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet")
    out = tmp_path / "work" / "out"
    settings = {
        "queries__path": source,
        "queries__id": "image_id",
        "k": 3,
        "exclude_self": "true",
        "output__path": out,
    }
    assert run("search", **settings) == (0, "")
    table = pq.read_table(out).to_pylist()
    assert len(table) == 150
    assert all(row["query_id"] != row["neighbor_id"] for row in table)
    told = manifest(out)
    assert told["counts"] == {"rows": 150, "rejected": {"left": 0}}
    assert told["dimension"] == 8
    assert leftovers(out.parent) == ["out"]
    code, message = run("search", **settings)
    assert code == 2
    assert "exists; set output.mode" in message


def test_join_writes_each_pair_and_keeps_the_rejected_rows_beside(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet", bad=2)
    out = tmp_path / "work" / "out"
    settings = {"left__path": source, "left__id": "image_id", "output__path": out}
    code, message = run("join", **settings, threshold=-1)
    assert code == 3
    assert "2 of 50 rows of the left table cannot be compared" in message
    assert not out.exists()

    relaxed = {**settings, "limits__max_failed_fraction": 0.05}
    assert run("join", **relaxed, threshold=-1) == (0, "")
    assert pq.read_table(out).num_rows == manifest(out)["counts"]["rows"] == 48 * 47 // 2
    rejected = pq.read_table(tmp_path / "work" / "out.rejected" / "left").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [
        ("i048", "null embedding"),
        ("i049", "null embedding"),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"left__path": "/nowhere"}, "there is nothing at /nowhere"),
        ({"left__embedding": "vector"}, "no column vector; the table has image_id, embedding"),
        ({"left__embedding": "image_id"}, "column image_id is string; embeddings are array<float>"),
        ({"threshold": "high"}, "threshold: input should be a valid number"),
        ({"metric": "dot"}, "metric: input should be 'cosine'"),
    ],
)
def test_what_cannot_work_is_exit_code_2_and_nothing_written(run, tmp_path, settings, words):
    given = {
        "left__path": embeddings(tmp_path / "in.parquet"),
        "left__id": "image_id",
        "threshold": 0.5,
        "output__path": tmp_path / "work" / "out",
        **settings,
    }
    code, message = run("join", **given)
    assert (code, words in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists()


def test_a_dry_run_writes_nothing(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet")
    out = tmp_path / "work" / "out"
    settings = {"queries__path": source, "queries__id": "image_id", "output__path": out}
    assert run("search", "--dry-run", **settings) == (0, "")
    assert not out.parent.exists()
