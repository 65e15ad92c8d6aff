"""Search with a wanted recall: what it says of its recall is true of all queries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ember
from corpora import manifest, write
from ember.comparison import vector_files
from ember.errors import InvalidInput

DIMENSION = 16
FLOATS = pa.list_(pa.float32())


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks of 700 rows."""
    monkeypatch.setattr(vector_files, "BLOCK_BYTES", 700 * 4 * DIMENSION)


def vectors(seed, count):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(300, DIMENSION))
    rows = centers[rng.integers(0, 300, count)] + 0.5 * rng.normal(size=(count, DIMENSION))
    return rows.astype(np.float32)


def table(path, rows, letter, files=1):
    ids = pa.array([f"{letter}{n:05}" for n in range(len(rows))])
    order = pa.array(np.random.default_rng(1).permutation(len(rows)))
    column = pa.array(list(rows), FLOATS).take(order)
    return write(path, -(-len(rows) // files), id=ids.take(order), embedding=column)


def exact(queries, corpus, k):
    """(q, k) row numbers and float32 cosines."""
    left, right = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (queries.astype(np.float64), corpus.astype(np.float64))
    )
    scores = (left @ right.T).astype(np.float32)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best, np.take_along_axis(scores, best, axis=1)


def test_the_measured_recall_holds_for_all_queries(run_job, spark, tmp_path):
    queries, corpus = vectors(1, 600), vectors(2, 5000)
    paths = table(tmp_path / "q.parquet", queries, "q"), table(tmp_path / "c.parquet", corpus, "c")
    settings = {
        "queries__path": paths[0],
        "queries__id": "id",
        "corpus__path": paths[1],
        "corpus__id": "id",
        "mode": "approximate",
        "recall": 0.9,
        "k": 5,
        "output__path": tmp_path / "out",
    }
    assert run_job("search", **settings) == (0, "")
    told = manifest(tmp_path / "out")["search"]
    found = pq.read_table(tmp_path / "out").sort_by(
        [("query_id", "ascending"), ("rank", "ascending")]
    )
    ids = np.array([int(key[1:]) for key in found["neighbor_id"].to_pylist()]).reshape(600, 5)
    best, scores = exact(queries, corpus, 5)
    recall = np.mean([len(np.intersect1d(*pair)) / 5 for pair in zip(ids, best, strict=True)])
    low, high = told["recall"]["interval_95"]
    assert 0.9 <= low <= recall <= high
    assert (told["mode"], told["wanted_recall"]) == ("exact", 0.9)
    ours = np.array(found["score"].to_pylist()).reshape(600, 5)
    hit = ids == best
    np.testing.assert_allclose(ours[hit], scores[hit], atol=1e-6)
    assert hit[:, 0].mean() > 0.9

    left, right = (spark.read.parquet(path).repartition(5) for path in paths)
    again = ember.search(left, right, k=5, mode="approximate", recall=0.9)
    assert [again.recall.low, again.recall.high] == told["recall"]["interval_95"]
    again = again.table.toArrow()
    assert again.sort_by([("query_id", "ascending"), ("rank", "ascending")]).equals(found)


def test_a_search_in_itself_leaves_out_each_row_s_own(spark, tmp_path):
    rows = vectors(3, 1500)
    frame = spark.read.parquet(table(tmp_path / "t.parquet", rows, "r"))
    result = ember.search(frame, k=1, mode="approximate", recall=0.8, exclude_self=True)
    assert 0.8 <= result.recall.low <= result.recall.mean <= result.recall.high
    found = result.table.toArrow()
    assert result.facts["search"]["recall"]["measured"] == result.recall.mean
    assert len(found) == 1500
    scores = exact(rows, rows, 2)[1][:, 1]
    ours = found.sort_by("query_id")
    assert all(row["query_id"] != row["neighbor_id"] for row in ours.to_pylist())
    equal = np.isclose(ours["score"].to_numpy(), scores, atol=1e-6)
    assert equal.mean() >= result.recall.low


def test_a_recall_that_is_no_share_is_refused(spark, run_job, tmp_path):
    path = table(tmp_path / "t.parquet", vectors(5, 3), "r")
    with pytest.raises(InvalidInput, match="recall is 1"):
        ember.search(spark.read.parquet(path), k=1, mode="approximate", recall=1)
    code, message = run_job(
        "search", queries__path=path, queries__id="id", output__path=tmp_path / "o", recall=1.5
    )
    assert (code, "recall: input should be less than 1" in message) == (2, True), message
