"""search with index.path: whatever becomes of the table's files, what a search without it finds."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

import ember
from corpora import manifest, write
from ember.comparison import index, index_folder, vector_files
from ember.spark import origins
from ember.spark.processes import this_process
from ember.spark.staging import Staging
from vector_cases import brute_force, brute_top_k, integers

WIDTH, K, QUERIES, NIGHTS = 5, 4, 12, 5
FLOATS = pa.list_(pa.float32())


@dataclass
class Corpus:
    """The files of a table: of each, its rows as (id, vector or None)."""

    folder: object
    seed: int
    files: dict[str, list] = field(default_factory=dict)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.folder.mkdir()
        self.made = 0

    def rows(self, count):
        """Few ids, so that some occur again and again, and few vectors, so that scores tie."""
        vectors = [*integers(self.rng, count, WIDTH)] if count else []
        if count > 2:
            vectors[1] = None
        return [(f"r{self.rng.integers(0, 60):02}", vector) for vector in vectors]

    def write(self, name, rows):
        ids, vectors = [key for key, _ in rows], [vector for _, vector in rows]
        columns = {"id": pa.array(ids, pa.string()), "embedding": pa.array(vectors, FLOATS)}
        pq.write_table(pa.table(columns), self.folder / name)
        self.files[name] = rows

    def add(self, count):
        self.made += 1
        self.write(f"part {self.made} %20é.parquet", self.rows(count))

    def drop(self):
        name = str(self.rng.choice(sorted(self.files)))
        (self.folder / name).unlink()
        del self.files[name]

    def change(self):
        name = str(self.rng.choice(sorted(self.files)))
        rows = self.files[name]
        some = [row for row in rows if self.rng.random() < 0.7]
        self.write(name, some + self.rows(1 + len(rows) - len(some)))

    def night(self):
        for act in self.rng.choice(["add", "drop", "change", "nothing"], 2, p=[0.4, 0.2, 0.2, 0.2]):
            if act == "add":
                self.add(int(self.rng.integers(0, 12)))
            elif act != "nothing" and len(self.files) > 1:
                getattr(self, act)()

    def usable(self):
        return [row for rows in self.files.values() for row in rows if row[1] is not None]

    def rejected(self):
        return sum(row[1] is None for rows in self.files.values() for row in rows)


def settings_of(tmp_path, metric="cosine", **more):
    folder = tmp_path / "work"
    return {
        "queries__path": tmp_path / "queries.parquet",
        "queries__id": "id",
        "corpus__path": tmp_path / "corpus",
        "corpus__id": "id",
        "k": K,
        "metric": metric,
        "index__path": folder / "index",
        "limits__max_failed_fraction": 0.9,
        "output__path": folder / "out",
        "output__mode": "overwrite",
        **more,
    }


def queries_of(tmp_path):
    vectors = integers(np.random.default_rng(7), QUERIES, WIDTH)
    ids = [f"r{n:02}" for n in range(QUERIES)]
    write(tmp_path / "queries.parquet", id=ids, embedding=pa.array([*vectors], FLOATS))
    return vectors


def found(out):
    rows = pq.read_table(out).to_pylist()
    return sorted((row["query_id"], row["rank"], row["neighbor_id"], row["score"]) for row in rows)


def ranked(queries, corpus, metric):
    """(query, rank, id, score) by brute force, ties by id."""
    rows = sorted(corpus.usable(), key=lambda row: row[0])
    vectors = np.array([vector for _, vector in rows])
    best, scores = brute_top_k(
        brute_force(queries, vectors, metric), np.arange(len(rows)), K, metric
    )
    return sorted(
        (f"r{q:02}", int(rank) + 1, rows[best[q, rank]][0], float(scores[q, rank]))
        for q, rank in zip(*np.nonzero(best >= 0), strict=True)
    )


def was(out):
    return manifest(out)["index"]["was"]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_an_index_follows_the_files_of_its_table(run_job, tmp_path, metric, monkeypatch):
    monkeypatch.setattr(vector_files, "BLOCK_BYTES", 6 * WIDTH * 4)  # blocks of 6 rows
    monkeypatch.setattr(index, "_SPARE", 1000)
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=len(metric))
    for count in (14, 9, 0, 11):
        corpus.add(count)
    settings = settings_of(tmp_path, metric)
    seen = []
    for night in range(NIGHTS):
        if night:
            corpus.night()
        assert run_job("search", **settings) == (0, "")
        out = settings["output__path"]
        assert found(out) == ranked(queries, corpus, metric)
        assert manifest(out)["counts"]["rejected"].get("right", 0) == corpus.rejected()
        bad = tmp_path / "work" / "out.rejected" / "right"
        kept = pq.read_table(bad).num_rows if bad.exists() else 0
        assert kept == corpus.rejected()
        seen.append(was(out).split(" (")[0].split(",")[0])
    assert seen[0] == "made"
    assert {"brought up to date"} <= set(seen)


def test_an_index_is_used_as_it_is_where_no_file_has_changed(run_job, tmp_path):
    queries_of(tmp_path)
    Corpus(tmp_path / "corpus", seed=1).add(30)
    settings = settings_of(tmp_path)
    assert run_job("search", "--dry-run", **settings) == (0, "")
    assert not (tmp_path / "work" / "index").exists()
    assert run_job("search", **settings) == (0, "")
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "work/index").rglob("*")}
    settings |= {"exclude_self": "true", "k": 2}
    assert run_job("search", **settings) == (0, "")
    assert was(settings["output__path"]) == "as it was"
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "work/index").rglob("*")}
    assert again == files
    rows = pq.read_table(settings["output__path"]).to_pylist()
    assert rows
    assert all(row["query_id"] != row["neighbor_id"] for row in rows)
    plain = {key: value for key, value in settings.items() if key != "index__path"}
    left = found(settings["output__path"])
    assert run_job("search", **plain) == (0, "")
    assert found(settings["output__path"]) == left


def test_a_run_that_dies_leaves_the_index_as_it_was(run_job, tmp_path, monkeypatch):
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=2)
    corpus.add(20)
    settings = settings_of(tmp_path)
    assert run_job("search", **settings) == (0, "")
    noted = (tmp_path / "work/index/_manifest.json").read_text()
    corpus.add(9)
    with monkeypatch.context() as patched:
        patched.setattr(
            index_folder.IndexFolder, "publish", lambda *_: (_ for _ in ()).throw(OSError("killed"))
        )
        code, told = run_job("search", **settings)
        assert (code, "OSError: killed" in told) == (1, True), told
    assert (tmp_path / "work/index/_manifest.json").read_text() == noted
    assert len(list((tmp_path / "work/index").glob("made-*"))) == 1
    ended, running, distant, old = (
        tmp_path / f"work/index/made-{name}-01234567" for name in "abcd"
    )
    away = {"host": "elsewhere", "pid": 1, "started": "1", "at": time.time()}
    processes = [{**this_process(), "started": "1"}, this_process(), away, {**away, "at": 1.0}]
    for folder, process in zip((ended, running, distant, old), processes, strict=True):
        (folder / "added").mkdir(parents=True)
        (folder / "_begun.json").write_text(json.dumps(process))
    assert run_job("search", **settings) == (0, "")
    assert found(settings["output__path"]) == ranked(queries, corpus, "cosine")
    named = set(json.loads((tmp_path / "work/index/_manifest.json").read_text())["files"])
    named |= set(json.loads(noted)["files"])  # those of the one before, for who still reads them
    there = {
        str(f.relative_to(tmp_path / "work/index"))
        for f in (tmp_path / "work/index").rglob("part-*")
    }
    assert there == named
    assert [each.exists() for each in (ended, running, distant, old)] == [False, True, True, False]


def test_a_run_that_another_one_overtakes_leaves_its_index(run_job, tmp_path, monkeypatch):
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=3)
    corpus.add(20)
    settings = settings_of(tmp_path)
    other = settings_of(tmp_path, output__path=tmp_path / "work" / "other")
    made = index.KeptIndex._made

    def overtaken(self, *given):
        with monkeypatch.context() as patched:
            patched.setattr(index.KeptIndex, "_made", made)
            assert run_job("search", **other) == (0, "")
        return made(self, *given)

    monkeypatch.setattr(index.KeptIndex, "_made", overtaken)
    code, told = run_job("search", **settings)
    assert (code, "has been changed by another run" in told) == (0, True), told
    expected = ranked(queries, corpus, "cosine")
    for out in (settings["output__path"], other["output__path"]):
        assert found(out) == expected
    noted = json.loads((tmp_path / "work/index/_manifest.json").read_text())
    assert noted["run_id"] == manifest(other["output__path"])["run_id"]
    assert [each.name for each in (tmp_path / "work/index").glob("made-*")] == [noted["name"]]


def test_an_index_that_is_of_no_use_is_made_anew(run_job, tmp_path):
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=4)
    corpus.add(20)
    settings = settings_of(tmp_path)
    out = settings["output__path"]
    assert run_job("search", **settings) == (0, "")
    assert run_job("search", **settings_of(tmp_path, "inner_product")) == (0, "")
    assert was(out) == "made, because it was made with another metric"
    assert run_job("search", **settings_of(tmp_path, corpus__where="id > 'r20'")) == (0, "")
    assert was(out) == "made, because it was made with another corpus, metric, time_zone"
    assert run_job("search", **settings) == (0, "")
    noted = json.loads((tmp_path / "work/index/_manifest.json").read_text())
    block = tmp_path / "work/index" / noted["blocks"][0]["file"]
    block.write_bytes(block.read_bytes()[:-8])
    assert run_job("search", **settings) == (0, "")
    assert "is not what an earlier run wrote" in was(out)
    assert found(out) == ranked(queries, corpus, "cosine")
    (tmp_path / "work/index/_manifest.json").write_text('{"holds": "ind')
    assert run_job("search", **settings) == (0, "")
    assert found(out) == ranked(queries, corpus, "cosine")


def test_what_no_index_serves_is_refused(run_job, tmp_path):
    queries_of(tmp_path)
    Corpus(tmp_path / "corpus", seed=5).add(9)
    settings = settings_of(tmp_path)
    alone = {key: value for key, value in settings.items() if not key.startswith("corpus")}
    for given, told in (
        (alone, "index.path keeps a corpus, and there is none"),
        (settings | {"within": "[id]"}, "leave out index.path, or within"),
        (settings | {"output__mode": "sync"}, "takes no index"),
        (settings | {"index__path": tmp_path / "corpus"}, "index.path"),
    ):
        code, message = run_job("search", **given)
        assert (code, told in message) == (2, True), message
    folder = tmp_path / "work" / "index"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    code, message = run_job("search", **settings)
    assert code == 2
    assert "notes.txt in it and is no index that Ember wrote" in message
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_notebook_shares_the_index_of_a_job(spark, run_job, tmp_path):
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=6)
    corpus.add(20)
    settings = settings_of(tmp_path)
    assert run_job("search", **settings) == (0, "")
    noted = (tmp_path / "work/index/_manifest.json").read_text()
    table = spark.read.parquet(str(tmp_path / "corpus"))
    given = {"index": str(tmp_path / "work/index"), "max_failed_fraction": 0.9, "k": K}
    asked = spark.read.parquet(str(tmp_path / "queries.parquet"))
    told = ember.search(asked, table, **given)
    rows = told.table.collect()
    assert sorted((r.query_id, r.rank, r.neighbor_id, r.score) for r in rows) == ranked(
        queries, corpus, "cosine"
    )
    assert (tmp_path / "work/index/_manifest.json").read_text() == noted
    assert told.rejected.filter("side = 'right'").count() == corpus.rejected() > 0
    doubled = F.transform("embedding", lambda x: x * 2).alias("embedding")
    for rows in (
        *(table.filter("id > 'r20'"), table.union(table), table.limit(3)),
        table.select("id", doubled),
        table.withColumn("id", F.upper("id")),
    ):
        with pytest.raises(ember.InvalidInput, match="write it to a table and read that"):
            ember.search(asked, rows, **given)
    with pytest.raises(ember.InvalidInput, match="neither the files of the corpus nor a version"):
        ember.search(asked, table.cache(), **given)
    table.unpersist()
    with pytest.raises(ember.InvalidInput, match="lies in the corpus"):
        ember.search(asked, table, **{**given, "index": str(tmp_path / "corpus" / "index")})


def test_columns_of_other_names_are_other_vectors(spark, tmp_path):
    """Two columns of one table under one name do not share an index."""
    rng = np.random.default_rng(0)
    one, two = (pa.array([*rng.normal(size=(9, WIDTH)).astype(np.float32)], FLOATS) for _ in "ab")
    write(tmp_path / "t.parquet", id=range(9), text=one, image=two)
    table = spark.read.parquet(str(tmp_path / "t.parquet"))
    for name, vectors in (("text", one), ("image", two), ("text", one)):
        rows = table.select("id", F.col(name).alias("embedding"))
        told = ember.search(rows, rows, k=1, index=str(tmp_path / "index"))
        assert {(row.query_id, row.neighbor_id) for row in told.table.collect()} == {
            (n, n) for n in range(9)
        }
        asked = spark.createDataFrame([(0, vectors[3].as_py())], "id int, embedding array<float>")
        (row,) = ember.search(asked, rows, k=1, index=str(tmp_path / "index")).table.collect()
        assert (row.neighbor_id, round(row.score, 5)) == (3, 1.0)


def test_a_run_is_not_resumed_without_its_index(run_job, tmp_path, monkeypatch):
    queries, corpus = queries_of(tmp_path), Corpus(tmp_path / "corpus", seed=2)
    corpus.add(20)
    settings = settings_of(tmp_path) | {"output__mode": "resume", "limits__rows_per_block": 2}
    plain = {key: value for key, value in settings.items() if key != "index__path"}
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "publish", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert run_job("search", **settings)[0] == 1
    code, told = run_job("search", **plain)
    assert (code, "searched with index.path; give it again" in told) == (2, True), told
    assert run_job("search", **settings) == (0, "")
    assert manifest(settings["output__path"])["work"]["reused"] > 0
    assert found(settings["output__path"]) == ranked(queries, corpus, "cosine")


def test_another_length_of_most_new_vectors_makes_the_index_anew(run_job, tmp_path):
    queries_of(tmp_path)
    settings = settings_of(tmp_path)
    corpus = tmp_path / "corpus"

    def add(name, count, width):
        vectors = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
        ids = [f"{name}{n:02}" for n in range(count)]
        write(corpus / f"{name}.parquet", id=ids, embedding=pa.array([*vectors], FLOATS))

    add("a", 8, WIDTH)
    assert run_job("search", **settings) == (0, "")
    add("b", 20, WIDTH + 1)
    code, told = run_job("search", **settings)
    assert (code, "the left vectors have 5 dimensions and the right ones 6" in told) == (2, True)
    add("c", 30, WIDTH)
    assert run_job("search", **settings) == (0, "")
    assert {row[2][0] for row in found(settings["output__path"])} == {"a", "c"}
    assert manifest(settings["output__path"])["counts"]["rejected"] == {"left": 0, "right": 20}


def test_an_index_of_doubles_and_one_without_rows(run_job, tmp_path):
    queries = queries_of(tmp_path)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    settings = settings_of(tmp_path, "euclidean")
    doubles = pa.list_(pa.float64())
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "embedding": pa.array([], doubles)}),
        corpus / "empty.parquet",
    )
    assert run_job("search", **settings) == (0, "")
    assert found(settings["output__path"]) == []
    far = 1e3 + np.random.default_rng(0).normal(size=(9, WIDTH)) / 3  # no float32
    write(corpus / "rows.parquet", id=list("ihgfedcba"), embedding=pa.array([*far], doubles))
    for _ in range(2):
        assert run_job("search", **settings) == (0, "")
        scores = np.sqrt(((queries[:, None].astype(np.float64) - far[None]) ** 2).sum(axis=2))
        best = np.argsort(scores, axis=1)[:, :K]
        assert [(q, i) for q, _, i, _ in found(settings["output__path"])] == [
            (f"r{q:02}", "ihgfedcba"[n]) for q in range(QUERIES) for n in best[q]
        ]
    assert was(settings["output__path"]) == "as it was"


def test_an_index_keeps_no_name_of_a_file(run_job, tmp_path):
    """An object store's may hold a password."""
    queries_of(tmp_path)
    Corpus(tmp_path / "corpus", seed=1).add(9)
    settings = settings_of(tmp_path)
    assert run_job("search", **settings) == (0, "")
    for file in (tmp_path / "work" / "index").rglob("*"):
        assert not file.is_file() or b"%20" not in file.read_bytes()


def test_files_that_are_in_an_index_are_not_read_again(spark, tmp_path):
    for number in range(3):
        write(tmp_path / "t" / f"{number}.parquet", id=[number], value=[number])
    table = origins.ByFile.of(spark.read.parquet(str(tmp_path / "t")).select("id"), "source")
    (one,) = (key for key, uri in table.uris.items() if uri.endswith("1.parquet"))
    for number in (0, 2):  # whoever reads them fails
        (tmp_path / "t" / f"{number}.parquet").write_bytes(b"PAR1 no more PAR1")
    (row,) = table.of_files([one]).collect()
    assert (row.id, row.source) == (1, one)
