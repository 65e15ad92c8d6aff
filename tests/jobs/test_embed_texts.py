"""The embed job on texts: folders of sentence-transformers, prompts, chunks, resuming them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import ember
from corpora import leftovers, manifest, rows, write
from ember.errors import InvalidConfig
from sentence_folders import ours, resolved, sentence_folder
from tiny_models import tiny_bert

LONG = "the cat sat on a mat and the big dog runs in the small house of a cat " * 2
TEXTS = {"a": LONG, "b": "a dog", "c": None, "d": LONG * 3}
CUT = {"chunk__tokens": 8, "chunk__overlap": 2, "limits__max_failed_fraction": 0.5}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return sentence_folder(
        tmp_path_factory.mktemp("sentences") / "model",
        tiny_bert(tmp_path_factory.mktemp("base")),
        "max",
        "dense",
        prompts={"query": "find: "},
    )


@pytest.fixture
def embed(embed_job, folder, out, tmp_path):
    def run(texts, *flags, **settings):
        path = write(
            tmp_path / "in.parquet", id=list(texts), content=pa.array(texts.values(), pa.string())
        )
        given = {
            "input__path": path,
            "input__id": "id",
            "input__modality": "text",
            "model__name": f"hf:{folder}",
            "output__path": out,
            **settings,
        }
        return embed_job(*flags, **given)

    return run


def chunks(out: Path) -> dict[str, list[dict]]:
    """The rows of each text, by chunk."""
    found: dict[str, list[dict]] = {}
    for row in sorted(pq.read_table(out).to_pylist(), key=lambda row: (row["id"], row["chunk"])):
        found.setdefault(row["id"], []).append(row)
    return found


def test_vectors_are_the_model_s_own_and_the_manifest_says_how(embed, out, folder):
    assert embed({"a": LONG, "b": "a dog"}, model__role="query", model__dimension=5) == (0, "")
    expected = ours(resolved(folder, role="query", dimension=5), [LONG, "a dog"])
    table = rows(out, "id")
    made = np.array([table[key]["embedding"] for key in "ab"])
    assert np.abs(made - expected).max() < 1e-5
    told = manifest(out)
    text = told["model"]["text"]
    assert (text["source"], text["prompt"], text["dimension"]) == ("modules.json", "find: ", 5)
    assert [each["kind"] for each in text["modules"]] == ["Pooling", "Dense", "Normalize"]
    assert text["unit_after"] is True
    assert (told["dimension"], told["max_tokens"], told["truncated_texts"]) == (5, 24, 1)
    from transformers import AutoTokenizer

    short = len(AutoTokenizer.from_pretrained(folder)("find: a dog")["input_ids"])
    assert told["tokens"] == 24 + short
    assert told["padding"] in (0.0, round((24 - short) / 48, 4))  # in two tasks, or in one
    for changes in ({"model__role": "document"}, {"model__dimension": 6}):
        settings = {"model__role": "query", "model__dimension": 5, **changes}
        code, message = embed({"a": LONG}, output__mode="resume", **settings)
        assert (code, "made with other settings" in message) == (2, True)


def test_every_text_has_all_its_chunks_and_a_text_that_failed_one_row(embed, out, folder):
    assert embed(TEXTS, **CUT) == (0, "")
    schema = pq.read_table(out).schema
    assert schema.names == ["id", "chunk", "start", "end", "embedding", "status", "error"]
    assert {str(schema.field(name).type) for name in schema.names[1:4]} == {"int32"}
    found = chunks(out)
    assert found.keys() == TEXTS.keys()
    assert [row["error"] for row in found.pop("c")] == ["null content"]
    good = [row for each in found.values() for row in each]
    cut = [TEXTS[row["id"]][row["start"] : row["end"]] for row in good]
    expected = ours(resolved(folder), cut)
    assert np.abs(np.array([row["embedding"] for row in good]) - expected).max() < 1e-5
    told = manifest(out)
    assert told["counts"]["input_rows"] == 4
    assert told["counts"]["rows"] == told["chunks"] == len(good) + 1
    assert told["counts"]["status"] == {"error": 1, "ok": len(good)}
    assert told["config"]["chunk"] == {"tokens": 8, "overlap": 2, "pool": None}


def test_a_resumed_run_keeps_texts_whose_chunks_are_all_there(embed, out):
    assert embed(TEXTS, **CUT)[0] == 0
    before = chunks(out)
    (file,) = (
        each for each in out.glob("*.parquet") if "d" in pq.read_table(each)["id"].to_pylist()
    )
    table = pq.read_table(file)
    lost = pc.and_(pc.equal(table["id"], "d"), pc.equal(table["chunk"], 1))
    pq.write_table(table.filter(pc.invert(lost)), file)
    (out / f".{file.name}.crc").unlink(missing_ok=True)
    texts = {**TEXTS, "c": "a small cat", "e": LONG}
    assert embed(texts, output__mode="resume", **CUT) == (0, "")
    told, after = manifest(out)["counts"], chunks(out)
    assert (told["reused"], told["embedded"], told["input_rows"]) == (2, 3, 5)  # kept: a and b
    assert after["a"] == before["a"]
    assert [row["chunk"] for row in after["d"]] == list(range(len(before["d"])))
    assert {row["status"] for each in after.values() for row in each} == {"ok"}

    for other in ({"chunk__tokens": 9}, {"chunk__pool": "mean"}):
        code, message = embed(texts, output__mode="resume", **{**CUT, **other})
        assert code == 2
        assert "chunk was 8 tokens, overlap 2" in message


def test_one_vector_a_text_from_the_library(spark, folder, tmp_path):
    frame = spark.createDataFrame(list(TEXTS.items()), "id string, content string")
    cut = {"tokens": 8, "overlap": 2}
    model, options = f"hf:{folder}", {"id": "id", "modality": "text"}
    parts = ember.embed(frame, model, chunk=cut, **options).toPandas()
    whole = ember.embed(frame, model, chunk={**cut, "pool": "mean"}, **options)
    assert whole.columns == ["id", "embedding", "status", "error"]
    for row in whole.collect():
        vectors = parts[parts["id"] == row["id"]]["embedding"]
        if row["id"] == "c":
            assert row["error"] == "null content"
            continue
        mean = np.mean(list(vectors), axis=0)
        assert np.abs(np.array(row["embedding"]) - mean / np.linalg.norm(mean)).max() < 1e-6
    for wrong, named in (
        ({"tokens": 4, "overlap": 4}, "overlap is 4"),
        ({"size": 4}, "chunk.size"),
    ):
        with pytest.raises(InvalidConfig, match=named):
            ember.embed(frame, model, chunk=wrong, **options)


def test_a_module_that_ember_does_not_know_is_exit_code_2_and_foretold(
    embed, out, folder, tmp_path
):
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    modules = json.loads((strange / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Quantum"
    (strange / "modules.json").write_text(json.dumps(modules))
    for flags in ((), ("--dry-run",)):
        code, message = embed({"a": "x"}, *flags, model__name=f"hf:{strange}")
        assert code == 2
        assert "the module Quantum, which Ember does not know" in message
        assert not out.parent.exists()
    assert embed({"a": "x"}, "--dry-run", model__name=f"hf:{strange}", model__layer="mean")[0] == 0


def test_chunks_that_cannot_be_are_exit_code_2_and_foretold(embed, tmp_path):
    for settings, named in (
        ({"chunk__tokens": 90, "chunk__overlap": 30}, "a chunk has at most 22 tokens"),
        ({"chunk__tokens": 8, "chunk__overlap": 8}, "chunk.overlap is 8 of chunk.tokens = 8"),
        ({"chunk__tokens": 9, "input__modality": "image"}, "chunk is for texts"),
    ):
        code, message = embed({"a": "x"}, "--dry-run", **settings)
        assert code == 2
        assert named in message
    assert leftovers(tmp_path) == ["in.parquet"]
