"""Faults, caused: whatever is killed, the resumed table is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.processes import (
    LOCAL_CLUSTER,
    PATIENCE,
    committed,
    executors,
    python_workers,
    settings,
    start,
    stop,
    wait_for,
)
from corpora import assert_close, leftovers, manifest, vectors, write_pictures
from ember.settings.embedding import ModelConfig
from ember.spark import models
from ember.worker.task import embed_batches

ROWS = 120
ENOUGH_FILES = 6


@pytest.fixture
def job(tmp_path, resnet):
    """Settings of a run of many small tasks."""
    return {
        "input__path": write_pictures(tmp_path / "in.parquet", ROWS),
        "input__id": "image_id",
        "input__modality": "image",
        "model__name": resnet,
        "output__path": tmp_path / "work" / "out",
        "output__mode": "resume",
        "limits__rows_per_task": 5,
    }


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "work" / "out"


@pytest.fixture
def undisturbed(job, resnet) -> dict[str, np.ndarray]:
    """The vectors of one pass of the engine, without Spark."""
    spec = models.resolve(ModelConfig(name=resnet), "image", 10**8)
    batches = pq.read_table(job["input__path"]).to_batches()
    table = pa.Table.from_batches(embed_batches(batches, spec)).to_pydict()
    return dict(zip(table["image_id"], map(np.asarray, table["embedding"]), strict=True))


def assert_same(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> None:
    assert ours.keys() == reference.keys()
    for key, vector in reference.items():
        assert_close(ours[key], vector)


def test_a_killed_driver_is_resumed_also_when_killed_again(
    job, out, undisturbed, embed_job, tmp_path
):
    process = start(["python", "jobs/embed.py", *settings(**job)], tmp_path / "log")
    wait_for(lambda: len(committed(out)) >= ENOUGH_FILES, process)
    stop(process)
    assert not out.exists()
    before = {file.parent.parent.name for file in committed(out)}
    process = start(["python", "jobs/embed.py", *settings(**job)], tmp_path / "log")
    wait_for(lambda: {f.parent.parent.name for f in committed(out)} - before, process)
    stop(process)
    (attempt,) = out.parent.glob(f".{out.name}.staging/attempt-*")
    done = sum(
        pq.read_metadata(file).num_rows
        for name in ("kept", "new")
        for file in attempt.glob(f"{name}/part-*.parquet")
    )

    assert embed_job(**job) == (0, "")
    assert_same(vectors(out, "image_id"), undisturbed)
    counts = manifest(out)["counts"]
    assert (counts["reused"], counts["embedded"]) == (done, ROWS - done)
    assert done > 5 * ENOUGH_FILES
    assert leftovers(out.parent) == ["out"]


def test_a_killed_python_worker_and_executor_cost_their_tasks_and_nothing_else(
    job, out, undisturbed, tmp_path
):
    process = start([*LOCAL_CLUSTER, "jobs/embed.py", *settings(**job)], tmp_path / "log")
    try:
        wait_for(lambda: len(committed(out)) >= ENOUGH_FILES, process)
        os.kill(wait_for(lambda: python_workers(process.pid), process)[0], signal.SIGKILL)
        wait_for(lambda: len(committed(out)) >= 2 * ENOUGH_FILES, process)
        found = executors(process.pid)
        assert len(found) == 2
        os.kill(found[0], signal.SIGKILL)
        assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    finally:
        stop(process)
    assert_same(vectors(out, "image_id"), undisturbed)
    told = manifest(out)
    counts = told["counts"]
    assert counts == {**counts, "rows": ROWS, "reused": 0, "embedded": ROWS}
    assert set(told["loads_by_worker"].values()) == {1}
