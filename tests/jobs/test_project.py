"""The project job: shorter vectors, everything else as it was, and a projection to use again."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

import ember
from corpora import leftovers, manifest, write
from ember.errors import InvalidConfig, InvalidInput, TooManyFailures

FLOATS = pa.list_(pa.float32())


def source(path, count=200, bad=0, name="image.id", row_group_size=None):
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(count, 10)) * np.geomspace(1, 0.1, 10) + 2).astype(np.float32)
    odd = [None, [1.0], [float("nan")] * 10][:bad]
    columns = {
        name: [f"i{n:03}" for n in range(count)],
        "embedding": pa.array([*matrix[: count - bad], *odd], FLOATS),
        "a `b`": pa.array([{"x": n, "y": [n]} for n in range(count)]),
    }
    return write(path, row_group_size, **columns), matrix[: count - bad]


def given(path, tmp_path, **settings):
    return {
        "input__path": path,
        "input__id": "image.id",
        "output__path": tmp_path / "work" / "out",
        **settings,
    }


def test_project_writes_shorter_vectors_beside_all_other_columns(run_job, tmp_path):
    path, matrix = source(tmp_path / "in.parquet", bad=3, row_group_size=50)
    out = tmp_path / "work" / "out"
    few = given(path, tmp_path, dimension=4)
    code, message = run_job("project", **few)
    assert code == 3
    assert "3 of 200 rows have no usable vector" in message
    assert leftovers(out.parent) == ["out.rejected"]

    ceiling = {"limits__max_failed_fraction": 0.02}
    assert run_job("project", **few, **ceiling) == (0, "")
    assert leftovers(out.parent) == ["out", "out.projection", "out.rejected"]
    table = pq.read_table(out).sort_by("image.id")
    before = pq.read_table(path).slice(0, 197)
    assert table.schema.names == before.schema.names
    assert table.drop_columns("embedding").equals(before.drop_columns("embedding"))
    theirs = PCA(4, svd_solver="full").fit(matrix.astype(np.float64))
    expected = theirs.transform(matrix.astype(np.float64))
    ours = np.array(table["embedding"].to_pylist())
    signs = np.sign((ours * expected).sum(axis=0))
    np.testing.assert_allclose(ours, expected * signs, atol=1e-5)
    rejected = pq.read_table(tmp_path / "work" / "out.rejected").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rejected) == [
        ("i197", "null embedding"),
        ("i198", "wrong length: 1 instead of 10"),
        ("i199", "not finite"),
    ]
    told = manifest(out)
    assert told["counts"] == {"rows": 197, "rejected": 3}
    assert told["dimension"] == 4
    facts = told["projection"]["facts"]
    assert facts["explained"] == pytest.approx(theirs.explained_variance_ratio_.sum())
    saved = json.loads((tmp_path / "work" / "out.projection" / "projection.json").read_text())
    assert saved["fingerprint"] == told["projection"]["fingerprint"]
    assert saved["facts"]["explained_variance"] == pytest.approx(theirs.explained_variance_)

    again = tmp_path / "again"
    loaded = {**few, "projection": tmp_path / "work" / "out.projection", "output__path": again}
    del loaded["dimension"]
    assert run_job("project", **loaded, **ceiling) == (0, "")
    assert pq.read_table(again).sort_by("image.id")["embedding"].equals(table["embedding"])
    assert manifest(again)["projection"]["fingerprint"] == saved["fingerprint"]


def test_the_library_fits_to_a_share_or_to_another_table_s_dimension(spark, tmp_path):
    path, _ = source(tmp_path / "in.parquet", name="id", row_group_size=30)
    table = spark.read.parquet(path)
    whole = ember.fit_projection(table, explained=0.9)
    parted = ember.fit_projection(table.repartition(5), explained=0.9)
    assert parted.output_dimension == whole.output_dimension < 10
    np.testing.assert_allclose(parted.components, whole.components, atol=1e-9)
    other, _ = source(tmp_path / "other.parquet", 3, name="id")
    like = spark.read.parquet(other).selectExpr("id", "slice(embedding, 1, 6) as embedding")
    result = ember.project(table, like=like)
    sizes = result.table.selectExpr("size(embedding) as n").distinct().collect()
    assert [row["n"] for row in sizes] == [6]
    assert (result.table.count(), result.projection.output_dimension) == (200, 6)
    assert result.facts["counts"] == {"rows": 200, "rejected": 0}
    with pytest.raises(InvalidConfig, match="give one of projection, dimension, explained, like"):
        ember.project(table, dimension=3, explained=0.5)


def test_the_library_gives_the_rows_that_it_could_not_project_or_refuses_them(spark):
    rows = [(n, [float(n), 1.0, 2.0]) for n in range(8)] + [(8, None), (9, [1.0])]
    table = spark.createDataFrame(rows, "id int, embedding array<float>")
    fitted = ember.fit_projection(table, dimension=1, max_failed_fraction=0.2)
    result = ember.project(table, fitted, max_failed_fraction=0.2)
    assert sorted(result.rejected.collect()) == [
        (8, "null embedding"),
        (9, "wrong length: 1 instead of 3"),
    ]
    assert result.table.count() == 8
    assert result.facts["counts"] == {"rows": 8, "rejected": 2}
    few = r"2 of 10 rows have no usable vector \(1 null embedding, 1 wrong length\)"
    with pytest.raises(TooManyFailures, match=few):
        ember.project(table, fitted, max_failed_fraction=0.15)


def test_an_alignment_is_learned_from_rows_of_the_same_id(spark, tmp_path):
    path, matrix = source(tmp_path / "in.parquet", 150, name="id", row_group_size=40)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 10)))[0]
    ids = [f"i{n:03}" for n in range(100, 250)]  # a third of them have partners
    texts = (matrix[np.arange(100, 250) % 150] @ turn - 1).astype(np.float32)
    other = write(tmp_path / "texts.parquet", id=ids, embedding=pa.array(list(texts), FLOATS))
    images, captions = spark.read.parquet(path), spark.read.parquet(other)
    fitted, second = ember.fit_alignment(images, captions, "procrustes")
    assert second is None
    assert fitted.facts["pairs"] == 50
    np.testing.assert_allclose(fitted.apply(matrix), matrix @ turn - 1, atol=1e-4)
    with pytest.raises(InvalidInput, match="unknown method"):
        ember.fit_alignment(images, captions, "magic")


def paired(folder, matrix):
    """Texts of 6 dimensions for the last 100 images, 50 others, and odd rows."""
    rng = np.random.default_rng(3)
    ids = [f"i{n:03}" for n in range(100, 250)]
    seen = matrix[np.arange(100, 250) % 200].astype(np.float64)
    texts = (seen @ rng.normal(size=(10, 6)) + 0.1 * rng.normal(size=(150, 6))).astype(np.float32)
    rows = pa.array([*texts, texts[0], None], FLOATS)
    return write(folder / "texts.parquet", text_id=[*ids, None, "i000"], embedding=rows), texts


def test_the_job_aligns_a_table_with_another_one_and_counts_what_has_no_partner(run_job, tmp_path):
    path, matrix = source(tmp_path / "in.parquet", row_group_size=50)
    other, texts = paired(tmp_path, matrix)
    settings = given(
        path,
        tmp_path,
        align__to__path=other,
        align__to__id="text_id",
        align__to__where="text_id is null or text_id < 'i180' or text_id >= 'i200'",
    )
    assert run_job("project", "--dry-run", **settings) == (0, "")
    assert run_job("project", **settings) == (0, "")
    out = tmp_path / "work" / "out"
    told = manifest(out)
    assert told["counts"] == {
        "rows": 200,
        "rejected": 0,
        "pairs": 80,
        "without_partner": 120,
        "target_without_partner": 51,
    }
    assert told["input_files"] == sorted(f"file://{file}" for file in (path, other))
    facts = told["projection"]["facts"]
    assert facts["pairs"] == 80
    assert 0.9 < facts["explained_unseen"] < facts["explained"] < 1
    # Learned from 80 pairs, applied to all rows; as good on the 20 that were left out.
    table = pq.read_table(out).sort_by("image.id")
    ours = np.array(table["embedding"].to_pylist())[180:]
    residual = np.square(ours - texts[80:100]).sum()
    spread = np.square(texts[80:100] - texts[80:100].mean(axis=0)).sum()
    assert 1 - residual / spread == pytest.approx(facts["explained_unseen"], abs=0.03)


def test_cca_saves_a_map_for_each_side(run_job, tmp_path):
    path, matrix = source(tmp_path / "in.parquet")
    other, _ = paired(tmp_path, matrix)
    settings = given(
        path,
        tmp_path,
        align__to__path=other,
        align__to__id="text_id",
        align__method="cca",
        align__dimension=5,
        align__penalty=0,
        limits__max_failed_fraction=0.1,
    )
    assert run_job("project", **settings) == (0, "")
    sides = {
        "input__path": other,
        "input__id": "text_id",
        "input__where": "text_id is not null",
        "projection": tmp_path / "work" / "out.projection" / "target",
        "output__path": tmp_path / "texts",
        "limits__max_failed_fraction": 0.1,
    }
    assert run_job("project", **sides) == (0, "")
    images = pq.read_table(tmp_path / "work" / "out").sort_by("image.id")["embedding"].to_pylist()
    captions = pq.read_table(tmp_path / "texts").sort_by("text_id")["embedding"].to_pylist()
    left, right = np.array(images)[100:], np.array(captions)[:100]
    found = np.corrcoef(left.T, right.T)[:5, 5:]
    saved = tmp_path / "work" / "out.projection" / "projection.json"
    correlations = json.loads(saved.read_text())["facts"]["correlations"]
    assert len(correlations) == 5
    np.testing.assert_allclose(np.diag(found), correlations, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give one of dimension, explained, like, align, projection; there is none of them"),
        ({"dimension": 11}, "cannot project 10 dimensions to 11; give 1 to 10"),
        ({"projection": "/nowhere"}, "there is no projection at /nowhere"),
        ({"projection": "HERE"}, "no usable projection"),
        ({"dimension": 2, "save": "HERE"}, "here exists; set output.mode to overwrite"),
        ({"dimension": 2, "input__embedding": "a `b`"}, "embeddings are array<float>"),
        (
            {"align__to__path": "SAME", "align__to__id": "a `b`.x"},
            "the ids of the left and the right table are string and ",
        ),
        (
            {
                "align__to__path": "SAME",
                "align__to__id": "`image.id`",
                "align__to__where": "1 = 2",
            },
            "there is no column `image.id`",
        ),
        (
            {"align__to__path": "SAME", "align__to__id": "image.id", "align__method": "magic"},
            "align.method: input should be 'ridge', 'procrustes' or 'cca'",
        ),
    ],
)
def test_what_cannot_work_is_exit_code_2_and_nothing_written(run_job, tmp_path, settings, words):
    path, _ = source(tmp_path / "in.parquet", 5)
    (tmp_path / "here").mkdir()
    settings = {
        key: {"HERE": tmp_path / "here", "SAME": path}.get(value, value)
        for key, value in settings.items()
    }
    code, message = run_job("project", **given(path, tmp_path, **settings))
    assert (code, words in message, message) == (2, True, message)
    assert not (tmp_path / "work").exists()


def test_a_dry_run_writes_nothing(run_job, tmp_path):
    path, _ = source(tmp_path / "in.parquet", 5)
    assert run_job("project", "--dry-run", **given(path, tmp_path, dimension=2)) == (0, "")
    assert not (tmp_path / "work").exists()
