"""The map job: its coordinates, its page, what it leaves out and refuses."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import leftovers, manifest, picture, rows, write
from ember.jobs import map as map_job
from report_pages import HOSTILE

ROWS = 160
LABELS = [f"class {n % 4}" for n in range(ROWS)]
IDS = [*HOSTILE, *(f"i{n:03}" for n in range(len(HOSTILE), ROWS))]
PREDICTION = pa.list_(pa.struct({"index": pa.int32(), "label": pa.string(), "score": pa.float32()}))


def vectors() -> list[list[float] | None]:
    """Four clusters; of the last rows a null one, one that is no number, one of another length."""
    draw = np.random.default_rng(0)
    middles = 4 * np.eye(4, 12)
    found = [(middles[n % 4] + draw.normal(size=12)).tolist() for n in range(ROWS)]
    return [*found[:-4], None, [float("nan")] * 12, [1.0], [0.0] * 12]


def table(numbers: list[int]) -> dict[str, pa.Array]:
    embeddings = vectors()
    return {
        "key": pa.array([IDS[n] for n in numbers]),
        "embedding": pa.array([embeddings[n] for n in numbers], pa.list_(pa.float32())),
        "label": pa.array([LABELS[n] for n in numbers]),
        "loss": pa.array([None if n == 9 else n / 8 for n in numbers], pa.float64()),
    }


def predictions() -> pa.Array:
    """Every tenth is wrong, and of one row nothing is predicted."""
    wrong = [LABELS[(n + (n % 10 == 0)) % ROWS] for n in range(ROWS)]
    answers = [[{"index": 0, "label": each, "score": 0.5}] for each in wrong]
    answers[3] = []
    return pa.array(answers, PREDICTION)


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    """A folder with the tables, and the map of a sample of them, with pictures."""
    folder = tmp_path_factory.mktemp("map")
    write(folder / "in.parquet", **table(list(range(ROWS))))
    # An id that comes twice: of two values the smaller counts.
    twice = {"name": [*IDS, IDS[8]], "answers": pa.concat_arrays([predictions()] * 2)[: ROWS + 1]}
    write(folder / "predictions.parquet", **twice)
    contents = [b"no picture" if n == 4 else picture(n) for n in range(ROWS - 6)]
    write(folder / "images.parquet", key=IDS[: ROWS - 6], content=contents)
    predicted = f"{{path: {folder}/predictions.parquet, id: name, column: answers, name: answer}}"
    settings = {
        "input": f"{{path: {folder}/in.parquet, id: key}}",
        "color": f"[label, loss, {predicted}]",
        "agree": "[label, answer]",
        "content": f"{{path: {folder}/images.parquet}}",
        "sample": 120,
        "limits.max_failed_fraction": 0.05,
        "output.path": folder / "work" / "out",
    }
    code = map_job.main([f"--set={key}={value}" for key, value in settings.items()])
    return folder, settings, code


def held(out) -> dict:
    text = (out / "map.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def test_near_rows_are_near_and_each_has_its_colors(made):
    folder, _, code = made
    out = folder / "work" / "out"
    assert code == 0
    assert leftovers(out.parent) == ["out", "out.rejected"]
    found = pq.read_table(out / "coordinates")
    names = ["key", "x", "y", "label", "loss", "answer", "agreement"]
    assert found.column_names == names
    assert [str(found.schema.field(name).type) for name in "xy"] == ["float", "float"]
    by_id = rows(out / "coordinates", "key")
    assert len(by_id) == 120
    assert set(by_id) <= set(IDS[:-4])
    first = [answers[0]["label"] if answers else None for answers in predictions().to_pylist()]
    for number, key in enumerate(IDS):
        if row := by_id.get(key):
            answer = min(first[8], first[0]) if number == 8 else first[number]
            told = None if answer is None else ("agree", "differ")[answer != LABELS[number]]
            loss = None if number == 9 else number / 8
            assert [row[name] for name in names[3:]] == [LABELS[number], loss, answer, told]
    points = np.stack([found["x"], found["y"]], axis=1)
    far = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * len(points))
    nearest = np.array(found["label"].to_pylist())[far.argmin(axis=1)]
    assert (nearest == found["label"].to_pylist()).mean() > 0.95


def test_the_page_holds_the_table_and_the_manifest_what_was_left_out(made):
    out = made[0] / "work" / "out"
    data, found = held(out), pq.read_table(out / "coordinates")
    assert data["ids"] == found["key"].to_pylist()  # none is long, nor odd to a page
    assert [color["name"] for color in data["colors"]] == ["label", "loss", "answer", "agreement"]
    assert (len(data["tiles"]["sheets"]), data["texts"]) == (1, None)
    told = manifest(out)
    counts = told["counts"]
    assert (counts["rows"], counts["usable"], counts["rejected"]) == (120, 156, 4)
    reasons = {"null embedding": 1, "not finite": 1, "wrong length": 1, "zero norm": 1}
    assert counts["reasons"] == reasons
    rejected = rows(out.with_name("out.rejected"), "id")
    assert set(rejected) == set(IDS[-4:])
    shown = set(found["key"].to_pylist())
    absent = len(shown & set(IDS[ROWS - 6 :]))
    expected = {"not an image": 1} if IDS[4] in shown else {}
    expected |= {"not in the table of contents": absent} if absent else {}
    assert counts["not_shown"] == expected
    assert {"sample", "lay out", "color", "page"} <= set(told["seconds"])
    assert "map.html" in told["files"]


def test_partitions_decide_nothing_and_texts_are_shown(made, run_job, tmp_path):
    folder, settings, _ = made
    order = list(range(ROWS))
    random.Random(1).shuffle(order)
    for number in range(5):
        write(tmp_path / "in" / f"{number}.parquet", 7, **table(order[number::5]))
    texts = [f"{HOSTILE[n % 5]} {n}" if n else None for n in range(ROWS)]
    write(tmp_path / "texts.parquet", key=IDS, content=texts)
    other = {
        **settings,
        "input": f"{{path: {tmp_path}/in, id: key}}",
        "content": f"{{path: {tmp_path}/texts.parquet}}",
        "output.path": tmp_path / "out",
    }
    again = {key.replace(".", "__"): value for key, value in other.items()}
    assert run_job("map", **again) == (0, "")
    one, two = (
        pq.read_table(each / "coordinates") for each in (folder / "work" / "out", tmp_path / "out")
    )
    assert one.equals(two)
    data = held(tmp_path / "out")
    wanted = dict(zip(IDS, texts, strict=True))
    for key, text in zip(data["ids"], data["texts"], strict=True):
        assert text == " ".join((wanted[key] or "").split())
    code, message = run_job("map", **again)
    assert (code, "exists; set output.mode" in message) == (2, True)
    again |= {"limits__max_failed_fraction": 0.01, "output__mode": "overwrite"}
    code, message = run_job("map", **again)
    assert (code, "4 of 160 rows have no usable vector" in message) == (3, True)
    assert held(tmp_path / "out") == data


def test_the_pages_of_other_jobs_link_to_it(made, run_job, tmp_path):
    folder, _, _ = made
    dedup = {
        "input": f"{{path: {folder}/in.parquet, id: key, content: label, modality: text}}",
        "tiers": "[exact]",
        "map": folder / "work" / "out",
        "output__path": folder / "a #1" / "out",
    }
    assert run_job("dedup", **dedup) == (0, "")
    page = (folder / "a #1" / "out" / "report.html").read_text("utf-8")
    assert page.count('<a href="../../work/out/map.html">Map</a>') == 1
    evaluate = {
        "kind": "classification",
        "predictions": f"{{path: {folder}/predictions.parquet, id: name, predictions: answers}}",
        "truth": f"{{path: {folder}/in.parquet, id: key}}",
        "output__path": tmp_path / "out",
    }
    for job, settings in (
        ("evaluate", evaluate),
        ("dedup", {**dedup, "output__path": tmp_path / "out"}),
    ):
        code, message = run_job(job, **{**settings, "map": folder / "images.parquet"})
        assert (code, "there is no output of the job map at" in message) == (2, True), message


def test_what_does_not_fit_is_refused_before_anything_is_written(run_job, tmp_path):
    write(tmp_path / "in.parquet", **table(list(range(3))))
    empty = pa.table(table([0])).slice(0, 0)
    pq.write_table(empty, tmp_path / "empty.parquet")
    mine = f"path: {tmp_path}/in.parquet"
    plain = {"input": f"{{{mine}, id: key}}", "output__path": tmp_path / "out"}
    bad = {
        "there is no column labels": {"color": "labels"},
        "color by single values": {"color": f"[{{{mine}, column: embedding}}]"},
        "would be a second column label": {"color": f"[label, {{{mine}, column: label}}]"},
        "agree: there is no color answer": {"color": "label", "agree": "[label, answer]"},
        "the ids of input and of loss are string and double": {
            "color": f"[{{{mine}, id: loss, column: loss}}]"
        },
        "less than or equal to 50000": {"sample": 60_000},
        "has no vectors to make a map of": {
            "input": f"{{path: {tmp_path}/empty.parquet, id: key}}"
        },
    }
    for told, settings in bad.items():
        code, message = run_job("map", **{**plain, **settings})
        assert (code, told in message) == (2, True), message
    assert leftovers(tmp_path) == ["empty.parquet", "in.parquet"]
