"""The UDFs give what the job gives, in a DataFrame and in SQL."""

from __future__ import annotations

import numpy as np
import pytest

import ember
from corpora import assert_close, picture, write
from ember.errors import DeviceMissing, InvalidConfig
from ember.spark import classic, gpu
from ember.udf import embed_images, embed_texts


@pytest.fixture
def images(spark, tmp_path):
    content = [picture(number) for number in range(9)] + [None, b"no image"]
    path = write(tmp_path / "in.parquet", image_id=list(range(11)), content=content)
    return spark.read.parquet(path)


def by_id(frame) -> dict[int, np.ndarray | None]:
    rows = frame.select("image_id", "embedding").collect()
    return {
        row["image_id"]: None if row["embedding"] is None else np.asarray(row["embedding"])
        for row in rows
    }


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_a_column_of_embeddings_is_what_embed_gives(images, resnet, kind):
    expected = by_id(ember.embed(images, resnet, id="image_id"))
    embed = embed_images(resnet, kind=kind)
    ours = by_id(images.repartition(3).withColumn("embedding", embed("content")))
    assert ours.keys() == expected.keys() == set(range(11))
    for key, vector in expected.items():
        if vector is None:
            assert key in (9, 10)
            assert ours[key] is None
        else:
            assert_close(ours[key], vector)


def test_a_registered_udf_is_called_from_sql(spark, bert, tmp_path):
    spark.udf.register("embed_text", embed_texts(bert, normalize=True))
    row = spark.sql("SELECT embed_text('the cat sleeps') AS a, embed_text('the dog runs') AS b")
    first, second = row.collect()[0]
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-6)
    assert first != second


def test_a_text_udf_puts_the_prompt_before_each_text(spark, bert):
    prompted, plain = embed_texts(bert, prompt="the big "), embed_texts(bert)
    row = spark.createDataFrame([("cat", "the big cat")], ["text", "whole"])
    first, second = row.select(prompted("text").alias("a"), plain("whole").alias("b")).collect()[0]
    assert first == second is not None


def test_an_image_udf_reads_paths_where_told(spark, resnet, tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    row = spark.createDataFrame([(str(tmp_path / "a.png"), picture(0))], ["path", "content"])
    by_path = embed_images(resnet, content_is="paths", root=str(tmp_path))("path").alias("by_path")
    by_bytes = embed_images(resnet)("content").alias("by_bytes")
    first, second = row.select(by_path, by_bytes).collect()[0]
    assert first == second


def test_an_unknown_option_is_refused_when_the_udf_is_made(spark, resnet):
    with pytest.raises(TypeError, match="unexpected keyword argument 'layers'"):
        embed_images(resnet, layers="avg_pool")
    with pytest.raises(InvalidConfig, match="layer"):
        embed_images(resnet, layer="avg_pol")


def test_a_udf_is_made_only_where_the_gpu_is_that_spark_assigns(spark, resnet, monkeypatch):
    def missing(_: object) -> None:
        raise DeviceMissing("Spark assigned GPU 0, but the CUDA driver shows no device there")

    monkeypatch.setattr(gpu, "check", missing)
    with pytest.raises(DeviceMissing):
        embed_images(resnet)


def test_gpu_settings_that_cannot_work_are_refused_when_the_udf_is_made(spark, resnet, monkeypatch):
    given = {"spark.executor.resource.gpu.amount": "1"}
    monkeypatch.setattr(classic, "setting", lambda _, key, default="": given.get(key, default))
    with pytest.raises(InvalidConfig, match=r"spark\.task\.resource\.gpu\.amount is not set"):
        embed_images(resnet)
