"""The search and join jobs: tables, manifests, rejected rows, what is refused."""

from __future__ import annotations

import re

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
    assert "2 of 50 rows of the left table have no usable vector" in message
    assert not out.exists()

    relaxed = {**settings, "limits__max_failed_fraction": 0.05}
    assert run("join", **relaxed, threshold=-1) == (0, "")
    assert pq.read_table(out).num_rows == manifest(out)["counts"]["rows"] == 48 * 47 // 2
    rejected = pq.read_table(tmp_path / "work" / "out.rejected" / "left").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [
        ("i048", "null embedding"),
        ("i049", "null embedding"),
    ]


def test_rejected_rows_stay_as_long_as_the_table_that_they_are_beside(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet", bad=2)
    out = tmp_path / "work" / "out"
    settings = {"output__path": out, "output__mode": "overwrite", "threshold": -1}
    settings |= {"left__path": source, "left__id": "image_id", "limits__max_failed_fraction": 0.05}
    good = {**settings, "left__where": "embedding IS NOT NULL"}
    right = {"right__path": source, "right__id": "image_id"}

    assert run("join", **settings, **right) == (0, "")
    assert leftovers(tmp_path / "work" / "out.rejected") == ["left", "right"]
    assert run("join", **good, **right, limits__max_pairs=10)[0] == 3
    assert leftovers(tmp_path / "work" / "out.rejected") == ["left", "right"]
    assert run("join", **good, **right) == (0, "")
    assert leftovers(tmp_path / "work" / "out.rejected") == ["right"]
    assert run("join", **good) == (0, "")
    assert leftovers(out.parent) == ["out"]


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


def test_a_dry_run_foretells_a_join_and_writes_nothing(run, tmp_path, monkeypatch):
    source = embeddings(tmp_path / "in.parquet", 300)
    out = tmp_path / "work" / "out"
    given = {"left__path": source, "left__id": "image_id", "threshold": 0.1, "output__path": out}
    said: list[str] = []
    monkeypatch.setattr("ember.job.console.say", said.append)
    assert run("join", "--dry-run", **given) == (0, "")
    assert not out.parent.exists()
    (told,) = said
    assert run("join", **given) == (0, "")
    # Of a table that a sample holds whole, the pairs are counted.
    pairs = f"{pq.read_table(out).num_rows:,}"
    assert "nothing was written. 300 x 300 rows are 4.48e+04 pairs to compare" in told
    assert f"about {pairs} reach the threshold ({pairs} to {pairs})" in told


def test_a_dry_run_writes_nothing(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet")
    out = tmp_path / "work" / "out"
    settings = {"queries__path": source, "queries__id": "image_id", "output__path": out}
    assert run("search", "--dry-run", **settings) == (0, "")
    assert not out.parent.exists()


def test_too_many_pairs_are_counted_and_not_written(run, tmp_path):
    source = embeddings(tmp_path / "in.parquet", 400)
    out = tmp_path / "work" / "out"
    settings = {
        "left__path": source,
        "left__id": "image_id",
        "output__path": out,
        "limits__rows_per_block": 300,
        "limits__max_pairs": 5000,
    }
    matrix = np.stack(pq.read_table(source)["embedding"].to_pylist()).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    scores = (matrix @ matrix.T)[np.triu_indices(400, 1)]

    code, message = run("join", **settings, threshold=0.1)
    assert code == 3
    assert f"{np.count_nonzero(scores >= 0.1)} pairs reach the threshold 0.1" in message
    assert not (tmp_path / "work").exists() or leftovers(out.parent) == []
    told = re.search(r"About (\d+) reach ([0-9.]+): set threshold to that", message)
    about, threshold = int(told[1]), float(told[2])
    assert about <= 5000
    assert about == pytest.approx(np.count_nonzero(scores >= threshold), rel=1e-3)
    assert about > 4500

    assert run("join", **settings, threshold=threshold) == (0, "")
    assert pq.read_table(out).num_rows == np.count_nonzero(scores >= threshold)


def test_when_all_rows_are_alike_no_threshold_is_suggested(run, tmp_path):
    rows = pa.array([[1.0, 2.0]] * 40, FLOATS)
    source = write(tmp_path / "in.parquet", id=list(range(40)), embedding=rows)
    code, message = run(
        *("join",),
        left__path=source,
        left__id="id",
        output__path=tmp_path / "out",
        threshold=0.5,
        metric="euclidean",
        limits__max_pairs=100,
    )
    assert (code, "780 pairs" in message) == (3, True)
    assert "No threshold is high enough" in message


def test_groups_a_path_with_spaces_and_a_finished_output(run, tmp_path):
    matrix = np.eye(6, 8, dtype=np.float32).repeat(3, axis=0)
    matrix[:, 6] = np.linspace(0, 0.1, 18)
    ids = [f"i{n:02}" for n in range(18)]
    folder = tmp_path / "a folder"
    source = write(folder / "in.parquet", id=ids, embedding=pa.array(list(matrix), FLOATS))
    settings = {
        "left__path": source,
        "left__id": "id",
        "threshold": 0.99,
        "output__path": folder / "the pairs",
        "groups__path": folder / "the groups",
        "output__mode": "resume",
    }
    assert run("join", **settings) == (0, "")
    assert pq.read_table(folder / "the pairs").num_rows == 18
    groups = pq.read_table(folder / "the groups").to_pylist()
    assert {row["id"]: row["group_id"] for row in groups} == {
        f"i{n:02}": f"i{n - n % 3:02}" for n in range(18)
    }
    assert sum(row["representative"] for row in groups) == 6
    told = manifest(folder / "the groups")
    assert told["counts"]["groups"] == {"groups": 6, "rows": 18, "largest": 3}
    assert manifest(folder / "the pairs")["run_id"] == told["run_id"]
    assert leftovers(folder) == ["in.parquet", "the groups", "the pairs"]

    before = manifest(folder / "the pairs")
    assert run("join", **settings) == (0, "")
    assert manifest(folder / "the pairs") == before
    code, message = run("join", **{**settings, "threshold": 0.5})
    assert (code, "threshold was 0.99" in message) == (2, True)
    code, message = run("join", **{**settings, "right": f"{{path: {source}, id: id}}"})
    assert code == 2
