"""Copies among real photographs and news: edits of one picture, texts in both halves of a table."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq

from corpora import manifest, rows


def test_the_upright_edits_of_a_photograph_are_one_and_nothing_else_is_removed(
    run_job, real_data, tmp_path
):
    code, message = run_job(
        "dedup",
        "--config=conf/dedup.yaml",
        input__path=real_data / "near-duplicates.parquet",
        output__path=tmp_path / "out",
    )
    assert (code, message) == (0, "")
    removed = rows(tmp_path / "out" / "removed", "id")
    ids = pq.read_table(real_data / "near-duplicates.parquet")["image_id"].to_pylist()
    # Blurred, sharpened, shrunk, squared, in other contrasts; not rotated, flipped, letterboxed.
    upright = {key for key in ids if key.startswith("bridge-mods/")}
    upright.add(next(key for key in ids if key.endswith("bridge-1-original.jpg")))
    (kept,) = {row["kept_id"] for row in removed.values()}
    assert {*removed, kept} == upright
    assert len(upright) == 13
    assert manifest(tmp_path / "out")["counts"]["groups_by_size"] == {"13": 1}


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def test_texts_of_one_half_that_are_in_the_other_are_found(run_job, real_data, tmp_path):
    table = pq.read_table(real_data / "agnews-3800.parquet", columns=["text_id", "text"])
    train, test = (
        dict(zip(*table.slice(start, 1900).to_pydict().values(), strict=True))
        for start in (0, 1900)
    )
    source = list(train.items())[:300]
    planted = {10**6 + key: text.upper() for key, text in source[:100]}
    for key, text in source[100:]:
        words = text.split()
        words[len(words) // 2] = "planted"
        planted[2 * 10**6 + key] = " ".join(words)
    for name, part in (("train", train), ("test", {**test, **planted})):
        columns = {"text_id": list(part), "text": list(part.values())}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    code, message = run_job(
        "dedup",
        input__path=tmp_path / "test.parquet",
        input__id="text_id",
        input__content="text",
        input__modality="text",
        against__path=tmp_path / "train.parquet",
        output__path=tmp_path / "out",
    )
    assert (code, message) == (0, "")
    removed = rows(tmp_path / "out" / "removed", "id")
    for key, text in planted.items():
        near = shingles(text), shingles(train[key % 10**6])
        alike = len(near[0] & near[1]) / len(near[0] | near[1])
        # 1 in 6,500 pairs at the threshold is missed, and fewer above it.
        assert (key in removed) == (alike >= 0.7), (text, alike)
    exact = {key for key, row in removed.items() if row["tier"] == "exact"}
    assert exact >= {key for key in planted if key < 2 * 10**6}
    for key, row in removed.items():
        near = shingles({**test, **planted}[key]), shingles(train[row["kept_id"]])
        assert len(near[0] & near[1]) / len(near[0] | near[1]) >= 0.7
