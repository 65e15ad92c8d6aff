"""Jobs whose tables, pictures and outputs are in an object store, by the real hadoop-aws.

Run by scripts/cluster/objectstore, which has the jars and the server; skipped without them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.faulty_proxy import faulty_proxy
from cluster.object_store import SECRET, USER, Store, jars, served
from cluster.processes import PATIENCE, settings, start, stop, wait_for
from corpora import assert_close, picture

ROWS = 60
MISSING = "i7"
MAGIC = {
    "spark.sql.sources.commitProtocolClass": (
        "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol"
    ),
    "spark.sql.parquet.output.committer.class": (
        "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"
    ),
    "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": (
        "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"
    ),
    "spark.hadoop.fs.s3a.committer.name": "magic",
}


@pytest.fixture(scope="module")
def environment() -> Path:
    """The folder that scripts/cluster/objectstore has made: moto in it, and s3fs beside it."""
    folder = os.environ.get("EMBER_OBJECT_STORE")
    if not folder:
        pytest.skip("EMBER_OBJECT_STORE is not set; run scripts/cluster/objectstore")
    return Path(folder)


@pytest.fixture
def store(environment) -> Iterator[Store]:
    with served(environment) as store:
        for number in range(ROWS):
            if f"i{number}" != MISSING:
                store.put(f"corpus/images/{number}.png", picture(number))
        uris = [f"s3a://corpus/images/{number}.png" for number in range(ROWS)]
        table = pa.table({"image_id": [f"i{number}" for number in range(ROWS)], "content": uris})
        stream = io.BytesIO()
        pq.write_table(table, stream)
        store.put("corpus/table/part-0.parquet", stream.getvalue())
        yield store


class Runs:
    """Jobs in processes of their own, whose Spark knows the store."""

    def __init__(self, folder: Path, environment: Path, port: int, **more: str) -> None:
        (folder / "conf").mkdir()
        path = ":".join(jars())
        facts = {
            "spark.driver.extraClassPath": path,
            "spark.executor.extraClassPath": path,
            "spark.hadoop.fs.s3a.endpoint": f"http://127.0.0.1:{port}",
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.access.key": USER,
            "spark.hadoop.fs.s3a.secret.key": SECRET,
            "spark.hadoop.fs.s3a.retry.interval": "50ms",
            "spark.hadoop.fs.s3a.retry.throttle.interval": "50ms",
            **more,
        }
        lines = "\n".join(f"{key} {value}" for key, value in facts.items())
        (folder / "conf" / "spark-defaults.conf").write_text(lines)
        self.log = folder / "log"
        self._environment = {
            "SPARK_CONF_DIR": str(folder / "conf"),
            "PYTHONPATH": str(environment / "s3fs"),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "EMBER_LOG_LEVEL": "DEBUG",
        }

    def begin(self, job: str, **values: Any):
        command = ["python", f"jobs/{job}.py", *settings(**values)]
        return start(command, self.log, **self._environment)

    def run(self, job: str, **values: Any) -> int:
        process = self.begin(job, **values)
        try:
            return process.wait(PATIENCE)
        finally:
            stop(process)


@pytest.fixture
def runs(store, environment, tmp_path) -> Runs:
    return Runs(tmp_path, environment, store.port)


@pytest.fixture
def job(resnet) -> dict[str, Any]:
    return {
        "input__path": "s3a://corpus/table",
        "input__id": "image_id",
        "input__modality": "image",
        "input__content_is": "paths",
        "input__root": "s3a://corpus/images",
        "model__name": resnet,
        "output__path": "s3a://out/table",
        "limits__rows_per_task": 2,
        "limits__max_failed_fraction": 0.1,
    }


def manifest(store: Store, table: str = "table") -> dict[str, Any]:
    return json.loads(store.get(f"out/{table}/_manifest.json"))


def rows(store: Store, table: str = "table") -> list[dict[str, Any]]:
    """The rows of a table by its manifest, as a reader that goes by it finds them."""
    named = [name for name in manifest(store, table)["files"] if name.startswith("part-")]
    found = [store.get(f"out/{table}/{name}") for name in named]
    return [row for each in found for row in pq.read_table(pa.BufferReader(each)).to_pylist()]


def assert_whole(store: Store) -> None:
    """All rows once, the missing picture with its reason, and nothing else in the bucket."""
    found = {row["image_id"]: row for row in rows(store)}
    assert sorted(found) == sorted(f"i{number}" for number in range(ROWS))
    assert len(rows(store)) == ROWS
    bad = [key for key, row in found.items() if row["status"] != "ok"]
    assert bad == [MISSING]
    assert found[MISSING]["error"].startswith("file not found")
    assert_nothing_else(store)


def assert_nothing_else(store: Store) -> None:
    """What the bucket holds is the table, as its manifest names it."""
    named = {f"table/{name}" for name in manifest(store)["files"]} | {"table/_manifest.json"}
    assert {key for key in store.keys("out") if not key.endswith("/")} == named


def staged(store: Store) -> list[str]:
    return [key for key in store.keys("out", ".table.staging/") if "/new/part-" in key]


def test_pictures_by_uri_become_a_table_that_the_next_job_reads(store, runs, job):
    assert runs.run("embed", **job, output__file_size="20 KB") == 0, runs.log.read_text()
    said = runs.log.read_text()
    assert_whole(store)
    assert len(manifest(store)["files"]) < 12  # of thirty tasks
    joined = {
        "left__path": "s3a://out/table",
        "left__id": "image_id",
        "left__where": "status = 'ok'",
        "threshold": 0.5,
        "output__path": "s3a://out/pairs",
    }
    # What is not of the table by its manifest is not read.
    store.put("out/table/part-of-another-run.parquet", store.get("corpus/table/part-0.parquet"))
    assert runs.run("join", **joined) == 0, runs.log.read_text()
    assert len(rows(store, "pairs")) == manifest(store, "pairs")["counts"]["rows"] > 0
    said += runs.log.read_text()
    told = "".join(store.get(f"out/{key}").decode("latin-1") for key in store.keys("out"))
    for secret in (SECRET, USER):
        assert secret not in said
        assert secret not in told


@pytest.mark.parametrize("committer", ["file", "magic"])
def test_a_killed_run_is_resumed_also_with_the_magic_committer(
    store, environment, tmp_path, job, committer
):
    """A task's rows are safe when it ends, where other tables appear at the end of the job."""
    runs = Runs(tmp_path, environment, store.port, **(MAGIC if committer == "magic" else {}))
    process = runs.begin("embed", **job)
    wait_for(lambda: len(staged(store)) >= 4, process)
    stop(process)
    assert not store.keys("out", "table/")
    assert runs.run("embed", **job, output__mode="resume", output__sorted=True) == 0
    assert_whole(store)
    assert manifest(store)["counts"]["reused"] >= 4
    assert [row["image_id"] for row in rows(store)] == sorted(f"i{n}" for n in range(ROWS))


def test_a_run_killed_while_its_files_are_put_in_place_is_resumed(store, runs, job):
    process = runs.begin("embed", **job)
    wait_for(lambda: any(key.endswith("/placing.json") for key in store.keys("out")), process)
    stop(process)
    assert runs.run("embed", **job, output__mode="resume") == 0, runs.log.read_text()
    assert_whole(store)


def test_who_reads_by_the_manifest_while_a_table_is_overwritten_finds_it_whole(store, runs, job):
    assert runs.run("embed", **job) == 0, runs.log.read_text()
    first = manifest(store)["run_id"]
    seen: list[tuple[str, int]] = []
    over = Event()

    def poll() -> None:
        while not over.is_set():
            run = manifest(store)["run_id"]
            try:
                seen.append((run, len(rows(store))))
            except FileNotFoundError:  # the table was replaced while it was read
                if manifest(store)["run_id"] == run:
                    seen.append((run, -1))

    reader = Thread(target=poll)
    reader.start()
    try:
        assert runs.run("embed", **job, output__mode="overwrite") == 0, runs.log.read_text()
    finally:
        over.set()
        reader.join()
    assert_whole(store)
    assert {count for _, count in seen} == {ROWS}
    assert first in {run for run, _ in seen}
    assert manifest(store)["run_id"] != first


def test_a_table_follows_pictures_that_come_change_and_go(store, runs, job):
    """With `output.mode: sync`; and is what a fresh run of the same rows writes."""

    def embed(gone: str, **settings: Any) -> dict[str, Any]:
        where = f"image_id NOT IN ('{MISSING}', '{gone}')"
        given = {**job, "input__where": where, "output__mode": "sync", **settings}
        assert runs.run("embed", **given) == 0, runs.log.read_text()
        return manifest(store)

    assert embed(gone="i0")["counts"]["embedded"] == ROWS - 2
    store.put("corpus/images/5.png", picture(ROWS))
    told = embed(gone="i1")
    counts = {key: told["counts"][key] for key in ("new", "changed", "gone", "unchanged")}
    assert counts == {"new": 1, "changed": 1, "gone": 1, "unchanged": ROWS - 4}
    assert (told["counts"]["embedded"], told["counts"]["reused"]) == (2, ROWS - 4)
    assert_nothing_else(store)

    again = embed(gone="i1")
    assert again["run_id"] != told["run_id"]
    assert (again["files"], again["counts"]["unchanged"]) == (told["files"], ROWS - 2)
    assert_nothing_else(store)

    embed(gone="i1", output__path="s3a://out/fresh", output__mode="fail")
    ours, fresh = ({row["image_id"]: row for row in rows(store, at)} for at in ("table", "fresh"))
    assert ours.keys() == fresh.keys()
    for key, row in fresh.items():
        assert_close(np.asarray(ours[key]["embedding"]), np.asarray(row["embedding"]))


def test_a_store_that_is_busy_and_cuts_connections_costs_time_and_no_row(
    store, environment, tmp_path, job
):
    with faulty_proxy(store.port, 0.1) as (port, told):
        runs = Runs(tmp_path, environment, port)
        assert runs.run("embed", **job) == 0, runs.log.read_text()
    assert told["busy"] > 5
    assert told["cut"] > 5
    assert_whole(store)
