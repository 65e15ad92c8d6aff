"""The embed job run in one process with the tests' session: accounting, publishing, resuming."""

from __future__ import annotations

import datetime
import decimal
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import functions as F

from corpora import (
    assert_close,
    bomb,
    leftovers,
    manifest,
    picture,
    rows,
    vectors,
    write,
    write_pictures,
)


@pytest.fixture
def embed(embed_job, resnet, out):
    """The job on images with a tiny ResNet; the output goes to `out`."""

    def run(input_path, *flags, **settings):
        given = {
            "input__path": input_path,
            "input__id": "image_id",
            "input__modality": "image",
            "model__name": resnet,
            "output__path": out,
            **settings,
        }
        return embed_job(*flags, **given)

    return run


def test_every_row_comes_out_with_its_vector_and_a_manifest(embed, out, tmp_path, resnet):
    import torch
    from transformers import AutoImageProcessor, AutoModel

    assert embed(write_pictures(tmp_path / "in.parquet", 60), "--run-id", "first") == (0, "")
    table = pq.read_table(out)
    assert table.schema.names == ["image_id", "embedding", "status", "error"]
    assert table.schema.field("embedding").type.value_type == pa.float32()
    assert set(table["status"].to_pylist()) == {"ok"}
    assert table["error"].null_count == 60

    folder = resnet.removeprefix("hf:")
    model, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    ours = vectors(out, "image_id")
    for number in (0, 31, 59):
        with torch.inference_mode():
            pixels = processor(_open(picture(number)), return_tensors="pt")
            reference = model.eval()(**pixels).last_hidden_state.mean((2, 3))[0].numpy()
        assert_close(ours[f"picture-{number:04}"], reference)

    told = manifest(out)
    assert told["run_id"] == "first"
    assert told["dimension"] == len(reference)
    assert told["counts"] == {
        "rows": 60,
        "status": {"ok": 60},
        "reasons": {},
        "reused": 0,
        "embedded": 60,
    }
    assert told["input_files"] == [f"file://{tmp_path}/in.parquet"]
    assert told["model"]["layer"] == "avg_pool"
    assert told["config"]["limits"]["max_failed_fraction"] == 0.01
    assert [*told["seconds"]] == ["session", "check", "plan", "embed", "count", "merge"]
    assert all(loads == 1 for loads in told["loads_by_worker"].values())
    assert leftovers(out.parent) == ["out"]


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def bad_images(missing: str) -> dict[str, bytes | None]:
    jpeg = picture(1, form="JPEG")
    return {
        "null content": None,
        "empty content": b"",
        "not an image": b"just some text",
        "truncated image": jpeg[: len(jpeg) // 2],
        "single pixel image": picture(2, (1, 1)),
        "too many pixels": bomb(),
    }


def test_two_thousand_rows_with_bad_ones_all_come_out_each_with_its_reason(embed, out, tmp_path):
    bad = bad_images("")
    reasons = [*bad] * 17
    good = [picture(number % 7) for number in range(2000 - len(reasons))]
    content = [*good, *(bad[reason] for reason in reasons)]
    order = np.random.default_rng(0).permutation(2000)
    path = write(
        tmp_path / "in.parquet",
        image_id=pa.array(order, pa.int64()),
        content=[content[each] for each in order],
    )

    code, message = embed(path)
    assert code == 3
    assert "102 of 2000 rows failed" in message
    assert not out.exists()
    kept = rows(tmp_path / "work" / "out.failures", "image_id")
    assert len(kept) == 102

    assert embed(path, limits__max_failed_fraction=0.06, output__mode="resume") == (0, "")
    table = rows(out, "image_id")
    assert sorted(table) == list(range(2000))
    for number in range(2000):
        row = table[number]
        if number < len(good):
            assert (row["status"], row["error"]) == ("ok", None)
            assert len(row["embedding"]) == len(table[0]["embedding"])
        else:
            assert row["status"] == "error"
            assert row["embedding"] is None
            assert row["error"].split(":")[0] == reasons[number - len(good)]
    told = manifest(out)["counts"]
    assert told["status"] == {"error": 102, "ok": 1898}
    assert told["reasons"] == dict.fromkeys(sorted(bad), 17)
    assert told["reused"] == 1898
    assert leftovers(out.parent) == ["out"]


def test_rows_of_equal_content_have_one_vector_and_are_counted(embed, out, tmp_path, spark):
    path = write(
        tmp_path / "in.parquet",
        image_id=range(300),
        content=[None if number == 7 else picture(number // 299) for number in range(300)],
    )
    assert embed(path) == (0, "")
    table = rows(out, "image_id")
    assert {key for key, row in table.items() if row["status"] == "error"} == {7}
    found = np.array([table[key]["embedding"] for key in range(299) if key != 7])
    assert_close(found, found[0])
    assert np.abs(np.array(table[299]["embedding"]) - found[0]).max() > 1e-3
    tasks = 4 * spark.sparkContext.defaultParallelism
    assert 298 - tasks <= manifest(out)["equal_rows"] < 298


def test_images_given_by_path_are_read_and_a_missing_one_is_an_error_row(embed, out, tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(0))
    uri = (folder / "a.png").as_uri()
    content = [str(folder / "a.png"), uri, str(folder / "gone.png"), None, ""]
    path = write(tmp_path / "in.parquet", image_id=list("abcde"), content=content)
    assert embed(path, input__content_is="paths", limits__max_failed_fraction=0.6)[0] == 0
    table = rows(out, "image_id")
    assert table["a"]["embedding"] == table["b"]["embedding"] is not None
    assert table["c"]["error"] == f"file not found: {folder}/gone.png"
    assert [table[each]["error"] for each in "de"] == ["null content", "empty content"]


def test_rows_read_nothing_that_the_configuration_does_not_let_them(embed, out, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "data" / "b.png").write_bytes(picture(0))
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "a.png")
    content = ["b.png", str(tmp_path / "a.png"), "../a.png", "link.png", "/dev/zero"]
    content += ["http://169.254.169.254/latest/", "simplecache::memory://a.png"]
    path = write(tmp_path / "data" / "in.parquet", image_id=list(range(7)), content=content)
    code, message = embed(path)  # the type of a column opens no files
    assert (code, "set input.content_is to paths" in message) == (2, True), message
    assert not out.parent.exists()
    given = {"input__content_is": "paths", "limits__max_failed_fraction": 0.9}
    assert embed(path, **given)[0] == 0
    table = rows(out, "image_id")
    assert [table[each]["status"] for each in range(7)] == ["ok", *["error"] * 6]
    for each in range(1, 7):
        assert table[each]["error"].startswith("path not allowed: ")
    code, message = embed(path, **given, input__root=tmp_path, output__mode="overwrite")
    assert code == 0, message
    found = [row["status"] for _, row in sorted(rows(out, "image_id").items())]
    assert found == ["error", "ok", "error", "error", "error", "error", "error"]


def test_a_root_must_name_a_place(embed, out, tmp_path):
    path = write(tmp_path / "in.parquet", image_id=[1], content=["a.png"])
    for root, words in (("https://", "names no host"), ("[]", "root")):
        code, message = embed(path, input__content_is="paths", input__root=root)
        assert (code, words in message) == (2, True), message
    code, message = embed(path, input__content_is="paths", input__modality="text")
    assert (code, "content_is: paths is for images" in message) == (2, True), message


def test_a_row_over_the_limit_of_bytes_is_an_error_row(embed, out, tmp_path, bert):
    content = [b"short", b"word " * 100]
    path = write(tmp_path / "in.parquet", image_id=[1, 2], content=content)
    given = {"limits__max_bytes": 100, "limits__max_failed_fraction": 0.5}
    assert embed(path, **given, input__modality="text", model__name=bert)[0] == 0
    errors = {key: row["error"] for key, row in rows(out, "image_id").items()}
    assert errors == {1: None, 2: "too many bytes: 500 bytes, more than limits.max_bytes = 100"}


def test_texts_that_are_not_texts_are_error_rows(embed, out, tmp_path, bert):
    content = pa.array([b"a fine text", b"bad \xff bytes", None, b"", b"  \n"], pa.binary())
    # As a string column too: Parquet does not check that strings are UTF-8.
    for number, column in enumerate((content, content.view(pa.string()))):
        path = write(tmp_path / f"{number}.parquet", image_id=list("abcde"), content=column)
        settings = {
            "input__modality": "text",
            "model__name": bert,
            "limits__max_failed_fraction": 0.8,
            "output__mode": "overwrite",
        }
        assert embed(path, **settings)[0] == 0
        errors = {key: row["error"] for key, row in rows(out, "image_id").items()}
        assert errors == {
            "a": None,
            "b": "invalid text: not UTF-8 at byte 4",
            "c": "null content",
            "d": "empty content",
            "e": "empty content",
        }


def test_texts_over_the_model_s_length_are_cut_and_counted(embed, out, tmp_path, bert):
    texts = ["short", "word " * 5000, "another one"]
    path = write(tmp_path / "in.parquet", image_id=[1, 2, 3], content=texts)
    assert embed(path, input__modality="text", model__name=bert)[0] == 0
    assert manifest(out)["truncated_texts"] == 1


def test_dry_run_foretells_a_model_that_cannot_embed_a_text(embed, out, tmp_path):
    from text_models import text_model

    path = write(tmp_path / "in.parquet", image_id=[1], content=["w1 w2"])
    model = text_model(tmp_path / "xmod", "xmod", default_language=None)
    for flags in (["--dry-run"], []):
        code, err = embed(path, *flags, input__modality="text", model__name=f"hf:{model}")
        assert code == 2
        assert "cannot embed a text: ValueError: Input language unknown" in err
        assert not out.exists()


def test_manifest_says_what_a_model_s_batches_hold(embed, out, tmp_path):
    from text_models import text_model

    path = write(tmp_path / "in.parquet", image_id=[1, 2], content=["w1 w2", "w3"])
    model = text_model(tmp_path / "fnet", "fnet")
    assert embed(path, input__modality="text", model__name=f"hf:{model}")[0] == 0
    (note,) = manifest(out)["notes"]
    assert note.startswith("texts of equal length in a batch, since padding changes")


IDS = {
    "int": pa.array([1, -2, 3], pa.int32()),
    "tinyint": pa.array([1, 2, 3], pa.int8()),
    "double": pa.array([0.1, -0.0, 1e300], pa.float64()),
    "boolean": pa.array([True, False, None]),
    "binary": pa.array([b"\x00", b"\xff\xfe", b""], pa.binary()),
    "date": pa.array([datetime.date(1, 1, 1), datetime.date(2026, 2, 28), None]),
    "timestamp": pa.array(
        [datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, datetime.UTC), None, None],
        pa.timestamp("us", "UTC"),
    ),
    "timestamp_ntz": pa.array([datetime.datetime(2026, 3, 29, 2, 30), None, None]),
    "decimal(38,2)": pa.array(
        [decimal.Decimal("12345678901234567890123456789012345.67"), 0, -1], pa.decimal128(38, 2)
    ),
    "string": pa.array(["", "日本/é \n\t'\"`", None]),
}


@pytest.mark.parametrize("kind", IDS)
def test_an_id_of_any_atomic_type_keeps_name_type_and_values(spark, resnet, tmp_path, kind):
    import ember

    name = "the `id`, with. dots"
    path = write(tmp_path / "in.parquet", **{name: IDS[kind], "content": [picture(1)] * 3})
    frame = spark.read.parquet(path)
    assert frame.schema[0].dataType.simpleString() == kind
    embedded = ember.embed(frame, resnet, id=name)
    assert embedded.schema[0] == frame.schema[0]
    embedded.write.parquet(str(tmp_path / "out"))
    there = spark.read.parquet(str(tmp_path / "out")).select(F.col(f"`{name.replace('`', '``')}`"))
    here = frame.select(F.col(f"`{name.replace('`', '``')}`"))
    assert sorted(map(str, there.collect())) == sorted(map(str, here.collect()))


def test_nested_columns_are_taken_by_their_path(embed, out, tmp_path):
    inner = pa.array([{"key": number, "image": picture(number)} for number in range(3)])
    path = write(tmp_path / "in.parquet", row=inner)
    assert embed(path, input__id="row.key", input__content="row.image")[0] == 0
    assert sorted(rows(out, "key")) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_corpus_and_one_row_make_a_table(embed, out, tmp_path, count):
    ids = pa.array(range(count), pa.int64())
    content = pa.array([picture(0)] * count, pa.binary())
    path = write(tmp_path / "in.parquet", image_id=ids, content=content)
    assert embed(path) == (0, "")
    table = pq.read_table(out)
    assert table.num_rows == count
    assert table.schema.names == ["image_id", "embedding", "status", "error"]
    assert manifest(out)["workers"] == count


def test_the_table_does_not_depend_on_partitions_batches_or_neighbors(embed, out, tmp_path):
    write_pictures(tmp_path / "a" / "in.parquet", 37)
    assert embed(tmp_path / "a")[0] == 0
    first = vectors(out, "image_id")
    table = pq.read_table(tmp_path / "a" / "in.parquet")
    for number in range(0, 37, 5):
        write(tmp_path / "b" / f"{number}.parquet", **_columns(table.slice(number, 5)))
    settings = {"model__batch_size": 3, "limits__rows_per_task": 4, "output__mode": "overwrite"}
    assert embed(tmp_path / "b" / "*.parquet", **settings)[0] == 0
    second = vectors(out, "image_id")
    assert first.keys() == second.keys()
    for key, vector in first.items():
        assert_close(second[key], vector)


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    return {name: table[name].combine_chunks() for name in table.schema.names}


def test_many_small_partitions_load_the_model_once_per_worker(embed, out, tmp_path):
    path = write_pictures(tmp_path / "in.parquet", 120)
    assert embed(path, limits__rows_per_task=2)[0] == 0
    told = manifest(out)
    assert told["counts"]["rows"] == 120
    # Spark may start a worker while another ends: a few processes, not one to a partition.
    assert told["model_loads"] == told["workers"] < 12


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input__path": "/nowhere/at/all"}, ["there is nothing at /nowhere/at/all"]),
        ({"input__id": "imageid"}, ["no column imageid", "image_id, content"]),
        ({"input__content": "bytes"}, ["no column bytes", "image_id, content"]),
        ({"input__content": "number"}, ["content column number is bigint"]),
        ({"input__id": "list"}, ["id column list is array"]),
        ({"model__name": "ResNet50"}, ["keras:<name>", "hf:<hub id or folder>"]),
        ({"model__name": "keras:ResNet5"}, ["keras:ResNet5", "did you mean", "ResNet50"]),
        ({"model__name": "hf:/no/folder"}, ["there is no model folder /no/folder"]),
        ({"model__name": "hf:no-such/model"}, ["hf:no-such/model", "hf:<folder>"]),
        (
            {"model__name": "keras:VGG16", "model__weights": "gone.h5"},
            ["there is no file", "gone.h5"],
        ),
        ({"model__layer": "fc1"}, ["layer fc1", "avg_pool"]),
        ({"model__runtime": "tensorflow"}, ["runtime tensorflow does not run", "torch"]),
        ({"model__precision": "int4"}, ["model.precision", "float32"]),
        ({"model__modle": 1}, ["unknown key model.modle"]),
    ],
)
def test_what_cannot_work_is_exit_code_2_with_one_message_and_nothing_written(
    embed, out, tmp_path, settings, words
):
    path = write(
        tmp_path / "in.parquet",
        image_id=["a"],
        content=[picture(0)],
        number=[1],
        list=[[1]],
    )
    code, message = embed(path, **settings)
    assert code == 2
    assert message.startswith("ember embed: ")
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert not out.parent.exists()


def test_repeated_ids_are_named_where_the_check_is_asked_for(embed, out, tmp_path):
    path = write(tmp_path / "in.parquet", image_id=[7, 8, 7], content=[picture(0)] * 3)
    code, message = embed(path, input__unique_ids=True)
    assert (code, "7 (2 times)" in message, out.exists()) == (2, True, False)
    assert embed(path)[0] == 0
    assert pq.read_table(out)["image_id"].to_pylist().count(7) == 2


@pytest.mark.parametrize("damage", ["text", "cut", "pages"])
def test_an_unreadable_input_file_is_exit_code_2(embed, out, tmp_path, damage):
    write_pictures(tmp_path / "in" / "a.parquet", 9)
    good = Path(write_pictures(tmp_path / "in" / "b.parquet", 9)).read_bytes()
    damaged = {
        "text": b"this is no parquet",
        "cut": good[:-100],
        "pages": good[:4] + b"\xff" * 4000 + good[4004:],
    }
    (tmp_path / "in" / "b.parquet").write_bytes(damaged[damage])
    code, message = embed(tmp_path / "in")
    assert code == 2, message
    assert not out.exists()


def test_an_existing_output_is_refused_replaced_or_kept_by_mode(embed, out, tmp_path):
    first = write_pictures(tmp_path / "first.parquet", 3)
    second = write_pictures(tmp_path / "second.parquet", 5)
    assert embed(first)[0] == 0
    code, message = embed(second)
    assert code == 2
    assert f"{out} exists" in message
    assert manifest(out)["counts"]["rows"] == 3
    assert embed(second, output__mode="overwrite")[0] == 0
    assert len(rows(out, "image_id")) == manifest(out)["counts"]["rows"] == 5
    assert leftovers(out.parent) == ["out"]


def test_a_resumed_run_keeps_what_is_done_and_does_the_rest(embed, out, tmp_path):
    path = write_pictures(tmp_path / "in.parquet", 6)
    assert embed(path)[0] == 0
    before = vectors(out, "image_id")
    write_pictures(tmp_path / "in.parquet", 10)
    assert embed(path, output__mode="resume")[0] == 0
    after = vectors(out, "image_id")
    assert len(after) == 10
    assert all(np.array_equal(after[key], before[key]) for key in before)
    counts = manifest(out)["counts"]
    assert (counts["reused"], counts["embedded"]) == (6, 4)
    # Rows that are no longer in the input are not in the output either.
    write_pictures(tmp_path / "in.parquet", 6)
    assert embed(path, output__mode="resume")[0] == 0
    assert sorted(vectors(out, "image_id")) == sorted(before)
    assert manifest(out)["counts"]["reused"] == 6


def test_a_resumed_run_does_failed_rows_and_repeated_ids_again(embed, out, tmp_path):
    ids = ["good", "bad", "twice", "twice", None]
    content = [picture(0), b"no", picture(1), picture(2), picture(3)]
    path = write(tmp_path / "in.parquet", image_id=ids, content=content)
    settings = {"output__mode": "resume", "limits__max_failed_fraction": 0.5}
    assert embed(path, **settings)[0] == 0
    content[1] = picture(9)
    write(tmp_path / "in.parquet", image_id=ids, content=content)
    assert embed(path, **settings)[0] == 0
    table = pq.read_table(out).to_pylist()
    assert len(table) == 5
    assert {row["status"] for row in table} == {"ok"}
    counts = manifest(out)["counts"]
    assert (counts["reused"], counts["embedded"]) == (2, 3)  # good, and the null id


def test_a_run_that_reads_something_else_does_not_resume(embed, out, tmp_path):
    ids = [f"picture-{number:04}" for number in range(3)]
    columns = {"image_id": ids, "content": [picture(n) for n in range(3)]}
    columns["thumbnail"] = [picture(n + 3) for n in range(3)]
    path = write(tmp_path / "in.parquet", **columns)
    again = write(tmp_path / "again.parquet", **columns)
    assert embed(path)[0] == 0
    told = manifest(out)
    for other, key in (
        ({"input__content": "thumbnail"}, "input.content was content"),
        ({"input__where": "image_id > ''"}, "input.where was None"),
        ({"input__path": again}, f"input.path was ['file:{path}']"),
    ):
        code, message = embed(path, output__mode="resume", **other)
        assert (code, f"made with other settings ({key}" in message, message) == (2, True, message)
    assert manifest(out) == told
    # Another spelling of the path is no other input.
    assert embed(f"file://{path}", output__mode="resume") == (0, "")
    assert manifest(out)["counts"]["reused"] == 3


def test_a_run_with_another_model_does_not_resume(embed, out, tmp_path):
    path = write_pictures(tmp_path / "in.parquet", 3)
    assert embed(path)[0] == 0
    code, message = embed(path, output__mode="resume", model__normalize=True)
    assert code == 2
    assert "made with other settings" in message
    assert manifest(out)["config"]["model"]["normalize"] is False


def test_a_folder_that_is_no_output_of_ours_is_not_resumed(embed, out, tmp_path):
    path = write_pictures(tmp_path / "in.parquet", 3)
    write(out / "theirs.parquet", other=[1])
    code, message = embed(path, output__mode="resume")
    assert code == 2
    assert "_manifest.json" in message
    assert leftovers(out) == ["theirs.parquet"]


def test_a_dry_run_checks_the_model_and_writes_nothing(embed, out, tmp_path):
    path = write_pictures(tmp_path / "in.parquet", 3)
    assert embed(path, "--dry-run") == (0, "")
    assert not out.parent.exists()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    (tmp_path / "empty" / "preprocessor_config.json").write_text("{}")
    code, message = embed(path, "--dry-run", model__name=f"hf:{tmp_path}/empty")
    assert code == 2
    assert "cannot be loaded" in message


def test_a_model_that_only_a_worker_finds_broken_is_exit_code_2_and_leaves_nothing(
    embed, out, tmp_path, resnet
):
    folder = tmp_path / "model"
    shutil.copytree(resnet.removeprefix("hf:"), folder)
    (folder / "model.safetensors").write_bytes(b"cut off")
    path = write_pictures(tmp_path / "in.parquet", 3)
    code, message = embed(path, model__name=f"hf:{folder}")
    assert code == 2
    assert "cannot be loaded" in message
    assert leftovers(out.parent) == []


def test_the_session_that_was_there_is_left_running(embed, spark, tmp_path):
    assert embed(write_pictures(tmp_path / "in.parquet", 1))[0] == 0
    assert spark.range(3).count() == 3


def test_an_id_column_of_any_name_is_resumed_in_a_folder_of_any_name(embed, tmp_path):
    path = write(tmp_path / "in.parquet", _id=["a", "b"], content=[picture(0), picture(1)])
    settings = {"input__id": "_id", "output__path": tmp_path / "set[1] {x}*"}
    assert embed(path, **settings) == (0, "")
    assert embed(path, **settings, output__mode="resume") == (0, "")
    assert manifest(tmp_path / "set[1] {x}*")["counts"]["reused"] == 2
