"""A join whose driver or executor is killed: the pairs of an undisturbed one, and no work twice."""

from __future__ import annotations

import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.processes import (
    LOCAL_CLUSTER,
    PATIENCE,
    committed,
    executors,
    settings,
    start,
    stop,
    wait_for,
)
from corpora import leftovers, manifest, write

ROWS, DIMENSION, THRESHOLD = 4000, 16, 0.75
ENOUGH_FILES = 6


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, DIMENSION)).astype(np.float32)


@pytest.fixture
def job(tmp_path, matrix):
    """Settings of a self-join of 40 blocks."""
    ids = [f"i{number:04}" for number in range(ROWS)]
    vectors = pa.array(list(matrix), pa.list_(pa.float32()))
    return {
        "left__path": write(tmp_path / "in.parquet", id=ids, embedding=vectors),
        "left__id": "id",
        "threshold": THRESHOLD,
        "output__path": tmp_path / "work" / "out",
        "output__mode": "resume",
        "limits__rows_per_block": 100,
    }


def assert_every_pair_once(out, matrix) -> None:
    table = pq.read_table(out)
    ours = [
        (int(a[1:]), int(b[1:]))
        for a, b in zip(table["left_id"].to_pylist(), table["right_id"].to_pylist(), strict=True)
    ]
    unit = matrix / np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    hit = np.triu(unit @ unit.T >= np.float32(THRESHOLD), 1)
    assert len(ours) == len(set(ours))
    assert set(ours) == {(int(a), int(b)) for a, b in zip(*np.nonzero(hit), strict=True)}


def test_a_killed_join_is_resumed_without_finished_tasks(job, matrix, run_job, tmp_path):
    out = tmp_path / "work" / "out"
    process = start(["python", "jobs/join.py", *settings(**job)], tmp_path / "log")
    wait_for(lambda: len(committed(out)) >= ENOUGH_FILES, process)
    stop(process)
    assert not out.exists()
    done = len(committed(out))

    assert run_job("join", **job) == (0, "")
    assert_every_pair_once(out, matrix)
    assert manifest(out)["work"] == {"tasks": 40, "reused": done}
    assert leftovers(out.parent) == ["out"]


def test_a_killed_executor_changes_no_pair(job, matrix, tmp_path):
    out = tmp_path / "work" / "out"
    command = [*LOCAL_CLUSTER, "jobs/join.py", *settings(**job)]
    process = start(command, tmp_path / "log")
    wait_for(lambda: len(committed(out)) >= ENOUGH_FILES, process)
    os.kill(executors(process.pid)[0], signal.SIGKILL)
    try:
        assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    finally:
        stop(process)
    assert_every_pair_once(out, matrix)
    assert manifest(out)["work"] == {"tasks": 40, "reused": 0}
