"""Tracking on request: what a run has published, as a run of MLflow, where MLflow's settings say.

It is asked for by naming an experiment, in MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID; only
then is mlflow imported. What cannot be logged is a warning: no run fails for it. All of it comes
from the manifest, which has no secrets.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.redaction import redact
from ember.spark.contents import FILES, MANIFEST
from ember.spark.staged_files import dotted, read_manifest
from ember.spark.storage import Storage

__all__ = ["tracked"]

_log = logging.getLogger(__name__)
_NAME, _ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
# What MLflow takes: so long a value, so many parameters and metrics in a call.
_LONGEST, _AT_ONCE = 6000, 100
_MODELS = {"train": "head", "finetune": "backbone"}
_PAGES = re.compile(r"_?report\.html")


@contextmanager
def tracked(spark: SparkSession, job: str, run_id: str, folder: str) -> Iterator[None]:
    """Log what the block, a run of a job, has left at `folder`, also where it then fell short.

    A figure below what `require` asks for ends a run after it has published; such a run is FAILED.
    """
    if not (os.environ.get(_NAME) or os.environ.get(_ID)):
        yield
        return
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        try:
            storage = Storage(spark)
            manifest = read_manifest(storage, folder) or {}
            # Otherwise this run has published nothing, as one that finds all of it done.
            if (manifest.get("run_id"), manifest.get("job")) == (run_id, job):
                _log_run(storage, folder, manifest, status)
        except Exception as error:
            _log.warning("MLflow has nothing of this run: %s", redact(str(error)))


def _log_run(storage: Storage, folder: str, manifest: Mapping[str, Any], status: str) -> None:
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ModuleNotFoundError(
            f"{_NAME} is set, and mlflow is not installed here (pip install 'ember-spark[mlflow]')"
        ) from None
    client = MlflowClient()
    job, experiment = manifest["job"], _experiment(client)
    own = f"tags.`ember.run_id` = '{manifest['run_id']}' AND attributes.status = 'FINISHED'"
    if client.search_runs([experiment], own, max_results=1):
        return  # a retry of what is done
    run = client.create_run(
        experiment,
        start_time=_milliseconds(manifest["started"]),
        run_name=f"{job} {manifest['run_id']}",
        tags={"ember.job": job, "ember.run_id": manifest["run_id"], "ember.output": redact(folder)},
    )
    told = run.info.run_id
    try:
        _log_numbers(client, told, manifest)
        with tempfile.TemporaryDirectory(prefix="ember-mlflow-") as local:
            for name in (MANIFEST, *filter(_PAGES.fullmatch, manifest.get(FILES, ()))):
                storage.download(f"{folder}/{name}", f"{local}/{name}")
                client.log_artifact(told, f"{local}/{name}")
        if job in _MODELS:
            _log_model(client, told, storage, folder, manifest)
    except BaseException:
        status = "FAILED"
        raise
    finally:
        client.set_terminated(told, status, end_time=_milliseconds(manifest["finished"]))


def _experiment(client: Any) -> str:
    if given := os.environ.get(_ID):
        return given
    name = os.environ[_NAME]
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _log_numbers(client: Any, run_id: str, manifest: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    when = _milliseconds(manifest["finished"])
    texts = dict(dotted(manifest["config"]))
    params = [Param(_name(key), str(value)[:_LONGEST]) for key, value in texts.items()]
    metrics = [Metric(_name(key), value, when, 0) for key, value in _metrics(manifest)]
    for first in range(0, max(len(params), len(metrics)), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        client.log_batch(run_id, metrics=metrics[part], params=params[part])


def _metrics(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Headline figures with the ends of their intervals, counts, seconds of each phase, rate."""
    numbers: dict[str, Any] = {}
    for name, figure in manifest.get("figures", {}).items():
        numbers[name] = figure["value"]
        numbers |= {f"{name}.{end}": figure[end] for end in ("low", "high")}
    for section in ("counts", "seconds"):
        numbers |= dict(dotted(manifest.get(section, {}), f"{section}."))
    numbers["rows_per_second"] = manifest.get("rows_per_second")
    for name, value in numbers.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _log_model(
    client: Any, run_id: str, storage: Storage, folder: str, manifest: Mapping[str, Any]
) -> None:
    """The folder that the job wrote as a model of MLflow's, in `data`, to register and to fetch."""
    from mlflow.models import Model

    kind = _MODELS[manifest["job"]]
    with tempfile.TemporaryDirectory(prefix="ember-mlflow-") as local:
        for name in manifest[FILES]:
            if not name.endswith(".parquet") and "/_" not in f"/{name}":
                target = Path(local, "data", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                storage.download(f"{folder}/{name}", str(target))
        model = Model(artifact_path="model", run_id=run_id)
        model.add_flavor("ember", data="data", kind=kind, version=_version(manifest))
        model.save(f"{local}/MLmodel")
        client.log_artifacts(run_id, local, "model")


def _version(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("versions", {}).get("ember-spark", ""))


def _name(text: str) -> str:
    """A name as MLflow takes it: recall@10 is recall_at_10."""
    return re.sub(r"[^\w.\- /]", "_", text.replace("@", "_at_"))


def _milliseconds(when: str) -> int:
    return round(datetime.fromisoformat(when).timestamp() * 1000)
