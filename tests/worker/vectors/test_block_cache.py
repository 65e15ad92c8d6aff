"""Blocks on a node: gathered from runs, found by the numbers and the ids of their rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ember.worker.vectors import METRICS, fit_basis
from ember.worker.vectors.block_cache import (
    BlockCache,
    RunFiles,
    own_keys,
    own_numbers,
    shared_keys,
    stored_rows,
    to_ipc,
)
from vector_cases import random


def cache(folder, matrix, metric, size):
    """A table in packed blocks and runs: the vectors in another order."""
    count, dimension = matrix.shape
    places = np.random.default_rng(0).permutation(count)  # of each row in the runs
    lying = np.empty_like(matrix)
    lying[places] = matrix
    firsts = list(range(0, count, size))
    ids = [
        pa.array([f"r{n:04}" for n in range(first, min(first + size, count))]) for first in firsts
    ]
    blocks = [
        {"ids": to_ipc(pa.table({"id": some})), "groups": None, "places": lie.tobytes(), "again": 0}
        for some, lie in zip(ids, np.split(places, firsts[1:]), strict=True)
    ]
    file = stored(folder / "blocks", BLOCK, blocks)
    starts = [0, count // 3, count // 2]
    runs = [
        stored(folder / f"run{place}", [("matrix", pa.binary())], [{"matrix": part.tobytes()}])
        for place, part in enumerate(np.split(lying, starts[1:]))
    ]
    vectors = RunFiles(runs, starts, count, dimension, matrix.dtype.name)
    packed = [(file, row) for row in range(len(firsts))]
    return BlockCache(packed, firsts, vectors, fit_basis(matrix, metric), str(folder / "cache"), 1)


BLOCK = [
    ("ids", pa.binary()), ("groups", pa.binary()), ("places", pa.binary()), ("again", pa.int64())
]  # fmt: skip


def stored(path, columns, rows):
    """A file with a batch for each row, and what Spark's writer of texts leaves behind it."""
    with path.open("wb") as sink, pa.ipc.new_stream(sink, pa.schema(columns)) as stream:
        for row in rows:
            stream.write_batch(pa.RecordBatch.from_pylist([row], pa.schema(columns)))
    with path.open("ab") as sink:
        sink.write(b"\n")
    return str(path)


def test_own_rows_are_found_by_their_ids(tmp_path):
    here = cache(tmp_path, np.ones((10, 2), np.float32), "cosine", 4)
    ids = pa.array(["r0007", "none", "r0000", None])
    assert own_numbers(ids, here).tolist() == [7, -2, 0, -4]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_hold_the_rows_of_all_runs_in_the_order_of_ids(tmp_path, metric, dtype):
    matrix = random(np.random.default_rng(3), 300, 9).astype(dtype)
    here = cache(tmp_path, matrix, metric, 120)
    here.ready(range(3))
    for number, block in enumerate(here.blocks(range(3))):
        assert isinstance(block.rows, np.memmap)
        np.testing.assert_array_equal(block.rows, matrix[120 * number : 120 * (number + 1)])
        np.testing.assert_array_equal(block.ids, np.arange(300)[120 * number : 120 * (number + 1)])
        assert here.ids(number).to_pylist() == [f"r{n:04}" for n in block.ids]
    wanted = np.array([250, 3, 121, 3])
    assert here.ids_at(wanted).to_pylist() == ["r0250", "r0003", "r0121", "r0003"]


def test_rows_of_one_id_share_a_key_across_blocks(tmp_path):
    here = cache(tmp_path, np.ones((10, 2), np.float32), "cosine", 4)
    assert here.own(1).tolist() == [4, 5, 6, 7]
    ids = pa.array([2, 2, 3, None, None])
    assert own_keys(ids, 10, 3).tolist() == [7, 7, 12, 13, 14]
    zeros = pa.array([-0.0, 0.0, 1.0, float("nan"), float("nan")])
    assert own_keys(zeros, 0, 0).tolist() == [0, 0, 2, 3, 3]
    mine, theirs = shared_keys(pa.array([1, None, 5]), pa.array([None, 5, 7]))
    agree = (mine[:, None] == theirs).tolist()
    assert agree == [[False] * 3, [False] * 3, [False, True, False]]


def test_files_without_rows_and_with_others_than_were_told(tmp_path):
    (tmp_path / "empty").touch()
    assert list(stored_rows(str(tmp_path / "empty"))) == []
    file = stored(tmp_path / "run", [("matrix", pa.binary())], [{"matrix": bytes(36)}])
    assert RunFiles([file], [0], 3, 3).take(np.array([2, 0])).tolist() == [[0.0] * 3] * 2
    with pytest.raises(ValueError, match="9 values, not 4 x 3"):
        RunFiles([file], [0], 4, 3).take(np.array([3]))
