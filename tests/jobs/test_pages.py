"""Jobs with a page: what it shows is what a plain reading of the tables gives, rows that cannot be
shown included, and the output is read as before."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn import metrics

from corpora import bomb, leftovers, manifest, picture, write
from ember.report import Step, read_step
from ember.report.report import from_json
from evaluate_tables import listed, read, write_predictions

FLOATS = pa.list_(pa.float32())
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
RNG = np.random.default_rng(3)


def vectors(path, ids, matrix):
    return write(path, id=ids, embedding=pa.array(list(matrix), FLOATS))


def kept(out):
    return from_json((out / "_report.json").read_text("utf-8"))


def cosines(matrix):
    matrix = matrix.astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix @ matrix.T


def test_the_page_of_a_search(run_job, spark, tmp_path):
    ids = list(range(40))
    matrix = RNG.normal(size=(40, 8)).astype(np.float32)
    contents = [picture(n) for n in ids]
    contents[::4] = [None, b"", SVG, bomb(), *[b"no image"] * 6]
    # An integer id of another width, content under an awkward name, and ids that repeat or lack.
    table = {
        "the.id": pa.array([*ids[:39], 1], pa.int32()),
        "a`b": [*contents[:39], contents[1]],
        "kind": [f"k{n % 3}" for n in [*ids[:39], 1]],
    }
    for part in range(3):
        file = tmp_path / "c d" / f"{part}.parquet"
        write(file, **{name: values[part::3] for name, values in table.items()})
    out = tmp_path / "work" / "out"
    settings = {
        "queries__path": vectors(tmp_path / "in.parquet", ids, matrix),
        "queries__id": "id",
        "k": 5,
        "exclude_self": "true",
        "report": json.dumps(
            {
                "queries": {
                    "path": f"{tmp_path}/c d",
                    "id": "the.id",
                    "content": "a`b",
                    "modality": "image",
                    "label": "kind",
                },
                "examples": 6,
            }
        ),
        "output__path": out,
    }
    assert run_job("search", **settings) == (0, "")
    assert leftovers(out.parent) == ["out"]
    found = pq.read_table(out).to_pylist()
    assert len(found) == 200
    assert spark.read.parquet(str(out)).count() == 200
    report = kept(out)

    similar = cosines(matrix)
    rows = report.tables["neighbors"].rows
    assert len({row["query_id"] for row in rows}) == 6
    wanted = {(str(r["query_id"]), r["rank"], str(r["neighbor_id"]), r["score"]) for r in found}
    assert {(r["query_id"], r["rank"], r["neighbor_id"], r["score"]) for r in rows} <= wanted
    assert len(rows) == 30
    heat = report.tables["similarities"].rows
    assert 6 < len(heat) <= 24
    shown = [int(row["id"]) for row in heat]
    assert np.allclose([row["values"] for row in heat], similar[np.ix_(shown, shown)], atol=1e-6)
    bins = report.tables["scores"].rows
    scores = np.array([row["score"] for row in found], np.float64)
    edges = [row["lower"] for row in bins] + [bins[-1]["upper"]]
    assert [row["neighbors"] for row in bins] == np.histogram(scores, edges)[0].tolist()
    assert sum(row["first"] for row in bins) == 40
    figures = {row["metric"]: row["value"] for row in report.figures}
    assert figures["median score"] == np.quantile(scores, 0.5, method="lower")

    items = report.items["queries"]
    assert set(items) == {r[key] for r in rows for key in ("query_id", "neighbor_id")} - {"39"}
    for key, item in items.items():
        data = contents[int(key)]
        assert item.label == f"k{int(key) % 3}"
        assert bool(item.image) == (int(key) % 4 != 0)
        if item.image:
            file = base64.b64decode(item.image.partition(",")[2])
            whole = Image.open(io.BytesIO(data)).convert("RGB")
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(whole))
        else:
            assert item.reason
    page = (out / "_report.html").read_text("utf-8")
    assert all(f'src="{item.image}"' in page for item in items.values() if item.image)
    assert "<svg xmlns" not in page
    pictures = ["neighbors.png", "scores.png", "similarities.png"]
    assert [n for n in leftovers(out / "_pictures") if not n.startswith(".")] == pictures
    for name in pictures:
        with Image.open(out / "_pictures" / name) as image:
            assert image.format == "PNG"

    # A pipeline's page takes it up as it was made; the work of a run that failed is not its own.
    step = read_step(spark, Step("nearest", "search", "up to date", path=str(out)))
    assert (step.report, step.manifest) == (report, manifest(out))
    assert read_step(spark, Step("nearest", "search", "failed", path=str(out))).report is None
    # The page is no part of what a resumed run must agree on.
    again = {**settings, "report": "{examples: 1}", "output__mode": "resume"}
    assert run_job("search", **again) == (0, "")
    assert kept(out) == report


def test_the_page_of_a_join_with_groups_of_texts(run_job, tmp_path):
    matrix = np.eye(5, 9, dtype=np.float32).repeat([6, 3, 2, 1, 1], axis=0)
    matrix[:, 6:] = RNG.uniform(0, 0.05, (13, 3))
    ids = [f"t{n:02}" for n in range(13)]
    texts = [f"text  {n}" for n in range(11)] + [" ", None]
    texts[0] = "<b>" + "long " * 200
    corpus = write(tmp_path / "c.parquet", id=ids, text=texts)
    content = f"{{path: {corpus}, id: id, content: text, modality: text}}"
    out = tmp_path / "work" / "out"
    settings = {
        "left__path": vectors(tmp_path / "in.parquet", ids, matrix),
        "left__id": "id",
        "threshold": 0.9,
        "groups__path": tmp_path / "work" / "groups",
        "report": f"{{left: {content}, examples: 2}}",
        "output__path": out,
    }
    assert run_job("join", **settings) == (0, "")
    report, similar = kept(out), cosines(matrix)
    assert report.tables["sizes"].rows == [{"size": n, "groups": 1} for n in (6, 3, 2)]
    members = report.tables["groups"].rows
    assert [row["size"] for row in members] == [6] * 6 + [3] * 3
    groups = {row["id"]: row for row in pq.read_table(tmp_path / "work" / "groups").to_pylist()}
    chief = {row["group_id"]: row["id"] for row in groups.values() if row["representative"]}
    for row in members:
        assert groups[row["id"]]["group_id"] == row["group_id"]
        assert row["representative"] == (chief[row["group_id"]] == row["id"])
        if not row["representative"]:
            score = similar[ids.index(row["id"]), ids.index(chief[row["group_id"]])]
            assert row["score"] == pytest.approx(score, abs=1e-6)
    assert members[0]["representative"]
    assert members[6]["representative"]
    pairs = sorted(pq.read_table(out).to_pylist(), key=lambda row: row["score"])
    assert report.tables["nearest"].rows == pairs[:2]
    assert report.tables["closest"].rows == pairs[:-3:-1]
    assert report.items["left"]["t06"].text == "text 6"
    assert len(report.items["left"]["t00"].text) == 280
    page = (out / "_report.html").read_text("utf-8")
    assert "&lt;b&gt;long" in page
    assert f"{len(pairs)}" in page


def test_a_page_that_cannot_be_made_is_exit_code_2(run_job, tmp_path):
    source = vectors(tmp_path / "in.parquet", ["a", "b"], np.eye(2))
    settings = {"left__path": source, "left__id": "id", "threshold": 0.5}
    settings |= {"output__path": tmp_path / "work" / "out"}
    content = f"{{path: {source}, id: id, modality: image, content: "
    for report, words in (
        ("{left: {path: /nowhere, id: id, modality: text}}", "there is nothing at /nowhere"),
        (f"{{left: {content}embedding}}}}", "the content column embedding is array<float>"),
        (f"{{left: {content}id}}}}", "the content column id is string, and images are binary"),
        ("{examples: 0}", "report.examples: input should be greater"),
    ):
        code, message = run_job("join", **settings, report=report)
        assert (code, words in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists()


def test_a_search_without_neighbors_has_a_page(run_job, tmp_path):
    source = vectors(tmp_path / "in.parquet", ["a"], np.ones((1, 3)))
    settings = {"queries__path": source, "queries__id": "id", "exclude_self": "true"}
    out = tmp_path / "out"
    assert run_job("search", **settings, report="{}", output__path=out) == (0, "")
    assert kept(out).tables["neighbors"].rows == []
    assert "<h1>Search</h1>" in (out / "_report.html").read_text("utf-8")


def test_the_page_of_a_retrieval_shows_what_queries_found(run_job, tmp_path):
    label = {n: n % 3 for n in range(12)}
    ranked = {n: RNG.permutation(12)[:4].tolist() for n in label}
    rows = [(q, d, rank) for q, found in ranked.items() for rank, d in enumerate(found, 1)]
    query, document, rank = zip(*rows, strict=True)
    truth = write(
        tmp_path / "t.parquet",
        id=list(label),
        label=list(label.values()),
        content=[picture(n) for n in label],
    )
    found = write(
        tmp_path / "n.parquet", query_id=list(query), neighbor_id=list(document), rank=list(rank)
    )
    out = tmp_path / "out"
    settings = {
        "kind": "retrieval",
        "neighbors__path": found,
        "truth__path": truth,
        "truth__id": "id",
        "content": f"{{path: {truth}, id: id, modality: image, label: label}}",
        "bootstrap": 0,
        "output__path": out,
    }
    assert run_job("evaluate", **settings) == (0, "")
    report = kept(out)
    shown = report.tables["ranked"].rows
    maps = {str(row["id"]): row["map"] for row in read(out, "per_query")}
    worst = [row["id"] for row in shown if row["which"] == "worst"]
    assert worst == sorted(maps, key=lambda key: (maps[key], int(key)))[:6]
    assert sum(row["which"] == "sampled" for row in shown) == 6
    for row in shown:
        documents = ranked[int(row["id"])]
        assert row["documents"] == [str(each) for each in documents]
        assert row["gains"] == [label[d] == label[int(row["id"])] for d in documents]
        assert row["map"] == maps[row["id"]]
    assert all(item.image for item in report.items["rows"].values())
    assert (out / "_pictures" / "worst_queries.png").exists()
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<span>relevant</span>") == sum(sum(row["gains"]) for row in shown)


def test_curves_and_the_worst_rows_of_a_multilabel_evaluation(run_job, tmp_path):
    names, ids = ["ant", "bee", "cat"], [f"r{n:02}" for n in range(40)]
    scores = RNG.random((40, 3)).round(1).astype(np.float32)
    true = RNG.random((40, 3)) < 0.4
    labels = [[names[j] for j in np.flatnonzero(row)] for row in true]
    content = write(tmp_path / "c.parquet", id=ids, text=[f"about {key}" for key in ids])
    out = tmp_path / "out"
    settings = {
        "kind": "multilabel",
        "predictions__path": write_predictions(
            tmp_path / "p.parquet", ids, listed(scores, names, 3)
        ),
        "predictions__id": "id",
        "truth__path": write(tmp_path / "t.parquet", id=ids, label=labels),
        "content": f"{{path: {content}, id: id, content: text, modality: text}}",
        "bootstrap": 0,
        "output__path": out,
    }
    assert run_job("evaluate", **settings) == (0, "")
    points = read(out, "precision_recall")
    for j, name in enumerate(names):
        precision, recall, thresholds = metrics.precision_recall_curve(true[:, j], scores[:, j])
        theirs = np.column_stack([thresholds, recall[:-1], precision[:-1]])
        ours = [[r["threshold"], r["recall"], r["precision"]] for r in points if r["label"] == name]
        assert len(ours) > 5
        apart = np.abs(np.array(ours)[:, None] - theirs).max(axis=-1).min(axis=1)
        assert apart.max() < 1e-7
    report = kept(out)
    assert len(report.tables["precision_recall"].rows) == len(points)
    worst = read(out, "worst")[:24]
    assert report.items["rows"] | {} == {
        row["id"]: report.items["rows"][row["id"]] for row in worst
    }
    assert report.items["rows"][worst[0]["id"]].text == f"about {worst[0]['id']}"
    assert (out / "_pictures" / "precision_recall.png").exists()
