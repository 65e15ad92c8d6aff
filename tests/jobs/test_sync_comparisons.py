"""join and search with output.mode sync: after any change of the rows, what a full run would give.

Sequences of changes run side by side: each in a corpus of its own, which `within` holds apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpora import leftovers, manifest
from ember.spark.staging import Staging
from vector_cases import brute_force, brute_pairs, brute_top_k, integers

SEQUENCES, NIGHTS, WIDTH, K = 60, 2, 5, 3
THRESHOLD = 0.6
FLOATS = pa.list_(pa.float32())


@dataclass
class Corpora:
    """The rows of a table, by the number of their corpus and their ids; None is no vector."""

    seed: int
    rows: dict[int, dict[str, np.ndarray | None]] = field(default_factory=dict)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        for corpus in range(SEQUENCES):
            self.rows[corpus] = {}
            self.add(corpus, int(self.rng.integers(0, 14)))

    def add(self, corpus, count):
        for row in integers(self.rng, count, WIDTH) if count else ():
            self.rows[corpus][f"{corpus}-{self.rng.integers(0, 30):02}"] = row

    def change(self):
        """One night: in each corpus some rows are new, changed or gone."""
        for corpus, rows in self.rows.items():
            if self.rng.random() < 0.4:
                continue
            for key in list(rows):
                dice = self.rng.random()
                if dice < 0.06:
                    del rows[key]
                elif dice < 0.12:
                    rows[key] = integers(self.rng, 1, WIDTH)[0] if dice > 0.07 else None
            self.add(corpus, int(self.rng.integers(0, 3)))

    def write(self, folder):
        """As a table of files, whose number, names and order are others each night."""
        rows = [(key, c, v) for c, each in self.rows.items() for key, v in each.items()]
        order = self.rng.permutation(len(rows))
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for number, part in enumerate(np.array_split(order, self.rng.integers(1, 4))):
            ids, corpora, vectors = zip(*(rows[n] for n in part), strict=True)
            columns = {"id": ids, "corpus": corpora, "embedding": pa.array(vectors, FLOATS)}
            pq.write_table(pa.table(columns), folder / f"{self.rng.integers(1e9)}-{number}.parquet")

    def usable(self, corpus):
        """Ids, sorted, and vectors (n, d)."""
        found = sorted((key, v) for key, v in self.rows[corpus].items() if v is not None)
        return [key for key, _ in found], np.array([v for _, v in found]).reshape(-1, WIDTH)


def expected_pairs(left, right, metric):
    found = set()
    for corpus in range(SEQUENCES):
        (ids, a), (others, b) = left.usable(corpus), right.usable(corpus)
        if not len(a) or not len(b):
            continue
        scores = brute_force(a, b, metric)
        pairs = brute_pairs(scores, THRESHOLD, metric, triangle=left is right)
        found |= {(ids[i], others[j], float(scores[i, j])) for i, j in pairs}
    return found


def expected_neighbors(queries, corpus, metric):
    found = set()
    for number in range(SEQUENCES):
        (ids, a), (others, b) = queries.usable(number), corpus.usable(number)
        if not len(a) or not len(b):
            continue
        order = np.arange(len(b))
        own = np.array([others.index(key) if key in others else -1 for key in ids])
        best, scores = brute_top_k(brute_force(a, b, metric), order, K, metric, own)
        for q, rank in zip(*np.nonzero(best >= 0), strict=True):
            score = float(scores[q, rank])
            found.add((ids[q], others[best[q, rank]], int(rank) + 1, score))
    return found


def table(out):
    found = [tuple(row.values()) for row in pq.read_table(out).to_pylist()]
    assert len(found) == len(set(found))
    return set(found)


def components(pairs):
    group = {}
    for a, b, _ in pairs:
        for key in (a, b):
            group.setdefault(key, {key})
        if group[a] is not group[b]:
            group[a] |= group[b]
            for key in group[b]:
                group[key] = group[a]
    return {key: min(ids) for key, ids in group.items()}


def killed(run, monkeypatch, job, settings):
    """Run a job that dies when all rows are there and none is published."""
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "publish", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        code, told = run(job, **settings)
        assert (code, "OSError: killed" in told) == (1, True), told


def compared(out):
    return manifest(out)["sync"]["compared"]


def settings_of(folder, names, **more):
    settings = {"within": "[corpus]", "limits__max_failed_fraction": 0.9, "output__mode": "sync"}
    for name in names:
        settings |= {f"{name}__path": folder / name, f"{name}__id": "id"}
    return {**settings, "output__path": folder / "work" / "out", **more}


def test_a_joined_table_follows_its_rows(run_job, tmp_path, monkeypatch):
    rows = Corpora(1)
    out, groups = tmp_path / "work" / "out", tmp_path / "work" / "groups"
    settings = settings_of(tmp_path, ["left"], threshold=THRESHOLD, groups__path=groups)
    for night in range(NIGHTS + 1):
        rows.write(tmp_path / "left")
        if night == 2:
            killed(run_job, monkeypatch, "join", settings)
        assert run_job("join", **settings)[0] == 0
        how = "what changed" if night else "everything"
        assert compared(out) == how
        pairs = expected_pairs(rows, rows, "cosine")
        assert table(out) == pairs
        found = {row["id"]: row["group_id"] for row in pq.read_table(groups).to_pylist()}
        assert found == components(pairs)
        missing = {key for each in rows.rows.values() for key, v in each.items() if v is None}
        if missing:
            rejected = pq.read_table(tmp_path / "work" / "out.rejected" / "left")
            assert set(rejected["id"].to_pylist()) == missing
        rows.change()
    assert leftovers(out.parent) == ["groups", "out", "out.rejected"]

    rows.write(tmp_path / "left")
    code, told = run_job("join", **{**settings, "threshold": 0.9})
    assert (code, "because threshold is 0.9 and was 0.6" in told) == (0, True), told
    assert compared(out) == "everything"
    assert {score for *_, score in table(out)} <= {score for *_, score in pairs if score >= 0.9}


def test_a_join_of_two_tables_follows_both(run_job, tmp_path):
    left, right = Corpora(4), Corpora(5)
    out = tmp_path / "work" / "out"
    settings = settings_of(tmp_path, ["left", "right"], threshold=THRESHOLD, metric="inner_product")
    for night in range(NIGHTS + 1):
        for name, rows in (("left", left), ("right", right)):
            rows.write(tmp_path / name)
        assert run_job("join", **settings)[0] == 0
        assert compared(out) == ("what changed" if night else "everything")
        assert table(out) == expected_pairs(left, right, "inner_product")
        right.change()
        if night:  # the first night only one of them
            left.change()


def test_a_search_follows_queries_and_corpus(run_job, tmp_path, monkeypatch):
    queries, corpus = Corpora(2), Corpora(3)
    out = tmp_path / "work" / "out"
    settings = settings_of(
        tmp_path, ["queries", "corpus"], k=K, metric="euclidean", exclude_self="true"
    )
    searched = []
    for night in range(NIGHTS + 1):
        queries.write(tmp_path / "queries")
        corpus.write(tmp_path / "corpus")
        if night == 1:
            killed(run_job, monkeypatch, "search", settings)
        assert run_job("search", **settings)[0] == 0
        how = "what changed" if night else "everything"
        assert compared(out) == how
        assert table(out) == expected_neighbors(queries, corpus, "euclidean")
        searched.append(manifest(out)["work"]["searched_queries"])
        queries.change()
        corpus.change()
    assert max(searched[1:]) < searched[0] / 2
