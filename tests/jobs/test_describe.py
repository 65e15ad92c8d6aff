"""The describe job: prompts out of columns and tables, images, what is refused and resumed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

import ember
from corpora import leftovers, manifest, picture, rows, write
from ember.spark.publish import Output
from ember.worker.results import PREDICTIONS
from tiny_models import tiny_captioner, tiny_gpt2

NEW = 6


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> str:
    return f"hf:{tiny_gpt2(tmp_path_factory.mktemp('gpt2'))}"


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> str:
    return f"hf:{tiny_captioner(tmp_path_factory.mktemp('captioner'))}"


@pytest.fixture
def describe(run_job, gpt2, out):
    """The job on texts with a tiny GPT-2."""
    return partial(
        run_job,
        "describe",
        input__id="key",
        input__modality="text",
        model__name=gpt2,
        generation__max_new_tokens=NEW,
        output__path=out,
    )


@pytest.fixture(scope="module")
def plain(gpt2):
    """A text by plain transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = gpt2.removeprefix("hf:")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def generate(prompt: str) -> str:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        new = output[0, inputs["input_ids"].shape[1] :]
        return tokenizer.decode(new, skip_special_tokens=True)

    return generate


def predictions(*labels: str | None) -> pa.Array:
    """A column as classify writes it: for each row its labels, best first, parted by a space."""
    values = [
        None
        if each is None
        else [{"index": 0, "label": label, "score": 0.5} for label in each.split()]
        for each in labels
    ]
    return pa.array(values, PREDICTIONS)


def test_a_template_is_filled_from_columns_and_bad_rows_are_told(
    describe, out, tmp_path, plain, gpt2
):
    columns = {
        "key": pa.array([10, 20, 30, 40, 50, 60], pa.int16()),
        "the `top`": predictions("cat dog", "bee", None, "", "ant elk", "cow"),
        "facts": [{"size": size} for size in (1.5, 2.0, 3.0, 4.0, None, 5.5)],
    }
    given = {
        "input__path": write(tmp_path / "in.parquet", **columns),
        "prompt__template": "A photo of {label} ({size} {{cm}}):",
        "prompt__columns": "{label: 'the `top`', size: facts.size}",
    }
    assert describe("--dry-run", **given) == (0, "")
    assert not out.parent.exists()
    code, message = describe(**given)
    assert (code, "3 of 6 rows failed (3 missing value)" in message) == (3, True), message
    assert pq.read_table(out.parent / "out.failures").schema.names == ["key", "status", "error"]

    relaxed = {**given, "limits__max_failed_fraction": 0.5, "output__mode": "resume"}
    assert describe(**relaxed) == (0, "")
    table = pq.read_table(out)
    assert table.schema.names == ["key", "description", "status", "error"]
    assert [str(field.type) for field in table.schema] == ["int16", "string", "string", "string"]
    prompts = {
        10: "A photo of cat (1.5 {cm}):",
        20: "A photo of bee (2.0 {cm}):",
        60: "A photo of cow (5.5 {cm}):",
    }
    by_id = rows(out, "key")
    assert {key: by_id[key]["description"] for key in prompts} == {
        key: plain(prompt) for key, prompt in prompts.items()
    }
    assert {key: row["error"] for key, row in by_id.items() if row["error"]} == {
        30: "missing value: {label}",
        40: "missing value: {label}",
        50: "missing value: {size}",
    }
    told = manifest(out)
    counts = {"rows": 6, "reused": 3, "described": 3, "status": {"error": 3, "ok": 3}}
    assert told["counts"] == {**told["counts"], **counts}
    assert told["model"]["generation"]["max_new_tokens"] == NEW
    assert (told["model"]["layer"], told["truncated_texts"]) == ("text", 0)
    assert leftovers(out.parent) == ["out"]

    code, message = describe(**relaxed, generation__stop="[x]")
    assert (code, "made with other settings (model was" in message) == (2, True), message
    code, message = describe(**relaxed, prompt__separator=";")
    assert (code, "made with other settings (prompt was" in message) == (2, True), message


def test_labels_and_captions_of_neighbors_come_from_other_tables(describe, out, tmp_path, plain):
    names = ["a", "b", "c", "d"]
    labels = write(
        tmp_path / "labels.parquet",
        **{"my id": ["d", "c", "b", "a"]},
        predictions=predictions("ant bee cow", "elk", "dog cow", "cow"),
    )
    near = {  # the best first; e has no caption, f a blank one
        "a": ["e", "b", "f", "c", "d"],
        "b": ["c"],
        "c": ["e", "f"],
    }
    pairs = [(key, other, rank) for key, each in near.items() for rank, other in enumerate(each, 1)]
    pairs.reverse()
    found = write(
        tmp_path / "found" / "part.parquet",
        query_id=[pair[0] for pair in pairs],
        neighbor_id=[pair[1] for pair in pairs],
        rank=pa.array([pair[2] for pair in pairs], pa.int32()),
    )
    captions = write(
        tmp_path / "captions.parquet",
        key=["b", "c", "d", "e", "f", None],
        text=["the b", "a c", "my d", None, " ", "none"],
    )
    tables = (
        f"{{labels: {{path: {labels}, id: my id, column: predictions, top: 2}}, captions: {{path: "
        f"{captions}, id: key, column: text, neighbors: {Path(found).parent}, top: 2}}}}"
    )
    code, message = describe(
        input__path=write(tmp_path / "in.parquet", key=names),
        prompt__template="{labels}! {captions}? {labels}",
        prompt__tables=tables,
        limits__max_failed_fraction=0.5,
    )
    assert (code, message) == (0, "")
    by_id = rows(out, "key")
    assert by_id["a"]["description"] == plain("cow! the b, a c? cow")
    assert by_id["b"]["description"] == plain("dog, cow! a c? dog, cow")
    assert {by_id[key]["error"] for key in "cd"} == {"missing value: {captions}"}
    read = manifest(out)["input_files"]
    assert [Path(file).stem for file in read] == ["captions", "part", "in", "labels"]

    twice = write(tmp_path / "twice.parquet", **{"my id": ["a", "a"]}, predictions=["x", "y"])
    code, message = describe(
        input__path=write(tmp_path / "in.parquet", key=names),
        prompt__template="'{labels}'",
        prompt__tables=f"{{labels: {{path: {twice}, id: my id, column: predictions}}}}",
        output__mode="overwrite",
    )
    assert (code, "ids in column my id are not unique: a (2 times)" in message) == (2, True)


def test_images_are_described_whatever_their_prompts(run_job, out, tmp_path, captioner, spark):
    files = [tmp_path / f"a {number}.png" for number in range(4)]
    for number, file in enumerate(files[:3]):
        file.write_bytes(picture(number, (40 + 9 * number, 30)))
    source = write(
        tmp_path / "in.parquet",
        image_id=list(range(4)),
        content=[str(file) for file in files],
        word=["cat", None, "dog", "cat"],
    )
    given = {
        "input__path": source,
        "input__id": "image_id",
        "input__modality": "image",
        "input__content_is": "paths",
        "model__name": captioner,
        "generation__max_new_tokens": NEW,
        "output__path": out,
        "limits__max_failed_fraction": 0.5,
    }
    assert run_job("describe", **given, prompt__template="a {word}") == (0, "")
    prompted = rows(out, "image_id")
    assert prompted[1]["error"] == "missing value: {word}"
    assert prompted[3]["error"] == f"file not found: {files[3]}"
    contents = [(number, file.read_bytes()) for number, file in enumerate(files[:3])]
    frame = spark.createDataFrame(contents, ["image_id", "content"])
    lazy = partial(ember.describe, model=captioner, id="image_id", max_new_tokens=NEW)
    bare = {r["image_id"]: r["description"] for r in lazy(frame, modality="image").collect()}
    worded = lazy(frame.withColumn("w", F.lit("cat")), modality="image", prompt="a {w}").collect()
    assert worded[0]["description"] == prompted[0]["description"] != bare[0]
    assert None not in bare.values()


def test_sampled_texts_do_not_depend_on_partitions(spark, gpt2):
    prompts = [(number, f"a {'dog' * (number % 5)} {number % 3}") for number in range(40)]
    frame = spark.createDataFrame(prompts, ["key", "content"])
    found = []
    for parts, batch_size in ((1, 40), (7, 3)):
        described = ember.describe(
            frame.repartition(parts),
            gpt2,
            id="key",
            max_new_tokens=NEW,
            batch_size=batch_size,
            sampling={"seed": 7, "temperature": 0.8, "top_p": 0.95},
        )
        found.append({row["key"]: row["description"] for row in described.collect()})
    assert found[0] == found[1]
    assert len(set(found[0].values())) > 20


def test_an_interrupted_run_is_resumed(describe, out, tmp_path, plain, monkeypatch):
    words = [f"word {number}" for number in range(12)]
    source = tmp_path / "in.parquet"
    write(source, key=list(range(7)), content=words[:7])

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # when all is written and nothing published
        patched.setattr(Output, "counts", interrupt)
        assert describe(input__path=source)[0] == 130
    assert not out.exists()
    write(source, key=list(range(12)), content=words)
    code, message = describe(input__path=source, output__mode="resume", model__batch_size=2)
    assert (code, message) == (0, "")
    counts = manifest(out)["counts"]
    assert (counts["reused"], counts["described"], counts["rows"]) == (7, 5, 12)
    by_id = rows(out, "key")
    assert [by_id[key]["description"] for key in range(12)] == [plain(word) for word in words]
    assert leftovers(out.parent) == ["out"]


def test_what_does_not_go_together_is_exit_code_2(describe, out, tmp_path, bert):
    bad = {"key": [1], "content": ["a"], "vector": [[[0.5]]], "bytes": [b"x"]}
    source = write(tmp_path / "in.parquet", **bad)
    ids = write(tmp_path / "ids.parquet", key=["1"], word=["x"])
    table = f"prompt.tables={{word: {{path: {ids}, id: key, column: word}}}}"
    cases = [
        (["model.name=keras:ResNet50"], "keras:ResNet50 writes no texts"),
        ([f"model.name={bert}"], "lacks the weights"),
        (["model.layer=cls"], "unknown key model.layer"),
        (["generation.min_new_tokens=9"], "min_new_tokens is 9, over max_new_tokens = 6"),
        (["generation.max_new_tokens=48"], "takes 48 tokens in all, prompt included"),
        (["generation.sampling.top_p=0"], "generation.sampling.top_p"),
        (['prompt.template="a {}"'], "write {name} with the name of a column"),
        (['prompt.template="a {b!r}"'], "write {name} with the name of a column"),
        (['prompt.template="a {"'], "write {{ and }} for braces"),
        (['prompt.template="{word}"'], "there is no column word"),
        (['prompt.template="{vector}"'], "column vector of the input is array<array<double>>"),
        (['prompt.template="{bytes}"'], "column bytes of the input is binary"),
        (
            ['prompt.template="a"', "prompt.columns={b: key}"],
            "prompt.columns.b is not in the templ",
        ),
        (['prompt.template="{key}"', "input.content=content"], "a text has one prompt"),
        (['prompt.template="{word}"', table, "prompt.columns={word: key}"], "as a column and as a"),
        (['prompt.template="{word}"', table], "the ids to be joined are bigint and string"),
        (["input.content=vector"], "the content column vector is array"),
    ]
    for changes, words in cases:
        flags = [f"--set={change}" for change in changes]
        code, message = describe("--dry-run", *flags, input__path=source)
        assert (code, words in message, message) == (2, True, message)
    assert not out.parent.exists()
