"""The train job: a model folder, held-out predictions, and what becomes of odd rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import leftovers, manifest, write
from ember.spark.heads import load_head
from ember.worker.heads.head import Head

FLOATS = pa.list_(pa.float32())


def table(path, ids, matrix, **columns):
    embedding = pa.array(list(matrix), FLOATS)
    return write(Path(path), id=ids, embedding=embedding, **columns)


def three_kinds(folder, n=120, d=5, seed=0):
    """(features, labels): files of a label for each row, its rows around a center."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    matrix = (4 * rng.normal(size=(3, d)))[kinds] + rng.normal(size=(n, d))
    ids = [f"row {number}" for number in range(n)]
    features = table(folder / "features.parquet", ids, matrix.astype(np.float32))
    names = [("cat", "dog", "eel")[kind] for kind in kinds]
    return features, write(folder / "labels.parquet", id=ids, label=names)


def job(run_job, features, labels, out, **settings):
    paths = [features] if isinstance(features, str) else features
    tables = json.dumps([{"path": path, "id": "id"} for path in paths])
    given = {"labels__path": labels, "labels__id": "id", "output__path": out, **settings}
    return run_job("train", features=tables, **given)


def part_of(key, train, validation, seed=0):
    draw = int(hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()[:13], 16) / 2**52
    return "train" if draw < train else "validation" if draw < train + validation else "test"


def test_a_head_in_a_folder_with_figures_and_held_out_predictions(run_job, spark, tmp_path):
    features, labels = three_kinds(tmp_path)
    out = tmp_path / "work" / "a head"
    settings = {"split": "{train: 0.5, validation: 0.2, test: 0.3, seed: 7}"}
    assert job(run_job, features, labels, out, **settings) == (0, "")
    assert leftovers(out.parent) == ["a head"]

    head = Head.load(str(out))
    assert (head.labels, head.dimension, head.kind) == (("cat", "dog", "eel"), 5, "logistic")
    assert load_head(spark, str(out)).fingerprint() == head.fingerprint()
    told = manifest(out)
    assert told["fingerprint"] == head.fingerprint()
    assert told["head"]["features"][0]["path"] == features
    assert told["head"]["calibration"]["method"] == "temperature"

    vectors = {row["id"]: row["embedding"] for row in pq.read_table(features).to_pylist()}
    truth = {row["id"]: row["label"] for row in pq.read_table(labels).to_pylist()}
    parts = {key: part_of(key, 0.5, 0.2, seed=7) for key in truth}
    predicted = pq.read_table(out / "predictions").to_pylist()
    assert {row["id"]: row["split"] for row in predicted} == {
        key: part for key, part in parts.items() if part != "train"
    }
    for row in predicted:
        scores = head.scores(np.array([vectors[row["id"]]], np.float32))[0]
        ranked = sorted(range(3), key=lambda n: -scores[n])
        assert [each["index"] for each in row["predictions"]] == ranked
        assert row["predictions"][0]["label"] == head.labels[ranked[0]]
        assert row["predictions"][0]["score"] == pytest.approx(scores.max(), abs=1e-6)
    test = [row for row in predicted if row["split"] == "test"]
    right = np.mean([row["predictions"][0]["label"] == truth[row["id"]] for row in test])
    assert told["head"]["metrics"]["test"] | {"nll": 0} == {
        "rows": len(test), "accuracy": pytest.approx(right, abs=1e-6), "nll": 0
    }  # fmt: skip
    assert right > 0.9

    code, message = job(run_job, features, labels, out, **settings)
    assert (code, "exists; set output.mode" in message) == (2, True)


def test_a_row_keeps_its_part_and_the_head_is_the_same_whatever_the_files(run_job, tmp_path):
    """Rows in another order and in many files, and rows more that only the features have."""
    features, labels = three_kinds(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    assert job(run_job, features, labels, first)[0] == 0
    rows = pq.read_table(features)
    order = np.random.default_rng(1).permutation(rows.num_rows)
    for number, some in enumerate(np.array_split(order, 7)):
        pq.write_table(rows.take(pa.array(some)), tmp_path / f"part{number}.parquet")
    extra = pa.table({"id": ["more"], "embedding": pa.array([[0.0] * 5], FLOATS)})
    pq.write_table(extra, tmp_path / "part7.parquet")
    assert job(run_job, str(tmp_path / "part*.parquet"), labels, second)[0] == 0
    assert manifest(first)["fingerprint"] == manifest(second)["fingerprint"]
    counts = manifest(second)["counts"]
    assert counts["features without label"] == 1
    assert counts["named"] == {"features without label": ["more"]}


def test_odd_rows_are_counted_by_reason_and_too_many_are_exit_code_3(run_job, tmp_path):
    rng = np.random.default_rng(0)
    ids = list(range(60))
    matrix = [*rng.normal(size=(60, 3)).astype(np.float32)]
    matrix[0], matrix[1], matrix[2] = None, np.zeros(2), np.array([np.nan, 0, 0])
    features = table(tmp_path / "features.parquet", ids, matrix)
    names = [number % 2 for number in range(60)]
    names[3] = None
    labels = write(tmp_path / "labels.parquet", **{"an.id": [*ids, 99], "label": [*names, 1]})
    out = tmp_path / "work" / "head"
    settings = {"labels__id": "an.id"}
    limit = "limits__max_failed_fraction"
    code, message = job(run_job, features, labels, out, **settings, **{limit: 0.02})
    assert code == 3
    assert (
        "4 of 60 labeled rows cannot be used (1 not finite, 1 null embedding, 1 null l" in message
    )
    rejected = pq.read_table(tmp_path / "work" / "head.rejected").to_pylist()
    assert {row["id"]: row["error"] for row in rejected} == {
        0: "null embedding", 1: "wrong length", 2: "not finite", 3: "null label"
    }  # fmt: skip
    assert not out.exists()
    assert job(run_job, features, labels, out, **settings, **{limit: 0.1}) == (0, "")
    assert pq.read_table(out / "predictions").column_names[0] == "an.id"
    counts = manifest(out)["counts"]
    assert counts["failed"] == {
        "not finite": 1, "null embedding": 1, "null label": 1, "wrong length": 1
    }  # fmt: skip
    assert counts["label without features"] == 1
    assert counts["named"] == {"label without features": ["99"]}
    assert sum(counts["rows"].values()) == 56
    assert Head.load(str(out)).labels == ("0", "1")


def test_integers_other_than_0_1_2_are_labels_all_the_way_to_the_figures(run_job, tmp_path):
    """Trained, classified and judged with one column; counted by hand."""
    features, labels = three_kinds(tmp_path, n=80)
    names = pq.read_table(labels).to_pylist()
    numbers = [{"cat": -1, "dog": 10, "eel": 3}[row["label"]] for row in names]
    numbers[:8] = [10] * 8  # some that the head will get wrong
    truth = write(tmp_path / "n.parquet", id=[row["id"] for row in names], label=numbers)
    assert job(run_job, features, truth, tmp_path / "head") == (0, "")
    tables = json.dumps([{"path": features, "id": "id"}])
    given = {"features": tables, "head": tmp_path / "head", "output__path": tmp_path / "named"}
    assert run_job("classify", **given) == (0, "")
    answers = pq.read_table(tmp_path / "named").to_pylist()
    by_id = dict(zip((row["id"] for row in names), numbers, strict=True))
    right = [int(row["predictions"][0]["label"]) == by_id[row["id"]] for row in answers]
    assert 0.8 < np.mean(right) < 1
    judged = {
        "kind": "classification", "predictions__path": tmp_path / "named", "bootstrap": 0,
        "predictions__id": "id", "truth__path": truth, "report": "false",
        "output__path": tmp_path / "judged",
    }  # fmt: skip
    assert run_job("evaluate", **judged) == (0, "")
    assert manifest(tmp_path / "judged")["figures"]["accuracy"]["value"] == np.mean(right)
    code, message = run_job("evaluate", **judged, match="any", output__mode="overwrite")
    assert (code, "match: input should be 'auto'" in message) == (2, True)


def two_modalities(folder, n=300):
    """Three labels a row may have; each table tells of some, and some rows lack a table."""
    rng = np.random.default_rng(0)
    has = rng.random((n, 3)) < 0.35
    ids = [f"m{number}" for number in range(n)]
    image = has @ np.diag([4.0, 2.0, 0.0]) + rng.normal(size=(n, 3))
    text = has @ np.diag([0.0, 2.0, 4.0]) + rng.normal(size=(n, 3))
    images = [None if number % 10 == 0 else row for number, row in enumerate(image)]
    first = table(folder / "images.parquet", ids, images)
    kept = [number for number in range(n) if number % 7]
    second = table(folder / "texts.parquet", [ids[number] for number in kept], text[kept])
    names = [[name for name, given in zip("abc", row, strict=True) if given] for row in has]
    labels = write(folder / "labels.parquet", id=ids, label=pa.array(names, pa.list_(pa.string())))
    return first, second, labels


def test_two_modalities_tell_more_than_one_also_where_rows_lack_one(run_job, tmp_path):
    first, second, labels = two_modalities(tmp_path)
    settings = {
        "head": "mlp", "class_weights": "balanced", "threshold": "auto", "network__hidden": [16],
        "limits__max_failed_fraction": 0.2, "split": "{train: 0.5, validation: 0.2, test: 0.3}",
    }  # fmt: skip
    found = {}
    for name, tables in {"images": [first], "texts": [second], "both": [first, second]}.items():
        out = tmp_path / name
        assert job(run_job, tables, labels, out, **settings) == (0, "")
        found[name] = manifest(out)
    counts = found["both"]["counts"]
    assert counts["failed"] == {"null embedding": 5}  # rows that lack both
    assert counts["lacking_table"] == [25, 38]
    both = Head.load(str(tmp_path / "both"))
    assert (both.parts, both.indicators, both.multilabel) == ((3, 3), (0, 1), True)
    scores = {name: told["head"]["metrics"]["test"] for name, told in found.items()}
    for one in ("images", "texts"):
        for figure in ("micro_f1", "mean_average_precision"):
            assert scores["both"][figure] > scores[one][figure]
    predicted = pq.read_table(tmp_path / "both" / "predictions").to_pylist()
    assert all(len(row["predictions"]) == 3 for row in predicted)


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_the_cluster_and_one_worker_come_to_nearly_the_same_head(run_job, tmp_path, head):
    if head == "mlp":
        features, labels = three_kinds(tmp_path)
    else:
        first, second, labels = two_modalities(tmp_path)
        features = [first, second]
    settings = {"head": head, "class_weights": "balanced", "limits__max_failed_fraction": 0.2,
                "network": "{hidden: [3], iterations: 100}", "penalty": 20}  # fmt: skip
    small, large = tmp_path / "small", tmp_path / "large"
    assert job(run_job, features, labels, small, **settings) == (0, "")
    assert job(run_job, features, labels, large, limits__worker_megabytes=0, **settings) == (0, "")
    assert manifest(large)["head"]["trained_on"] == "cluster"
    one, other = Head.load(str(small)), Head.load(str(large))
    assert (one.labels, one.indicators) == (other.labels, other.indicators)
    np.testing.assert_allclose(one.scale, other.scale, rtol=1e-5)
    rows = np.random.default_rng(0).normal(size=(50, one.dimension)).astype(np.float32)
    np.testing.assert_allclose(one.scores(rows), other.scores(rows), atol=0.02)


def test_given_parts_groups_and_labels_of_few_rows(run_job, tmp_path):
    features, labels = three_kinds(tmp_path)
    rows = pq.read_table(labels).to_pylist()
    named = ["rare" if number < 2 else row["label"] for number, row in enumerate(rows)]
    groups = [f"g{number // 10}" for number in range(len(rows))]
    given = ["train" if number % 2 else "test" for number in range(len(rows))]
    ids = [row["id"] for row in rows]
    odd = write(tmp_path / "odd.parquet", id=ids, label=named, group=groups, **{"my part": given})

    column = {"labels__min_rows": 3, "split": "{column: my part}"}
    assert job(run_job, features, odd, tmp_path / "column", **column) == (0, "")
    counts = manifest(tmp_path / "column")["counts"]
    assert counts["rows"] == {"train": 59, "validation": 0, "test": 59}
    assert (counts["rare label"], counts["rare_labels"], counts["labels"]) == (2, 1, 3)

    assert job(run_job, features, odd, tmp_path / "group", split="{group: group}")[0] == 0
    found = {
        row["id"]: row["split"] for row in pq.read_table(tmp_path / "group/predictions").to_pylist()
    }
    expected = {key: part_of(group, 0.8, 0.1) for key, group in zip(ids, groups, strict=True)}
    assert found == {key: part for key, part in expected.items() if part != "train"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "{train: 0.5}"}, "add up to 0.7; make that 1"),
        ({"split": "{column: label, train: 0.5}"}, "leave out split.train"),
        ({"split": "{column: label}"}, "has the values cat, dog, eel; write train"),
        ({"split": "{column: nothing}"}, "there is no column nothing"),
        ({"labels__label": "nothing"}, "there is no column nothing"),
        ({"labels__path": "{one}"}, "only the label cat: nothing to learn"),
        ({"labels__path": "{numbers}"}, "bigint; write both as one type"),
        ({"labels__path": "{others}"}, "there are no training rows"),
        ({"labels__path": "{twice}"}, "ids in column id are not unique: row 1 (2 times)"),
        ({"head": "forest"}, "head: input should be 'logistic'"),
        ({"table_weights": "[1.0, 0.5]"}, "has 2 numbers and features 1 tables"),
        ({"table_weights": "cross_validation"}, "goes with penalty: cross_validation; give both"),
        ({"table_weights": "[2.0]", "head": "similarity"}, "takes the tables as equals"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_exit_code_2_and_nothing_written(run_job, tmp_path, settings, words):
    features, labels = three_kinds(tmp_path, n=20)
    ids = [f"row {number}" for number in range(20)]
    write(tmp_path / "one", id=ids, label=["cat"] * 20)
    write(tmp_path / "numbers", id=list(range(20)), label=["cat"] * 20)
    write(tmp_path / "others", id=[f"other {number}" for number in range(20)], label=["cat"] * 20)
    write(tmp_path / "twice", id=["row 1", "row 1"], label=["cat", "dog"])
    if "{" in (name := settings.get("labels__path", "")):
        settings = {**settings, "labels__path": tmp_path / name.strip("{}")}
    code, message = job(run_job, features, labels, tmp_path / "work" / "head", **settings)
    assert (code, words in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists()


def test_a_learned_metric_brings_rows_of_one_label_together(run_job, tmp_path):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 240)
    signal = rng.normal(size=(4, 3))[kinds] + 0.3 * rng.normal(size=(240, 3))
    matrix = np.hstack([signal, 2 * rng.normal(size=(240, 12))]).astype(np.float32)
    ids = list(range(240))
    features = table(tmp_path / "features.parquet", ids, matrix)
    labels = write(tmp_path / "labels.parquet", id=ids, label=kinds)
    out = tmp_path / "metric"
    settings = {"head": "similarity", "network__dimension": 4, "split": "{train: 0.5, test: 0.4}"}
    assert job(run_job, features, labels, out, **settings) == (0, "")
    told = manifest(out)["head"]["metrics"]["test"]
    assert told["map"] > told["map_plain"] + 0.2
    head = Head.load(str(out))
    assert head.project(matrix).shape == (240, 4)
    assert not (out / "predictions").exists()
    code, message = job(run_job, features, labels, out, penalty="cross_validation", **settings)
    assert (code, "give head: similarity a number" in message) == (2, True)


def cached(spark):
    return spark.sparkContext._jsc.getPersistentRDDs().size()


def test_a_run_after_a_failed_one_reads_the_files_anew(run_job, spark, tmp_path):
    """In one session, wherever the first run fails: no row of it is left."""
    before = cached(spark)
    features, labels = three_kinds(tmp_path, n=60)
    good = pq.read_table(features)
    rows = np.array(good["embedding"].to_pylist())
    hidden = np.where(np.arange(60)[:, None] == 5, 1e30, rows)
    short = [None if number < 30 else row for number, row in enumerate(rows)]
    for matrix, code in ((hidden, 2), (short, 3)):
        table(features, good["id"], [each if each is None else list(each) for each in matrix])
        assert job(run_job, features, labels, tmp_path / "work" / "head")[0] == code
        assert cached(spark) == before
    good_labels = pq.read_table(labels)
    write(Path(labels), id=good_labels["id"], label=["cat"] * 60)
    pq.write_table(good, features)
    code, message = job(run_job, features, labels, tmp_path / "work" / "head")
    assert (code, "only the label cat" in message, cached(spark)) == (2, True, before)
    pq.write_table(good_labels, labels)
    assert job(run_job, features, labels, tmp_path / "work" / "head") == (0, "")
    assert cached(spark) == before


def test_lists_of_labels_that_are_all_empty_are_exit_code_2(run_job, tmp_path):
    features, labels = three_kinds(tmp_path, n=20)
    ids = pq.read_table(labels)["id"]
    write(Path(labels), id=ids, label=pa.array([[]] * 20, pa.list_(pa.string())))
    code, message = job(run_job, features, labels, tmp_path / "work" / "head")
    assert (code, "training rows have no label" in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists()
