"""The finetune job: what it writes, what embed and classify make of it, what is refused."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import ember
from corpora import leftovers, manifest, rows, vectors, write

COUNT = 60


def tinted(label: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 60, (40, 40, 3), np.uint8)
    pixels[..., label] += 180
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "work" / "model"


@pytest.fixture
def corpus(tmp_path) -> str:
    content = [*(tinted(number % 3, number) for number in range(COUNT)), b"no image", None]
    return write(tmp_path / "in.parquet", image_id=list(range(COUNT + 2)), content=content)


@pytest.fixture
def labels(tmp_path) -> str:
    """Row 0 has none, row 1 a null, and 999 is of no row; numbers, so that 10 follows 2."""
    of = {number: [1, 2, 10][number % 3] for number in range(1, COUNT + 2)} | {1: None, 999: 2}
    return write(tmp_path / "labels.parquet", key=list(of), kind=list(of.values()))


@pytest.fixture
def finetune(run_job, resnet, corpus, labels, out):
    return partial(
        run_job,
        "finetune",
        input__path=corpus,
        input__id="image_id",
        input__modality="image",
        labels__path=labels,
        labels__id="key",
        labels__label="kind",
        model__name=resnet,
        epochs="{head: 6, full: 2}",
        learning_rate="{head: 0.05, full: 0.001}",
        output__path=out,
    )


def test_what_finetune_writes_embed_and_classify_load(finetune, run_job, corpus, out, tmp_path):
    code, message = finetune()
    assert code == 3
    assert "2 of 60 labeled rows failed (1 not an image, 1 null content)" in message
    failures = pq.read_table(out.parent / "model.failures").to_pylist()
    assert sorted(row["id"] for row in failures) == ["60", "61"]
    assert leftovers(out.parent) == ["model.failures"]

    assert finetune(limits__max_failed_fraction=0.1) == (0, "")
    assert leftovers(out.parent) == ["model"]
    told = manifest(out)
    assert told["labels"] == ["1", "2", "10"]
    assert sum(told["counts"]["rows"].values()) == 60
    assert (told["counts"]["failed"], told["counts"]["unlabeled"]) == (2, 2)
    history = pq.read_table(out / "history.parquet").to_pylist()
    assert [each["epoch"] for each in history] == list(range(1, len(history) + 1))
    assert {each["stage"] for each in history} == {"head", "full"}
    assert told["best"]["validation_loss"] == min(
        each["validation_loss"] for each in history if each["stage"] == "full"
    )

    code, message = finetune(limits__max_failed_fraction=0.1, output__mode="resume")
    assert (code, message) == (0, "")
    assert manifest(out)["run_id"] == told["run_id"]  # there was nothing left to do
    code, message = finetune(output__mode="resume", seed=1)
    assert code == 2
    assert "made with other settings (seed was 0; limits" in message

    given = {
        "input__path": corpus,
        "input__id": "image_id",
        "input__modality": "image",
        "model__name": f"hf:{out}",
        "limits__max_failed_fraction": 0.1,
    }
    assert run_job("classify", **given, output__path=tmp_path / "named") == (0, "")
    named = rows(tmp_path / "named", "image_id")
    right = [
        named[number]["predictions"][0]["label"] == ["1", "2", "10"][number % 3]
        for number in range(COUNT)
    ]
    assert np.mean(right) > 0.9
    assert run_job("embed", **given, output__path=tmp_path / "vectors") == (0, "")
    assert {len(vector) for vector in vectors(tmp_path / "vectors", "image_id").values()} == {24}


def test_texts_are_learnt_and_the_run_is_the_same_however_it_is_partitioned(
    run_job, spark, bert, tmp_path
):
    texts = [["the cat sat", "a big dog", "blue house"][number % 3] for number in range(45)]
    path = write(
        tmp_path / "in.parquet", key=list(range(45)), text=texts, kind=["c", "d", "h"] * 15
    )
    spark.read.parquet(path).orderBy("text").repartition(5).write.parquet(f"{tmp_path}/cut")
    told = []
    for name, source in (("whole", path), ("parts", f"{tmp_path}/cut")):
        given = {
            "input": f"{{path: {source}, id: key, content: text, modality: text}}",
            "labels": f"{{path: {source}, id: key, label: kind}}",
            "model__name": bert,
            "epochs": "{head: 2, full: 2}",
            "unfreeze": "all",
            "learning_rate__full": 0.003,
            "output__path": tmp_path / name,
        }
        assert run_job("finetune", **given) == (0, "")
        told.append(manifest(tmp_path / name))
    for key in ("test_loss", "test_accuracy", "labels"):
        assert told[0][key] == pytest.approx(told[1][key])
    assert told[0]["test_accuracy"] == 1
    assert told[0]["counts"] == told[1]["counts"]


def test_what_cannot_work_is_exit_code_2_and_nothing_written(finetune, tmp_path):
    several = write(tmp_path / "several.parquet", key=[1, 2], kind=[["a"], ["b", "c"]])
    one = write(tmp_path / "one.parquet", key=[1, 2], kind=["a", "a"])
    twice = write(tmp_path / "twice.parquet", key=[1, 1], kind=["a", "b"])
    parts = write(tmp_path / "p.parquet", key=[1, 2], kind=["a", "b"], part=["train", "dev"])
    by_part = {"labels__path": parts, "split": "{column: part}"}
    texts = write(tmp_path / "texts.parquet", key=["1", "2"], kind=["a", "b"])
    cases = [
        ({"labels__path": several}, "finetune learns one label a row"),
        ({"labels__path": one}, "the training rows have 1 labels (a): nothing to learn"),
        ({"labels__path": twice}, "ids in column id are not unique: 1 (2 times)"),
        ({"labels__path": texts}, "the ids of the corpus and of the labels are bigint and string"),
        (by_part, "split.column has the value dev; write train, validation, test"),
        ({"labels__min_rows": 31}, "the training rows have 0 labels (none)"),
        ({"labels__label": "sort"}, "there is no column sort"),
        ({"model__layer": "avg_pool"}, "model.layer and model.normalize are about embeddings"),
        ({"model__precision": "float16"}, "float16 is not one to train"),
        ({"epochs": "{head: 0, full: 0}"}, "there is nothing to do"),
        ({"split__train": 0.5}, "add up to 0.7"),
        ({"model__name": "keras:MobileNetV2", "processes": 2}, "Keras models are trained by one"),
        ({"patience": 0}, "patience: "),
    ]
    for settings, words in cases:
        code, message = finetune(**settings)
        assert (code, words in message, message) == (2, True, message)
    assert finetune("--dry-run") == (0, "")
    assert leftovers(tmp_path / "work") == []


def test_the_library_refuses_what_the_job_does(spark, resnet, corpus, labels, out, tmp_path):
    frames = spark.read.parquet(corpus), spark.read.parquet(labels)
    tune = partial(ember.finetune, *frames, resnet, id="image_id", labels_id="key", label="kind")
    with pytest.raises(ember.TooManyFailures, match="2 of 60 labeled rows failed"):
        tune(str(out))
    assert leftovers(out.parent) == ["model.failures"]
    with pytest.raises(ember.InvalidInput, match=r"in\.parquet"):
        tune(corpus, mode="overwrite")
    with pytest.raises(ember.InvalidConfig, match="there is nothing to do"):
        tune(str(out), head_epochs=0, full_epochs=0)
    with pytest.raises(ember.InvalidConfig, match="finetune: patience"):
        tune(str(out), patience=0)
    with pytest.raises(ember.InvalidInput, match="no column kin"):
        tune(str(out), label="kin")
