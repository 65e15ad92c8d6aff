"""The dedup job: its two tables, its manifest, what it refuses, killed runs."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from corpora import leftovers, manifest, rows, write


def scene(seed: int, side: int = 128, form: str = "PNG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path) -> dict[str, object]:
    """Six scenes; copies of some: the same bytes, smaller, as JPEG; two alike by vectors alone."""
    contents = {f"s{number}": scene(number) for number in range(6)}
    contents |= {"s0-same": scene(0), "s0-small": scene(0, 60), "s1-jpeg": scene(1, 128, "JPEG")}
    contents |= {"bad1": b"no picture", "bad2": b"no picture", "null": None}
    drawn = np.random.default_rng(0).normal(size=(len(contents), 16)).astype(np.float32)
    vectors = dict(zip(contents, drawn, strict=True))
    vectors["s3"] = vectors["s2"] + np.float32(0.01)
    del vectors["s5"]  # never embedded
    write(
        tmp_path / "vectors.parquet",
        id=list(vectors),
        embedding=pa.array(list(vectors.values()), pa.list_(pa.float32())),
    )
    judged = write(
        tmp_path / "judged.parquet",
        one=["s0", "s0-small", "s2", "s4", "s5"],
        right_id=["s0-same", "s0", "s3", "s1", "bad1"],
        same=[True, True, True, False, False],
    )
    source = write(
        tmp_path / "in.parquet",
        image_id=list(contents),
        content=list(contents.values()),
        source=["b" if "-" in key else "a" for key in contents],
    )
    return {
        "input__path": source,
        "input__id": "image_id",
        "input__modality": "image",
        "input__embedding": f"{{path: {tmp_path}/vectors.parquet, id: id}}",
        "tiers": "[exact, perceptual, {embedding: 0.99}]",
        "pairs": f"{{path: {judged}, left_id: one, label: same}}",
        "limits__max_failed_fraction": 0.3,
        "output__path": tmp_path / "work" / "out",
    }


def removed(out) -> dict[str, tuple[str, str, str]]:
    found = rows(out / "removed", "id")
    return {key: (row["kept_id"], row["tier"], row["neighbor_id"]) for key, row in found.items()}


def test_each_row_is_kept_as_it_was_or_removed_with_its_witness(run_job, pictures):
    out = pictures["output__path"]
    # Of as many pixels, those of more bytes stay.
    less, more = sorted(("s2", "s3"), key=lambda key: len(scene(int(key[1:]))))
    assert run_job("dedup", **pictures) == (0, "")
    assert removed(out) == {
        "s0-same": ("s0", "exact", "s0"),
        "s0-small": ("s0", "perceptual", "s0"),
        "s1-jpeg": ("s1", "perceptual", "s1"),
        less: (more, "embedding", more),
    }
    kept, given = rows(out / "kept", "image_id"), rows(pictures["input__path"], "image_id")
    assert kept == {key: row for key, row in given.items() if key not in removed(out)}
    told = manifest(out)
    counts = told["counts"]
    assert (counts["input_rows"], counts["rows"], counts["removed"]) == (12, 8, 4)
    assert counts["by_tier"] == {"exact": 1, "perceptual": 2, "embedding": 1}
    assert counts["reasons"] == {"not an image": 2, "null content": 1}
    assert counts["without_embedding"] == {"no embedding": 1}
    assert counts["groups"] == {"groups": 3, "rows": 7, "largest": 3}
    assert counts["groups_by_size"] == {"2": 2, "3": 1}
    judged = told["pairs"]
    assert (judged["copies"], judged["others"], judged["recall"], judged["wrong"]) == (3, 1, 1, 0)
    assert judged["unused"] == {"rows not read": 1}
    found = {(row["tier"], row["threshold"]): row for row in judged["thresholds"]}
    assert found["perceptual", 0.875]["recall"] == pytest.approx(2 / 3)  # not the two by vectors
    assert found["perceptual", 0.875]["removed"] == 2 / 12
    assert found["perceptual", 0.6875]["removed"] is None
    assert found["embedding", 0.98]["recall"] == pytest.approx(1 / 3)
    page = (out / "report.html").read_text("utf-8")
    assert "Labeled pairs" in page
    assert "Thresholds of perceptual" in page
    assert "s0-small" in page
    assert page.count("data:image/") >= 6
    assert {"read", "exact", "perceptual", "embedding"} <= set(told["seconds"])
    assert leftovers(out.parent) == ["out"]

    code, message = run_job("dedup", **pictures)
    assert (code, "exists; set output.mode" in message) == (2, True)
    run_id = told["run_id"]
    assert run_job("dedup", **pictures, output__mode="resume") == (0, "")
    assert manifest(out)["run_id"] == run_id  # it was there already

    own = {"keep": "{first_by: \"source = 'a'\"}", "output__mode": "overwrite"}
    own |= {"tiers": "[exact]", "input__embedding": "null", "report": "false"}
    assert run_job("dedup", **{**pictures, **own}) == (0, "")
    assert removed(out) == {"s0": ("s0-same", "exact", "s0-same")}


def test_too_many_unreadable_rows_publish_nothing_and_ids_may_not_repeat(run_job, pictures):
    out = pictures["output__path"]
    plain = {**pictures, "tiers": "null", "input__embedding": "null", "report": "false"}
    code, message = run_job("dedup", **{**plain, "limits__max_failed_fraction": 0.2})
    assert (code, "3 of 12 rows cannot be read" in message) == (3, True)
    failures = rows(out.with_name("out.failures"), "id")
    assert {key: row["reason"] for key, row in failures.items()}["null"] == "null content"
    assert not out.exists()
    # What it had read is taken up: the file of fingerprints is not written again.
    assert [name for name in leftovers(out.parent) if name != "out.failures"] == [".out.staging"]

    write(out.parent / "twice" / "a.parquet", image_id=["a", "a"], content=[scene(1), scene(2)])
    code, message = run_job("dedup", **{**plain, "input__path": out.parent / "twice"})
    assert (code, "not unique: a (2 times)" in message) == (2, True)


def test_a_resumed_run_does_not_read_the_content_again(run_job, pictures, monkeypatch):
    from ember.deduplication import deduplication, fingerprints

    out = pictures["output__path"]
    plain = {**pictures, "tiers": "[exact]", "input__embedding": "null", "report": "false"}

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(deduplication.groups, "all_removed", stop)
        assert run_job("dedup", **plain)[0] == 130
    monkeypatch.setattr(fingerprints, "spread", stop)  # as reading would begin
    assert run_job("dedup", **plain, output__mode="resume") == (0, "")
    assert list(removed(out)) == ["s0-same"]
    assert pq.read_table(out / "kept").num_rows == 11
    assert leftovers(out.parent) == ["out"]
