"""Near-duplicate groups of real photographs, by a backbone with trained weights."""

from __future__ import annotations

import pyarrow.parquet as pq

from corpora import manifest


def test_every_edit_of_a_photograph_is_in_its_group(run_job, real_data, tmp_path):
    code, message = run_job(
        "embed",
        "--config=conf/embed_images.yaml",
        input__path=real_data / "near-duplicates.parquet",
        model__name=f"hf:{real_data}/models/resnet-18-imagenet",
        output__path=tmp_path / "vectors",
    )
    assert (code, message) == (0, "")
    code, message = run_job(
        "join",
        left__path=tmp_path / "vectors",
        left__id="image_id",
        threshold=0.8,
        output__path=tmp_path / "pairs",
        groups__path=tmp_path / "groups",
    )
    assert (code, message) == (0, "")
    groups: dict[str, list[str]] = {}
    for row in pq.read_table(tmp_path / "groups").to_pylist():
        groups.setdefault(row["group_id"], []).append(row["id"])
    ids = pq.read_table(tmp_path / "vectors")["image_id"].to_pylist()
    # One photograph: as it is, edited, rotated and flipped, and letterboxed.
    edits = [key for key in ids if "bridge" in key or "letterboxed" in key]
    assert len(edits) == 21
    assert sorted(groups["bridge-mods/aaa-orig.jpg"]) == sorted(edits)
    # And two pictures of nothing but sky.
    skies = [key for key in ids if key.endswith(("q0003.jpg", "q0004.jpg"))]
    assert sorted(row for rows in groups.values() for row in rows) == sorted(edits + skies)
    counts = manifest(tmp_path / "groups")["counts"]["groups"]
    assert counts == {"groups": 2, "rows": 23, "largest": 21}
