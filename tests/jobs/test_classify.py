"""The classify job: a model's own classes, a head on its embedding, what is refused."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import ember
from corpora import leftovers, manifest, picture, rows, write, write_pictures
from ember.worker.heads.head import Head
from ember.worker.results import PREDICTIONS
from tiny_models import tiny_bert

TEXTS = ["the cat sat on a mat", "a dog", None, "the big dog runs", " ", "blue house"]
TOPICS = ("pets", "homes", "colors", "sports")


@pytest.fixture
def classify(run_job, resnet, out):
    """The job on images with a tiny ResNet."""
    return partial(
        run_job,
        "classify",
        input__id="image_id",
        input__modality="image",
        model__name=resnet,
        output__path=out,
    )


@pytest.fixture(scope="module")
def topics(tmp_path_factory) -> str:
    return f"hf:{tiny_bert(tmp_path_factory.mktemp('topics'), labels=TOPICS)}"


def head(folder: Path, **changes) -> Head:
    rng = np.random.default_rng(0)
    d, c = changes.pop("d", 24), 3
    arrays = {
        "mean": rng.normal(size=d),
        "scale": rng.uniform(0.5, 2, d),
        "slope": rng.uniform(0.5, 2, c),
        "offset": rng.normal(size=c),
        "thresholds": np.full(c, 0.5),
    }
    given = {
        "kind": "logistic",
        "labels": ("red", "green", "blue"),
        "multilabel": False,
        "parts": (d,),
        "indicators": (),
        "layers": ((rng.normal(size=(d, c)).astype(np.float32), np.zeros(c, np.float32)),),
        **{name: array.astype(np.float32) for name, array in arrays.items()},
        **changes,
    }
    made = Head(**given)
    made.save(str(folder))
    return made


def plain(folder: str, images: list[bytes]):
    """Features and logits of each image by transformers alone."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    with torch.inference_mode():
        output = model(**processor(pictures, return_tensors="pt"), output_hidden_states=True)
    return output.hidden_states[-1].mean((2, 3)).numpy(), output.logits.numpy()


def softmax(logits):
    exps = np.exp(logits.astype(np.float64))
    return exps / exps.sum(axis=1, keepdims=True)


def test_own_classes_equal_plain_transformers_and_bad_rows_are_told(
    classify, out, tmp_path, resnet
):
    good = [picture(number) for number in range(20)]
    source = write(tmp_path / "in.parquet", image_id=list(range(22)), content=[*good, None, b"x"])
    code, message = classify(input__path=source)
    assert code == 3
    failures = pq.read_table(out.parent / "out.failures")
    assert failures.schema.names == ["image_id", "status", "error"]
    assert sorted(failures["error"].to_pylist())[1] == "null content"

    relaxed = {"input__path": source, "limits__max_failed_fraction": 0.1}
    assert classify(**relaxed, output__mode="resume") == (0, "")
    table = pq.read_table(out)
    assert table.schema.names == ["image_id", "predictions", "status", "error"]
    assert table.schema.field("predictions").type.value_type.names == ["index", "label", "score"]
    scores = softmax(plain(resnet.removeprefix("hf:"), good)[1])
    by_id = rows(out, "image_id")
    for number in range(20):
        best = np.argsort(-scores[number])[:3]
        ours = by_id[number]["predictions"]
        assert [each["index"] for each in ours] == best.tolist()
        assert [each["label"] for each in ours] == [
            ["ant", "bee", "cow", "dog", "elk"][index] for index in best
        ]
        np.testing.assert_allclose(
            [each["score"] for each in ours], scores[number][best], rtol=1e-4
        )
    assert by_id[20]["predictions"] is by_id[21]["predictions"] is None
    told = manifest(out)
    assert told["counts"]["reused"] == 20
    assert told["counts"]["status"] == {"error": 2, "ok": 20}
    assert (told["labels"], told["head"], told["model"]["layer"]) == (5, None, "classes")
    assert leftovers(out.parent) == ["out"]

    code, message = classify(**relaxed, output__mode="resume", top_k=2)
    assert code == 2
    assert "made with other settings (predictions was" in message


def test_several_labels_at_once_are_sigmoids_with_thresholds(run_job, out, tmp_path, topics):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    (tmp_path / "names.csv").write_text("index,name\n" + "".join(f"{n},t{n}\n" for n in range(4)))
    code, message = run_job(
        "classify",
        input__path=write(tmp_path / "in.parquet", key=list(range(6)), text=TEXTS),
        input__id="key",
        input__content="text",
        input__modality="text",
        model__name=topics,
        labels=tmp_path / "names.csv",
        threshold="model",
        top_k=99,
        output__path=out,
        limits__max_failed_fraction=0.5,
    )
    assert (code, message) == (0, "")
    folder = topics.removeprefix("hf:")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    by_id = rows(out, "key")
    assert [by_id[key]["predictions"] for key in (2, 4)] == [None, None]
    lengths = set()
    for key in (0, 1, 3, 5):
        with torch.inference_mode():
            logits = model(**tokenizer(TEXTS[key], return_tensors="pt")).logits[0].numpy()
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        expected = [f"t{index}" for index in np.argsort(-scores) if scores[index] >= 0.5]
        assert [each["label"] for each in by_id[key]["predictions"]] == expected
        lengths.add(len(expected))
    assert lengths - {4}  # the threshold left some out


def test_a_head_is_applied_to_the_embedding_of_the_same_pass(
    classify, spark, out, tmp_path, resnet
):
    made = head(tmp_path / "head")
    source = write_pictures(tmp_path / "in.parquet", 12)
    given = {"input__path": source, "head": f"file://{tmp_path}/head", "top_k": 2}
    assert classify("--dry-run", **given) == (0, "")
    assert not out.parent.exists()
    assert classify(**given) == (0, "")
    features, _ = plain(resnet.removeprefix("hf:"), [picture(number) for number in range(12)])
    scores = made.scores(features)
    by_id = rows(out, "image_id")
    for number in range(12):
        ours = by_id[f"picture-{number:04}"]["predictions"]
        best = np.argsort(-scores[number])[:2]
        assert [each["label"] for each in ours] == [made.labels[index] for index in best]
        assert [each["score"] for each in ours] == pytest.approx(
            scores[number][best].tolist(), rel=1e-3
        )
    assert manifest(out)["head"] == made.fingerprint()

    frame = ember.classify(
        spark.read.parquet(source), resnet, id="image_id", head=str(tmp_path / "head"), top_k=2
    )
    for row in frame.collect():
        ours = by_id[row["image_id"]]["predictions"]
        assert [each["index"] for each in row["predictions"]] == [each["index"] for each in ours]


def test_tables_of_embeddings_are_joined_by_id_and_may_lack_rows(run_job, out, tmp_path):
    floats = pa.list_(pa.float32())
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 30, 3)).astype(np.float32)
    first = [*one[:20], None, one[21][:2], *one[22:26]]  # ids 0 to 25, 20 and 21 of no use
    second = two[8:, :2]  # ids 8 to 29
    narrow = pa.array(range(8, 30), pa.int32())  # equal to the integers of any width
    paths = [
        write(tmp_path / "a.parquet", **{"my.id": [*range(26)]}, embedding=pa.array(first, floats)),
        write(tmp_path / "b.parquet", key=narrow, v=pa.array(list(second), floats)),
    ]  # fmt: skip
    layers = ((rng.normal(size=(6, 3)).astype(np.float32), np.zeros(3, np.float32)),)
    made = head(tmp_path / "head", d=5, parts=(3, 2), indicators=(1,), layers=layers)
    features = f"[{{path: {paths[0]}, id: my.id}}, {{path: {paths[1]}, id: key, embedding: v}}]"
    given = {"features": features, "head": tmp_path / "head", "top_k": 1, "output__path": out}
    assert run_job("classify", **given, limits__max_failed_fraction=0.1) == (0, "")

    matrix = np.concatenate([one, two[:, :2]], axis=1)
    matrix[[20, *range(26, 30)], :3] = np.nan
    matrix[:8, 3:] = np.nan
    scores = made.scores(matrix)
    by_id = rows(out, "my.id")
    assert sorted(by_id) == list(range(30))
    for key, row in by_id.items():
        if key == 21:
            assert (row["predictions"], row["error"]) == (None, "wrong length: 2 instead of 3")
            continue
        (best,) = row["predictions"]
        assert best["label"] == made.labels[scores[key].argmax()]
        assert best["score"] == pytest.approx(scores[key].max(), rel=1e-5)
    told = manifest(out)
    assert (told["dimension"], told["counts"]["rows"], told["head"]) == (5, 30, made.fingerprint())
    assert told["lacking_table"] == [5, 8]

    repeated = write(tmp_path / "c.parquet", key=[1, 1], v=pa.array([[0, 0]] * 2, floats))
    texts = write(tmp_path / "d.parquet", key=["1"], v=pa.array([[0, 0]], floats))
    for path, words in [(repeated, "(1 in table 1)"), (texts, "are bigint and string")]:
        told = run_job(
            "classify", **{**given, "features": features.replace(paths[1], path)},
            output__mode="overwrite",
        )  # fmt: skip
        assert (told[0], words in told[1], told) == (2, True, told)


def test_what_does_not_go_together_is_exit_code_2(classify, run_job, out, tmp_path, bert):
    source = write_pictures(tmp_path / "in.parquet", 2)
    (tmp_path / "two.json").write_text(json.dumps(["a", "b"]))
    head(tmp_path / "two tables", parts=(20, 4), indicators=())
    head(tmp_path / "metric", kind="similarity", labels=(), slope=np.zeros(0, np.float32),
         offset=np.zeros(0, np.float32), thresholds=np.zeros(0, np.float32))  # fmt: skip
    head(tmp_path / "whole")
    texts = {"input__modality": "text", "input__content": "image_id", "model__name": bert}
    cases = [
        ({"model__layer": "avg_pool"}, "model.layer is about embeddings"),
        ({"model__normalize": "true"}, "model.normalize is about embeddings"),
        ({"threshold": "model"}, "threshold: model is for models that give several labels"),
        ({"threshold": 2}, "threshold: "),
        ({"top_k": 0}, "top_k: "),
        ({"head": tmp_path / "nothing"}, "there is nothing at"),
        ({"head": tmp_path / "two tables"}, "was trained on 2 tables"),
        ({"head": tmp_path / "metric"}, "a learned metric without labels"),
        ({"labels": tmp_path / "two.json"}, "names 2 classes and hf:"),
        (
            {"head": tmp_path / "whole", "labels": tmp_path / "two.json"},
            "names 2 classes and the head has 3",
        ),
        ({"labels": tmp_path / "none.json"}, "labels: there is no file"),
        (texts, "has no classification head"),
    ]
    for settings, words in cases:
        code, message = classify(**{"input__path": source, **settings})
        assert (code, words in message, message) == (2, True, message)
    features = {"features": f"[{{path: {source}, id: image_id}}]"}
    bare = [
        ({}, "input is missing; give input and model, or features and head"),
        (features, "head is missing; features are classified by a head"),
        ({**features, "head": tmp_path / "two tables"}, "names 1 tables and the head was"),
        ({**features, "model.name": bert}, "features are given, and input or model as well"),
    ]
    for settings, words in bare:
        code, message = run_job("classify", **settings, output__path=out)
        assert (code, words in message, message) == (2, True, message)
    assert not out.parent.exists()


def test_the_type_that_spark_declares_is_the_one_that_workers_give(spark):
    from pyspark.sql.pandas.types import from_arrow_type

    from ember.spark.column_types import TYPES

    assert from_arrow_type(PREDICTIONS) == TYPES["predictions"]
