"""Jobs on vectors that are hard to hold: doubles far away, any size, very long, many neighbors."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import manifest, write
from vector_cases import brute_force, brute_top_k

DOUBLES, FLOATS = pa.list_(pa.float64()), pa.list_(pa.float32())


def neighbors(path):
    found = sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["query_id"], row["rank"]))
    return [row["neighbor_id"] for row in found], [row["score"] for row in found]


def test_distances_of_doubles_far_away_are_exact_and_k_is_bounded_by_the_corpus(run_job, tmp_path):
    rng = np.random.default_rng(0)
    places = np.array([5_500_000.0, 390_000.0]) + rng.uniform(0, 300, (60, 2))
    source = write(
        tmp_path / "in.parquet", id=list(range(60)), embedding=pa.array(list(places), DOUBLES)
    )
    out = tmp_path / "out"
    settings = {"queries__path": source, "queries__id": "id", "metric": "euclidean"}
    assert run_job("search", **settings, k=10**9, output__path=out) == (0, "")
    ids, scores = neighbors(out)
    expected, values = brute_top_k(
        brute_force(places, places, "euclidean"), np.arange(60), 60, "euclidean"
    )
    assert ids == expected.ravel().tolist()
    assert scores == values.ravel().tolist()


def test_rows_of_any_size_are_compared_or_rejected_with_their_reason(run_job, tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(40, 6)).astype(np.float32)
    matrix[3] *= np.float32(1e-38)
    matrix[7] *= np.float32(1e38)
    matrix[9] = 0
    source = write(
        tmp_path / "in.parquet", id=list(range(40)), embedding=pa.array(list(matrix), FLOATS)
    )
    settings = {"left__path": source, "left__id": "id", "limits__max_failed_fraction": 0.1}
    good = np.setdiff1d(np.arange(40), [9])
    exact = brute_force(matrix[good], matrix[good], "cosine")
    assert run_job("join", **settings, threshold=0.3, output__path=tmp_path / "pairs") == (0, "")
    pairs = {
        (row["left_id"], row["right_id"]) for row in pq.read_table(tmp_path / "pairs").to_pylist()
    }
    hits = np.argwhere(np.triu(exact >= np.float32(0.3), 1))
    assert pairs == {(good[i], good[j]) for i, j in hits.tolist()}

    inner = {
        **settings,
        "metric": "inner_product",
        "threshold": 0.3,
        "output__path": tmp_path / "dots",
    }
    assert run_job("join", **inner) == (0, "")
    (bad,) = pq.read_table(tmp_path / "dots.rejected").to_pylist()
    assert (bad["id"], bad["reason"][:16]) == (7, "norm above 1e+19")


@pytest.mark.parametrize("job", ["search", "join", "project", "export", "train", "classify"])
def test_decimals_are_no_embeddings(run_job, tmp_path, job):
    kind = pa.list_(pa.decimal128(5, 2))
    rows = pa.array([[Decimal("1.00"), Decimal("2.50")]] * 4, kind)
    source = write(tmp_path / "in.parquet", id=list(range(4)), embedding=rows, label=list("abab"))
    name = {"search": "queries", "join": "left", "project": "input", "export": "corpus"}.get(job)
    settings = {f"{name}__path": source, f"{name}__id": "id"} if name else {}
    if job == "join":
        settings["threshold"] = 0.5
    if job == "project":
        settings["dimension"] = 1
    if name is None:
        settings["features"] = f"[{{path: {source}, id: id}}]"
    if job == "train":
        settings |= {"labels__path": source, "labels__id": "id"}
    if job == "classify":
        settings["head"] = head(tmp_path)
    code, message = run_job(job, **settings, output__path=tmp_path / "out")
    assert code == 2
    assert "column embedding is array<decimal(5,2)>; embeddings are array<float>" in message
    assert not (tmp_path / "out").exists()


def head(tmp_path):
    from ember.worker.heads.head import Head

    ones = np.ones(2, np.float32)
    layers = ((np.eye(2, dtype=np.float32), ones),)
    Head(
        "logistic", ("a", "b"), False, (2,), (), ones, ones, layers, ones, ones, ones
    ).save(str(tmp_path / "head"))  # fmt: skip
    return tmp_path / "head"


def test_vectors_of_20000_dimensions_are_searched_projected_and_exported(run_job, tmp_path):
    rows = np.random.default_rng(2).normal(size=(6, 20_000)).astype(np.float32)
    source = write(
        tmp_path / "in.parquet", id=list(range(6)), embedding=pa.array(list(rows), FLOATS)
    )
    found = {
        "queries__path": source,
        "queries__id": "id",
        "k": 2,
        "output__path": tmp_path / "found",
    }
    assert run_job("search", **found) == (0, "")
    expected, _ = brute_top_k(brute_force(rows, rows, "cosine"), np.arange(6), 2, "cosine")
    assert neighbors(tmp_path / "found")[0] == expected.ravel().tolist()
    out = tmp_path / "projected"
    given = {"input__path": source, "input__id": "id", "dimension": 5, "output__path": out}
    assert run_job("project", **given) == (0, "")
    stored = pq.read_table(out).sort_by("id")["embedding"].to_pylist()
    # Six points span five dimensions: no distance changes.
    np.testing.assert_allclose(
        brute_force(np.array(stored, np.float32), np.array(stored, np.float32), "euclidean"),
        brute_force(rows, rows, "euclidean"), rtol=1e-5, atol=1e-3,
    )  # fmt: skip
    assert manifest(out)["projection"]["facts"]["rank"] == 5
    index = {"corpus__path": source, "corpus__id": "id", "output__path": tmp_path / "index"}
    assert run_job("export", **index) == (0, "")
