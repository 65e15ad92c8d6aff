from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.results import vectors_to_arrow
from ember.worker.row_paths import PathRules
from ember.worker.stats import TaskStats
from ember.worker.task import embed_batches
from odd_images import encoded, picture
from tiny_models import spec_of

TEXTS = [
    "the cat sat on a mat",
    None,
    "a dog",
    "",
    "the big dog runs in the small house of a cat",
    b"bad \xff",
    "blue",
]
REASONS = [None, "null content", None, "empty content", None, "invalid text", None]


def batch_of(
    texts: Sequence[str | bytes | None], ids: Any = None, names: Sequence[str] = ("key", "content")
) -> pa.RecordBatch:
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    content = pa.array(raw, pa.binary()).view(pa.string())
    ids = pa.array(range(len(texts)), pa.int64()) if ids is None else ids
    return pa.RecordBatch.from_arrays([ids, content], names=list(names))


def table(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches))


def test_rows_come_back_in_order_with_vector_or_reason(bert_folder: Path) -> None:
    out = table(embed_batches([batch_of(TEXTS)], spec_of(bert_folder)))
    assert out.schema.names == ["key", "embedding", "status", "error"]
    assert out.schema.types == [pa.int64(), pa.list_(pa.float32()), pa.string(), pa.string()]
    assert out["key"].to_pylist() == list(range(7))
    for vector, status, error, reason in zip(
        out["embedding"].to_pylist(),
        out["status"].to_pylist(),
        out["error"].to_pylist(),
        REASONS,
        strict=True,
    ):
        if reason is None:
            assert (len(vector), status, error) == (32, "ok", None)
        else:
            assert (vector, status) == (None, "error")
            assert error.startswith(reason)


IDS = {
    "int64": pa.array([2**60, -1, None, 0, 5, 6, 7], pa.int64()),
    "int8": pa.array([1, 2, 3, 4, 5, 6, None], pa.int8()),
    "string": pa.array(["a", "ü", None, "", "e", "f", "g"]),
    "binary": pa.array([b"\xff", b"", None, b"d", b"e", b"f", b"g"], pa.binary()),
    "double": pa.array([0.5, float("inf"), None, 4, 5, 6, 7], pa.float64()),
    "bool": pa.array([True, False, None, True, True, True, True]),
    "decimal": pa.array([Decimal("1.50"), None, *[Decimal(n) for n in range(5)]]),
    "timestamp": pa.array([dt.datetime(2020, 1, n + 1) for n in range(7)], pa.timestamp("us")),
    "zoned": pa.array([dt.datetime(2020, 1, n + 1) for n in range(7)], pa.timestamp("us", "UTC")),
    "date": pa.array([dt.date(2020, 1, n + 1) for n in range(7)], pa.date32()),
    "null": pa.nulls(7),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_type_are_kept(bert_folder: Path, kind: str) -> None:
    ids = IDS[kind]
    out = table(embed_batches([batch_of(TEXTS, ids)], spec_of(bert_folder)))
    assert out["key"].type == ids.type
    assert out["key"].combine_chunks().equals(ids)


def test_column_names_do_not_matter(bert_folder: Path) -> None:
    batch = batch_of(TEXTS, names=("embedding", "status"))
    out = next(embed_batches([batch], spec_of(bert_folder)))
    assert out.schema.names == ["embedding", "embedding", "status", "error"]
    assert out.column(0).to_pylist() == list(range(7))


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 5), max_size=12), batch_size=st.sampled_from([1, 4]))
def test_cutting_the_input_differently_changes_nothing(
    bert_folder: Path, sizes: list[int], batch_size: int
) -> None:
    texts = TEXTS * 3
    whole = batch_of(texts)
    cuts = np.minimum(np.cumsum([0, *sizes, len(texts)]), len(texts))
    parts = [whole.slice(a, b - a) for a, b in pairwise(cuts)]

    spec = spec_of(bert_folder)
    out = table(embed_batches(parts, spec_of(bert_folder, batch_size=batch_size)))
    expected = table(embed_batches([whole], spec))

    assert out.drop("embedding").equals(expected.drop("embedding"))
    for one, other in zip(out["embedding"], expected["embedding"], strict=True):
        assert one.is_valid == other.is_valid
        if one.is_valid:
            np.testing.assert_allclose(one.as_py(), other.as_py(), atol=1e-5)


def test_large_batch_leaves_in_small_ones(bert_folder: Path) -> None:
    out = list(embed_batches([batch_of(["a"] * 1300)], spec_of(bert_folder)))
    assert [batch.num_rows for batch in out] == [512, 512, 276]
    assert [key for batch in out for key in batch["key"].to_pylist()] == list(range(1300))


def test_all_rows_may_fail(bert_folder: Path) -> None:
    out = table(embed_batches([batch_of([None, "", b"\xff"])], spec_of(bert_folder)))
    assert out["embedding"].type == pa.list_(pa.float32())
    assert out["embedding"].null_count == 3
    assert out["status"].to_pylist() == ["error"] * 3


@pytest.mark.parametrize("batches", [[], [batch_of([])], [batch_of([])] * 3])
def test_no_row_loads_no_model(
    fresh_process: pytest.MonkeyPatch, batches: list[pa.RecordBatch]
) -> None:
    stats = TaskStats()
    spec = spec_of(Path(__file__), modality="text", name="hf:missing")
    assert list(embed_batches(batches, spec, stats=stats)) == []
    assert task.record(spec, paths=False).loads == 0
    assert stats == TaskStats()


def test_empty_batches_in_between_are_skipped(bert_folder: Path) -> None:
    empty = batch_of([])
    batches = [empty, batch_of(["a"]), empty, empty, batch_of(["a", "cat"]), empty]
    out = table(embed_batches(batches, spec_of(bert_folder)))
    assert out["key"].to_pylist() == [0, 0, 1]


def test_two_hundred_partitions_load_the_model_once(
    fresh_process: pytest.MonkeyPatch, bert_folder: Path
) -> None:
    stats, spec = TaskStats(), spec_of(bert_folder)
    for _ in range(200):
        list(embed_batches([batch_of(["a cat"])], spec, stats=stats))
    assert stats.rows == 200
    assert task.record(spec, paths=False).loads == 1
    assert task.record(spec, paths=False).load_seconds > 0
    assert task.record(spec, paths=False).device == "cpu"


def test_another_model_is_another_load(
    fresh_process: pytest.MonkeyPatch, bert_folder: Path, tmp_path: Path
) -> None:
    one, other = spec_of(bert_folder), spec_of(bert_folder, layer="cls")
    for spec in (one, other, one, other, one.at(str(bert_folder) + "/")):
        list(embed_batches([batch_of(["a cat"])], spec))
    assert [task.record(spec, paths=False).loads for spec in (one, other)] == [1, 1]


def test_normalized_vectors_have_unit_length_and_the_same_direction(bert_folder: Path) -> None:
    plain = table(embed_batches([batch_of(TEXTS)], spec_of(bert_folder)))
    unit = table(embed_batches([batch_of(TEXTS)], spec_of(bert_folder, normalize=True)))
    assert unit.drop("embedding").equals(plain.drop("embedding"))
    for raw, vector in zip(plain["embedding"], unit["embedding"], strict=True):
        assert raw.is_valid == vector.is_valid
        if raw.is_valid:
            direction = np.array(raw.as_py()) / np.linalg.norm(raw.as_py())
            np.testing.assert_allclose(vector.as_py(), direction, atol=1e-6)


def test_zero_vector_stays_zero_when_normalized(
    fresh_process: pytest.MonkeyPatch, bert_folder: Path
) -> None:
    spec = spec_of(bert_folder, normalize=True)
    encoder = task.load(spec, address=None, threads=1, paths=False)
    fresh_process.setattr(encoder, "run", lambda items: np.zeros((len(items), 3), np.float32))
    out = table(embed_batches([batch_of(["a"])], spec))
    assert out["embedding"].to_pylist() == [[0, 0, 0]]


def test_image_paths_are_read(resnet_folder: Path, tmp_path: Path) -> None:
    data = encoded(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.png").write_bytes(b"no picture")
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "missing.png")]
    spec = spec_of(resnet_folder)
    out = table(embed_batches([batch_of(paths)], spec, paths=PathRules((str(tmp_path),))))
    direct = pa.RecordBatch.from_pydict({"id": [1], "content": [data]})
    expected = table(embed_batches([direct], spec))["embedding"].to_pylist()
    assert out["embedding"].to_pylist() == [*expected, None, None]
    assert [(error or "").split(":")[0] for error in out["error"].to_pylist()] == [
        "",
        "not an image",
        "file not found",
    ]


def test_statistics_count_rows_truncation_and_phases(bert_folder: Path) -> None:
    stats = TaskStats()
    long = "cat " * 100
    list(embed_batches([batch_of([long, "a", None, long])], spec_of(bert_folder), stats=stats))
    assert (stats.rows, stats.truncated) == (4, 2)
    assert set(stats.seconds) == {"load", "model", "prepare wait"}
    # Of the second task only its own.
    again = TaskStats()
    list(embed_batches([batch_of(["a", long])], spec_of(bert_folder), stats=again))
    assert (again.rows, again.truncated) == (2, 1)


@given(
    failed=st.lists(st.booleans(), max_size=12),
    width=st.integers(1, 4),
)
def test_vectors_reach_arrow_whatever_rows_failed(failed: list[bool], width: int) -> None:
    rows = len(failed)
    vectors = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    array = vectors_to_arrow(vectors, np.array(failed, bool))
    array.validate(full=True)
    assert array.type == pa.list_(pa.float32())
    expected = [None if bad else row for bad, row in zip(failed, vectors.tolist(), strict=True)]
    assert array.to_pylist() == expected


def test_no_vectors_at_all_are_nulls_of_the_right_type() -> None:
    array = vectors_to_arrow(None, np.array([True, True]))
    assert array.type == pa.list_(pa.float32())
    assert array.to_pylist() == [None, None]


def test_a_runtime_that_is_not_known_is_refused(bert_folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"runtime onnx cannot run hf:"):
        task.load(spec_of(bert_folder, runtime="onnx"), address=None, threads=1, paths=None)
